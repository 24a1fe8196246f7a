"""Kinds of dictionaries: gradients by hand equal autograd of the stated losses in float64, and the edges of selection.

Where a loss has no derivative (steps, thresholds), the straight-through estimator is written a second time, as a
function of autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsecode import dictionary
from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds import AuxK, BatchTopK, JumpRelu, Kind, TopK, Weights, gradients, largest, next_threshold

B, D, F = 19, 6, 23
NAN = float("nan")


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(*, pre_bias: bool = True, theta: bool = False) -> Weights:
    atoms = torch.nn.functional.normalize(values(F, D, seed=1))
    own = values(F, seed=2).abs() / 4 + 0.05 if theta else None
    return Weights(values(F, D, seed=3), values(F, seed=4) / 4, atoms, values(D, seed=5) if pre_bias else None, own)


def by_autograd(
    weights: Weights, x: Tensor, loss: Callable[[Weights, Tensor, Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Value and gradients of `loss(weights, y, x)`, all by autograd."""
    leaves = {name: value.clone().requires_grad_() for name, value in vars(weights).items() if value is not None}
    own = Weights(**leaves)
    centred = x if own.b_dec is None else x - own.b_dec
    found = loss(own, centred @ own.W_enc.T + own.b_enc, centred)
    return found, dict(zip(leaves, torch.autograd.grad(found, list(leaves.values())), strict=True))


def check(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert found[1].keys() == expected[1].keys()
    torch.testing.assert_close(found[0], expected[0].detach(), rtol=1e-12, atol=1e-12)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-12, atol=1e-12, msg=name)
        assert bool(value.any()), name


def selected(y: Tensor, kind: TopK | BatchTopK) -> Tensor:
    """Codes by sorting, without the rule for equal values."""
    ranked = y.relu() if isinstance(kind, TopK) else y.relu().flatten()[None]
    count = kind.k if isinstance(kind, TopK) else round(kind.k * len(y))
    places = ranked.argsort(dim=-1, descending=True)[:, : int(count)]
    return torch.zeros_like(ranked).scatter(-1, places, ranked.gather(-1, places)).view_as(y)


@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("kind", [TopK(1), TopK(4), TopK(F - 1), TopK(F), TopK(F + 9), BatchTopK(1), BatchTopK(3.5),
                                  BatchTopK(F), BatchTopK(F + 9)])  # fmt: skip
def test_selecting_kinds_equal_autograd(kind: TopK | BatchTopK, pre_bias: bool) -> None:
    weights, x = weights_of(pre_bias=pre_bias), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        return (selected(y, kind) @ own.W_dec - centred).square().sum() / (B * D)

    check(gradients(kind, weights, x, B * D), by_autograd(weights, x, loss))


@pytest.mark.parametrize("groups", [(F,), (3, F), (1, 2, 9, F)])
@pytest.mark.parametrize("kind", [TopK(4), BatchTopK(3)])
def test_nested_groups_equal_autograd(kind: TopK | BatchTopK, groups: tuple[int, ...]) -> None:
    weights, x = weights_of(), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        z = selected(y, kind)
        errors = [(z[:, :stop] @ own.W_dec[:stop] - centred).square().sum() for stop in groups]
        return torch.stack(errors).mean() / B

    found = gradients(kind, weights, x, B, groups)
    check(found, by_autograd(weights, x, loss))
    if len(groups) == 1:
        plain = gradients(kind, weights, x, B)
        assert all(torch.equal(found[1][name], value) for name, value in plain[1].items())


@pytest.mark.parametrize("k", [None, 1, 2, F])
@pytest.mark.parametrize("kind", [TopK(3), BatchTopK(2)])
def test_the_loss_of_dead_features_equals_autograd_and_is_theirs(kind: TopK | BatchTopK, k: int | None) -> None:
    weights, x, aux = weights_of(), values(B, D), AuxK(0.3, k)
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[2, 3, 11, 17, 20]] = True

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        r = selected(y, kind) @ own.W_dec - centred
        e = -r.detach()
        e_hat = selected(y[:, dead], TopK(min(k or D // 2, int(dead.sum())))) @ own.W_dec[dead]
        share = (e_hat - e).square().sum() / (e - e.mean(0)).square().sum()
        return r.square().sum() / B + aux.alpha * share

    found = gradients(kind, weights, x, B, aux=aux, dead=dead)
    check(found, by_autograd(weights, x, loss))
    plain = gradients(kind, weights, x, B)[1]
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(found[1][name][~dead], plain[name][~dead])
        assert not torch.equal(found[1][name][dead], plain[name][dead])


def test_the_loss_of_dead_features_is_nothing_without_any_or_where_nothing_varies() -> None:
    weights, kind, x = weights_of(), TopK(3), values(B, D)
    nobody, everybody = torch.zeros(F, dtype=torch.bool), torch.ones(F, dtype=torch.bool)
    for rows, dead in ((x, nobody), (x[:1], everybody)):
        plain, more = gradients(kind, weights, rows, 1), gradients(kind, weights, rows, 1, aux=AuxK(), dead=dead)
        assert all(torch.equal(plain[1][name], more[1][name]) for name in plain[1])
        assert torch.equal(plain[0], more[0])
    assert gradients(kind, weights, x, 1, aux=AuxK(), dead=everybody)[0] > gradients(kind, weights, x, 1)[0]


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


@pytest.mark.parametrize("pre_activation", [0.0, 0.03])
@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("window", [0.05, 2.0])
@pytest.mark.parametrize(("penalty", "target"), [("step", None), ("target", 3.0), ("tanh", None)])
def test_jumprelu_equals_autograd_of_its_estimator(
    penalty: str, target: float | None, window: float, to_input: bool, pre_activation: float
) -> None:
    kind = JumpRelu(0.2, window, penalty, target, to_input=to_input, pre_activation=pre_activation)
    weights, x = weights_of(theta=True), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        z, step = Jump.apply(y, own.theta, window, to_input), Step.apply(y, own.theta, window, to_input)
        assert own.theta is not None
        more = {
            "step": 0.2 * step.sum(1).mean(),
            "target": 0.2 * (step.sum(1).mean() / 3 - 1) ** 2,
            "tanh": 0.2 * (4 * z).tanh().sum(1).mean(),
        }[penalty]
        silent = pre_activation * (own.theta - y).relu().sum(1).mean()
        total: Tensor = (z @ own.W_dec - centred).square().sum() / (B * D) + more + silent
        return total

    check(gradients(kind, weights, x, B * D), by_autograd(weights, x, loss))


def test_the_pre_activation_loss_has_a_sparse_form() -> None:
    """All rows less those on which a feature fires: what an engine that walks through codes alone can compute."""
    weights, x = weights_of(pre_bias=False, theta=True), values(B, D)
    assert weights.theta is not None
    plain, more = (gradients(JumpRelu(0.2, 0.1, pre_activation=p), weights, x, B)[1] for p in (0.0, 0.7))
    fires = (x @ weights.W_enc.T + weights.b_enc > weights.theta).double()
    torch.testing.assert_close(more["W_enc"], plain["W_enc"] - 0.7 / B * (x.sum(0) - fires.T @ x), rtol=0, atol=1e-12)
    silent = 0.7 / B * (B - fires.sum(0))
    torch.testing.assert_close(more["b_enc"], plain["b_enc"] - silent, rtol=0, atol=1e-12)
    torch.testing.assert_close(more["theta"], plain["theta"] + silent, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "row", "kept"),
    [
        (2, [3.0, -4, 1, 2], [3.0, 0, 0, 2]),
        (2, [3.0, 1, 1, 1], [3.0, 1, 1, 1]),  # all that equal the second
        (2, [1.0, 1, 1, 1], [1.0, 1, 1, 1]),
        (3, [3.0, -4, -1, 0], [3.0, 0, 0, 0]),  # fewer than k are positive
        (2, [-3.0, -4, -1, 0], [0.0, 0, 0, 0]),
        (4, [3.0, -4, 1, 2], [3.0, 0, 1, 2]),
        (9, [3.0, -4, 1, 2], [3.0, 0, 1, 2]),
        (1, [3.0, NAN, 1, 2], [0.0, NAN, 0, 0]),
        (2, [3.0, NAN, 1, 2], [3.0, NAN, 0, 0]),
        (9, [3.0, NAN, 1, 2], [3.0, NAN, 1, 2]),
    ],
)
def test_which_codes_are_kept(k: int, row: list[float], kept: list[float]) -> None:
    y, expected = torch.tensor([row]), torch.tensor([kept])
    for found in (largest(y, k), TopK(k).codes(y), BatchTopK(k).codes(y)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_batch_shares_its_codes_among_its_rows() -> None:
    y = torch.tensor([[5.0, 4, 3], [2, 1, -1], [-1, -1, -1]])
    assert BatchTopK(1).codes(y).tolist() == [[5, 4, 3], [0, 0, 0], [0, 0, 0]]
    assert BatchTopK(1.4).codes(y).tolist() == [[5, 4, 3], [2, 0, 0], [0, 0, 0]]
    assert BatchTopK(0.1).codes(y).tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", [TopK(3), BatchTopK(3), JumpRelu(0.1, 0.5)])
def test_a_nan_shows_in_all_gradients_and_silence_in_none(kind: Kind) -> None:
    weights, x = weights_of(theta=isinstance(kind, JumpRelu)), values(B, D)
    x[2, 1] = NAN
    loss, found = gradients(kind, weights, x, B)
    assert bool(loss.isnan())
    assert all(bool(found[name].isnan().any()) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    silent = Weights(weights.W_enc, torch.full((F,), -99.0).double(), weights.W_dec, weights.b_dec, weights.theta)
    found = gradients(kind, silent, values(B, D), B)[1]
    assert not any(bool(found[name].any()) for name in ("W_enc", "b_enc", "W_dec"))
    assert bool(found["b_dec"].any())


def test_what_is_trained_is_what_a_dictionary_of_the_kind_encodes() -> None:
    y, none = values(B, F), torch.zeros(F).double()
    theta = values(F).abs()
    assert torch.equal(TopK(4).codes(y), dictionary.TopK(4).encode(y, none))
    assert torch.equal(JumpRelu(0.1, 0.1).codes(y, theta), dictionary.JumpRelu(theta).encode(y, none))
    z = BatchTopK(4).codes(y)
    threshold = next_threshold(None, z)
    assert threshold is not None
    after = dictionary.BatchTopK(torch.full((F,), threshold, dtype=torch.float64) * (1 - 1e-12), 4).encode(y, none)
    assert torch.equal(after, z)


def test_the_running_threshold() -> None:
    silent = torch.zeros(2, 3)
    assert next_threshold(None, silent) is None
    first = next_threshold(None, torch.tensor([[0.0, 3, 5]]))
    assert first == 3
    assert next_threshold(first, silent) == 3
    assert next_threshold(first, torch.tensor([[0.0, 4, 5]])) == pytest.approx(3.01)


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(InvalidSetting, match="penalty must be one of step, target, tanh, not 'l1'"):
        JumpRelu(0.1, 0.1, "l1")
    for penalty, target in (("target", None), ("step", 3.0)):
        with pytest.raises(InvalidSetting, match="belongs to the penalty 'target'"):
            JumpRelu(0.1, 0.1, penalty, target)
