"""Dictionaries of every kind, small and in float64, and the derivatives of their losses by autograd.

Where a loss has no derivative (steps, thresholds), the straight-through estimator is written a second time, as a
function of autograd. Shape letters: B rows of a batch, D activation dimension, F features of one dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsecode.sweep.kinds import BatchTopK, Gated, JumpRelu, Kind, PAnneal, Relu, TopK, Weights

B, D, F = 19, 6, 23
NAN = float("nan")
KINDS: list[Kind] = [Relu(0.2), PAnneal(0.2, 0.5), TopK(3), BatchTopK(3), JumpRelu(0.1, 0.5), Gated(0.2)]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(kind: Kind, *, pre_bias: bool = True, b_enc: Tensor | None = None) -> Weights:
    """What a kind needs, with features that fire now and then."""
    return Weights(
        W_enc=values(F, D, seed=3),
        b_enc=values(F, seed=4) / 4 if b_enc is None else b_enc,
        W_dec=torch.nn.functional.normalize(values(F, D, seed=1)),
        b_dec=values(D, seed=5) if pre_bias else None,
        theta=values(F, seed=2).abs() / 4 + 0.05 if isinstance(kind, JumpRelu) else None,
        b_mag=values(F, seed=6) / 4 if isinstance(kind, Gated) else None,
        rho=values(F, seed=7) / 4 if isinstance(kind, Gated) else None,
    )


def pre_activations(weights: Weights, x: Tensor) -> Tensor:
    centred = x if weights.b_dec is None else x - weights.b_dec
    return centred @ weights.W_enc.T + weights.b_enc


def by_autograd(
    weights: Weights, x: Tensor, loss: Callable[[Weights, Tensor, Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Value and gradients of `loss(weights, y, x)`, all by autograd."""
    leaves = {name: value.clone().requires_grad_() for name, value in vars(weights).items() if value is not None}
    own = Weights(**leaves)
    centred = x if own.b_dec is None else x - own.b_dec
    found = loss(own, pre_activations(own, x), centred)
    return found, dict(zip(leaves, torch.autograd.grad(found, list(leaves.values())), strict=True))


def check(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    """To 1e-12, and that no gradient is zero throughout."""
    assert found[1].keys() == expected[1].keys()
    torch.testing.assert_close(found[0], expected[0].detach(), rtol=1e-12, atol=1e-12)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-12, atol=1e-12, msg=name)
        assert bool(value.any()), name


def errors(own: Weights, z: Tensor, x: Tensor, ends: tuple[int, ...] = (F,), *, frozen: bool = False) -> Tensor:
    """The mean over groups of the summed squared error; `frozen`: W_dec and b_dec are constants.

    A centred x is the raw one less b_dec, so it holds a b_dec that must be constant as well.
    """
    W_dec = own.W_dec.detach() if frozen else own.W_dec
    target = x.detach() if frozen else x
    return torch.stack([(z[:, :end] @ W_dec[:end] - target).square().sum() for end in ends]).mean()


def selected(y: Tensor, kind: TopK | BatchTopK) -> Tensor:
    """Codes by sorting, without the rule for equal values."""
    ranked = y.relu() if isinstance(kind, TopK) else y.relu().flatten()[None]
    count = kind.k if isinstance(kind, TopK) else round(kind.k * len(y))
    places = ranked.argsort(dim=-1, descending=True)[:, : int(count)]
    return torch.zeros_like(ranked).scatter(-1, places, ranked.gather(-1, places)).view_as(y)


class Step(torch.autograd.Function):
    """1 where y > theta; backwards a rectangle of that width and area 1."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, theta: Tensor, window: float, to_input: bool) -> Tensor:
        ctx.save_for_backward(y, theta)
        ctx.window, ctx.to_input = window, to_input
        return (y > theta).to(y)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        y, theta = ctx.saved_tensors
        inside = above * ((y - theta).abs() < ctx.window / 2) / ctx.window
        return inside if ctx.to_input else None, -inside.sum(0), None, None


class Jump(torch.autograd.Function):
    """y where y > theta; backwards as if its step at theta, of height theta, were the same rectangle."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, theta: Tensor, window: float, to_input: bool) -> Tensor:
        ctx.save_for_backward(y, theta)
        ctx.window, ctx.to_input = window, to_input
        return y * (y > theta)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        y, theta = ctx.saved_tensors
        inside = above * theta * ((y - theta).abs() < ctx.window / 2) / ctx.window
        return above * (y > theta) + (inside if ctx.to_input else 0), -inside.sum(0), None, None
