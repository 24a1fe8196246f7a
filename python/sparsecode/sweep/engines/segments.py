"""Codes and gradients of a ReLU dictionary segment by segment: the formulas of `reference`, with exact sums.

Shape letters: B rows of a batch, D activation dimension, F features that this process holds, S those of a segment.

Every product is of one segment, so its bits do not depend on how many of them a process has. What goes between
processes is the reconstruction [B, D], with the sum and the number of active codes of each row beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.sweep.sweep import Sweep


@dataclass
class Segment:
    """One segment on one batch."""

    W_enc: Tensor  # [S, D]
    W_dec: Tensor  # [S, D]
    y: Tensor  # [B, S], before the ReLU
    z: Tensor  # [B, S]


@dataclass
class Forward:
    """A dictionary on one batch."""

    x: Tensor  # [B, D], the pre-bias subtracted
    held: list[Segment]
    r: Tensor  # [B, D], reconstruction minus data
    l1: Tensor  # [B, 1], sum of the codes of a row, of all processes
    l0: Tensor  # [B, 1], how many of them are active

    @property
    def fired(self) -> Tensor:
        """[F] on how many rows each feature that is held is active."""
        return torch.cat([(one.y > 0).sum(0) for one in self.held])


def forward(sweep: Sweep, k: int, x: Tensor) -> Forward:
    """Codes of dictionary k, and what all processes make of them together."""
    split, own = sweep.split, sweep.rows(k)
    assert split is not None
    x = x - sweep.b_dec[k] if sweep.b_dec is not None else x
    held, parts = [], []
    for _, at in split.pieces(sweep.sizes[k]):
        # Copies: BLAS may round differently with the alignment of its operands.
        W_enc, W_dec = sweep.W_enc[own][at].clone(), sweep.W_dec[own][at].clone()
        y = torch.nn.functional.linear(x, W_enc, sweep.b_enc[own][at])
        z = y.relu()
        held.append(Segment(W_enc, W_dec, y, z))
        parts.append(torch.cat([z @ W_dec, z.sum(1, keepdim=True), (y > 0).sum(1, keepdim=True).to(z)], dim=1))
    added = split.total(parts)
    return Forward(x, held, added[:, :-2] - x, added[:, -2:-1], added[:, -1:])


def backward(sweep: Sweep, k: int, found: Forward, l1_factor: float = 1.0) -> dict[str, Tensor]:
    """Gradients of what is held of dictionary k, and of its pre-bias."""
    assert sweep.split is not None
    B = found.x.shape[0]
    dr = found.r * (2 / sweep.error_divisor(B))
    each: list[tuple[Tensor, Tensor, Tensor]] = []
    for one in found.held:
        dz = (dr @ one.W_dec.T).add_(sweep.penalty(k) * l1_factor / B)
        dz = torch.ops.aten.threshold_backward(dz, one.y, 0)
        each.append((dz.T @ found.x, dz.sum(0), one.z.T @ dr))
    dW_enc, db_enc, dW_dec = (torch.cat(parts) for parts in zip(*each, strict=True))
    gradients = {"b_enc": db_enc, "W_dec": dW_dec}
    if sweep.loss.tied:
        gradients["W_dec"] = dW_dec + dW_enc
    else:
        gradients["W_enc"] = dW_enc
    if sweep.b_dec is not None:
        through = [(db @ one.W_enc)[:, None] for one, (_, db, _) in zip(found.held, each, strict=True)]
        gradients["b_dec"] = dr.sum(0) - sweep.split.total(through)[:, 0]
    return gradients
