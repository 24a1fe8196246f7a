"""The reference engine: plain torch, gradients written by hand, one dictionary at a time. The truth for the others.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, K dictionaries.

For a ReLU dictionary with codes z = relu(y), y = (x - b) W_enc^T + b_enc, and residual r = z W_dec + b - x:

    loss = c |r|^2 + p sum(z) / B        c = 1/(B D) or 1/B, p the L1 penalty
    dr = 2 c r                           dz = (dr W_dec^T + p/B) where y > 0, else 0
    dW_dec = z^T dr    dW_enc = dz^T (x - b)    db_enc = sum_B dz    db = sum_B dr - db_enc W_enc

Five matrix products and no autograd graph. A NaN passes through the ReLU both ways, as it does in torch. Other kinds of
dictionaries go through `sparsecode.sweep.kinds`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsecode.sweep.engines import segments
from sparsecode.sweep.engines.by_kind import both_ways, used
from sparsecode.sweep.engines.protocol import Engine, StepStats
from sparsecode.sweep.kinds import KindSpec
from sparsecode.sweep.sweep import BETA1, BETA2, EPS, Sweep


class ReferenceEngine(Engine):
    """Trains on any device and in any float type of the sweep's parameters.

    Args:
        device: where sweeps are to be put.
        threads: torch's threads for the whole process; None leaves them.
    """

    name = "reference"
    transcodes = splits = True

    def __init__(self, device: torch.device | str = "cpu", threads: int | None = None) -> None:
        self.device = torch.device(device)
        if threads is not None:
            torch.set_num_threads(threads)

    @staticmethod
    def trains(kind: KindSpec) -> bool:
        """See `Engine.trains`: every kind."""
        del kind
        return True

    @torch.no_grad()
    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """See `Engine.step`."""
        sweep.check_batch(x)
        now = sweep.step
        sweep.step += 1
        stats = []
        with self.constrained(sweep):
            for k in range(len(sweep)):
                found, gradients = _both_ways(sweep, k, x, now, l1_factor)
                stats.append(found.sums)
                sweep.fired[sweep.rows(k)] += found.fired
                sweep.state.count(k, sweep.rows(k), found.fired, x.shape[0])
                sweep.state.follow(k, now, found.z)
                _update(sweep, k, gradients, lr_scale)
        return _stack(x.shape[0], stats)

    @torch.no_grad()
    def gradients(self, sweep: Sweep, x: Tensor) -> tuple[StepStats, dict[str, Tensor]]:
        """See `Engine.gradients`."""
        sweep.check_batch(x)
        found = {name: torch.zeros_like(value) for name, value in sweep.parameters().items()}
        stats = []
        for k in range(len(sweep)):
            codes, gradients = _both_ways(sweep, k, x, sweep.step)
            stats.append(codes.sums)
            for name, value in gradients.items():
                found[name][sweep.place(name, k)].copy_(value)
        return _stack(x.shape[0], stats), found

    @torch.no_grad()
    def evaluate(self, sweep: Sweep, x: Tensor) -> StepStats:
        """See `Engine.evaluate`."""
        sweep.check_batch(x)
        stats = []
        for k in range(len(sweep)):
            found = _written(sweep, _plain(sweep, k, x) if sweep.kinds[k].plain else _used(sweep, k, x))
            stats.append(found.sums)
            sweep.fired[sweep.rows(k)] += found.fired
        return _stack(x.shape[0], stats)


@dataclass
class _Codes:
    z: Tensor  # [B, F], or [B, 1] their sum where other processes have more of them
    r: Tensor  # [B, D], reconstruction minus data
    fired: Tensor  # [F], on how many rows each feature is active
    l0: Tensor | None = None  # [B, 1] active codes, where other processes have more of them

    @property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Squared error, L1 and L0, summed over rows."""
        return _sum(self.r.square()), _sum(self.z), _sum(self.fired if self.l0 is None else self.l0)


def _written(sweep: Sweep, codes: _Codes) -> _Codes:
    """With the error of what is written alone."""
    return codes if sweep.inputs is None else replace(codes, r=codes.r[:, sweep.written])


def _both_ways(sweep: Sweep, k: int, x: Tensor, step: int, l1_factor: float = 1.0) -> tuple[_Codes, dict[str, Tensor]]:
    """Codes and gradients of dictionary k at a step."""
    if sweep.split is not None:
        cut = segments.forward(sweep, k, x)
        return _of_segments(cut), segments.backward(sweep, k, cut, l1_factor)
    if sweep.kinds[k].plain:
        forward = _forward(sweep, k, x)
        gradients = _backward(sweep, k, forward, l1_factor)
        sweep.confine_each(gradients)
        return _written(sweep, forward.codes), gradients
    found = both_ways(sweep, k, x, step, l1_factor)
    gradients = found.gradients
    if sweep.loss.tied:
        gradients["W_dec"] += gradients.pop("W_enc")
    sweep.confine_each(gradients)
    return _written(sweep, _Codes(found.z, found.r, (found.z > 0).sum(0))), gradients


def _plain(sweep: Sweep, k: int, x: Tensor) -> _Codes:
    """Codes of a ReLU dictionary."""
    return _forward(sweep, k, x).codes if sweep.split is None else _of_segments(segments.forward(sweep, k, x))


def _of_segments(cut: segments.Forward) -> _Codes:
    return _Codes(cut.l1, cut.r, cut.fired, cut.l0)


def _used(sweep: Sweep, k: int, x: Tensor) -> _Codes:
    """Codes of dictionary k as it is used after the training."""
    z, r = used(sweep, k, x)
    return _Codes(z, r, (z > 0).sum(0))


@dataclass
class _Forward:
    W_enc: Tensor  # [F, D]
    W_dec: Tensor  # [F, D]
    x: Tensor  # [B, D], the pre-bias subtracted
    y: Tensor  # [B, F], before the ReLU
    codes: _Codes


def _forward(sweep: Sweep, k: int, x: Tensor) -> _Forward:
    own = sweep.rows(k)
    # Copies: BLAS may round differently with the alignment of its operands, and a dictionary must come out with the
    # same bits wherever in a sweep it lies.
    W_enc, W_dec = sweep.W_enc[own].clone(), sweep.W_dec[own].clone()
    x = x - sweep.b_dec[k] if sweep.b_dec is not None else x
    y = torch.nn.functional.linear(x, W_enc, sweep.b_enc[own])
    z = y.relu()
    return _Forward(W_enc, W_dec, x, y, _Codes(z, z @ W_dec - x, (y > 0).sum(0)))


def _backward(sweep: Sweep, k: int, forward: _Forward, l1_factor: float = 1.0) -> dict[str, Tensor]:
    B = forward.x.shape[0]
    dr = forward.codes.r * (2 / sweep.error_divisor(B))
    dz = (dr @ forward.W_dec.T).add_(sweep.penalty(k) * l1_factor / B)
    dz = torch.ops.aten.threshold_backward(dz, forward.y, 0)  # ten times as fast as masked_fill_ on a CPU
    dW_enc, db_enc, dW_dec = dz.T @ forward.x, dz.sum(0), forward.codes.z.T @ dr
    if sweep.loss.tied:
        gradients = {"b_enc": db_enc, "W_dec": dW_dec + dW_enc}
    else:
        gradients = {"W_enc": dW_enc, "b_enc": db_enc, "W_dec": dW_dec}
    if sweep.b_dec is not None:
        gradients["b_dec"] = dr.sum(0) - db_enc @ forward.W_enc
    return gradients


def _update(sweep: Sweep, k: int, gradients: dict[str, Tensor], lr_scale: float) -> None:
    atoms = sweep.W_dec[sweep.rows(k)]
    if sweep.loss.project_gradient:
        along = (gradients["W_dec"] * atoms).sum(1, keepdim=True)
        gradients["W_dec"] -= along * atoms
    parameters = sweep.parameters()
    for name, gradient in gradients.items():
        at = sweep.place(name, k)
        m, v = (moment[at] for moment in sweep.moments[name])
        adam(parameters[name][at], gradient, m, v, sweep.step, sweep.lr[k] * lr_scale)
        if name == "theta":
            parameters[name][at].clamp_(min=0)
    atoms /= atoms.norm(dim=1, keepdim=True)


def adam(parameter: Tensor, gradient: Tensor, m: Tensor, v: Tensor, t: int, lr: float) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1), in the order of operations of torch.optim.Adam."""
    m.lerp_(gradient, 1 - BETA1)
    v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    denominator = (v.sqrt() / math.sqrt(1 - BETA2**t)).add_(EPS)
    parameter.addcdiv_(m, denominator, value=-lr / (1 - BETA1**t))


def _sum(values: Tensor) -> Tensor:
    # Rows in their own type, five times as fast as all of it in float64; half types would lose too much.
    rows = values.sum(-1, dtype=torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None)
    return (rows.cpu() if rows.device.type == "mps" else rows).double().sum()  # MPS has no float64


def _stack(rows: int, stats: list[tuple[Tensor, Tensor, Tensor]]) -> StepStats:
    sse, l1, l0 = (torch.stack(values) for values in zip(*stats, strict=True))
    return StepStats(rows, sse, l1, l0)
