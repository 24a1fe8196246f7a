"""The reference engine against autograd and torch.optim.Adam in float64: it is the truth for every other engine.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.errors import InvalidArgument
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine

SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias)
    for mse, l1_scale, tied, pre_bias in product(("mean", "sum"), ("plain", "per-size"), (False, True), (False, True))
]
SIZES, L1, SEEDS = [1, 7, 16], [0.3, 0.02, 0.5], [0, 0, 3]
D = 10


def make(loss: LossSettings, dtype: torch.dtype = torch.float64, lr: float = 1e-2) -> Sweep:
    """A small sweep with nothing at zero: biases, and an encoder unlike the decoder."""
    sweep = Sweep(D, SIZES, L1, SEEDS, lr=[lr, 2 * lr, 3 * lr], loss=loss, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    sweep.b_enc += 0.1 * torch.randn(sweep.total, generator=generator)
    if not loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.total, D, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


def batch(rows: int = 33, seed: int = 0, dtype: torch.dtype = torch.float64, width: int = D) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def losses(sweep: Sweep, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """The loss of every dictionary [K], written from its definition."""
    found = []
    for k, size in enumerate(sweep.sizes):
        own = sweep.rows(k)
        W_dec = parameters["W_dec"][own]
        W_enc = parameters.get("W_enc", parameters["W_dec"])[own]
        b_dec = parameters["b_dec"][k] if "b_dec" in parameters else torch.zeros_like(x[0])
        z = torch.relu(torch.nn.functional.linear(x - b_dec, W_enc, parameters["b_enc"][own]))
        errors = (z @ W_dec + b_dec - x) ** 2
        error = errors.mean() if sweep.loss.mse == "mean" else errors.sum(1).mean()
        l1 = sweep.l1[k] / size if sweep.loss.l1_scale == "per-size" else sweep.l1[k]
        found.append(error + l1 * z.abs().sum(1).mean())
    return torch.stack(found)


def autograd(sweep: Sweep, x: Tensor) -> dict[str, Tensor]:
    leaves = {name: value.clone().requires_grad_() for name, value in sweep.parameters().items()}
    found = torch.autograd.grad(losses(sweep, leaves, x).sum(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_gradients_are_those_of_autograd(loss: LossSettings) -> None:
    sweep, x = make(loss), batch()
    expected = autograd(sweep, x)
    stats, found = ReferenceEngine().gradients(sweep, x)
    assert found.keys() == expected.keys() == sweep.parameters().keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-14)
    whole = stats.sse / sweep.error_divisor(33) + torch.tensor(
        [sweep.penalty(k) for k in range(3)], dtype=torch.float64
    ) * (stats.l1 / 33)
    torch.testing.assert_close(whole, losses(sweep, sweep.parameters(), x))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    width=st.integers(1, 9),
    rows=st.integers(1, 9),
    loss=st.sampled_from(SWITCHES),
    seed=st.integers(0, 1000),
)
def test_gradients_at_any_shape(sizes: list[int], width: int, rows: int, loss: LossSettings, seed: int) -> None:
    sweep = Sweep(width, sizes, [0.1] * len(sizes), range(len(sizes)), loss=loss, dtype=torch.float64)
    x = batch(rows, seed, width=width)
    expected = autograd(sweep, x)
    for name, gradient in ReferenceEngine().gradients(sweep, x)[1].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True, pre_bias=True)], ids=str)
def test_gradient_is_zero_at_a_pre_activation_of_exactly_zero(loss: LossSettings) -> None:
    sweep = make(loss)
    sweep.b_enc.zero_()
    x = torch.zeros(5, D, dtype=torch.float64)
    if sweep.b_dec is not None:
        sweep.b_dec.zero_()
    stats, found = ReferenceEngine().gradients(sweep, x)
    assert all(not gradient.any() for gradient in found.values())
    assert stats.l0.sum() == 0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("project", [False, True])
def test_steps_are_those_of_torch_adam(tied: bool, pre_bias: bool, project: bool) -> None:
    sweep = make(LossSettings(tied=tied, pre_bias=pre_bias, project_gradient=project))
    ours, engine = [], ReferenceEngine()
    leaves = {
        (name, k): values[k].clone() if name == "b_dec" else values[sweep.rows(k)].clone()
        for name, values in sweep.parameters().items()
        for k in range(3)
    }
    optimizers = [
        torch.optim.Adam([leaf for (_, k), leaf in leaves.items() if k == at], lr=sweep.lr[at]) for at in range(3)
    ]
    for number in range(8):
        x, lr_scale = batch(seed=number), 1 / (1 + number)
        packed = {name: torch.cat([leaves[name, k] for k in range(3)]) for name in sweep.parameters()}
        if pre_bias:
            packed["b_dec"] = packed["b_dec"].reshape(3, D)
        shadow = replace_parameters(sweep, packed)
        gradients = autograd(shadow, x)
        for (name, k), leaf in leaves.items():
            gradient = gradients[name][k] if name == "b_dec" else gradients[name][sweep.rows(k)]
            if name == "W_dec" and project:
                gradient = gradient - torch.einsum("fd,fd,fe->fe", gradient, leaf, leaf)
            leaf.grad = gradient
        for k, optimizer in enumerate(optimizers):
            optimizer.param_groups[0]["lr"] = sweep.lr[k] * lr_scale
            optimizer.step()
            leaves["W_dec", k] /= leaves["W_dec", k].norm(dim=1, keepdim=True)
        ours.append(engine.step(sweep, x, lr_scale))
    for (name, k), leaf in leaves.items():
        mine = sweep.parameters()[name]
        torch.testing.assert_close(mine[k] if name == "b_dec" else mine[sweep.rows(k)], leaf, rtol=1e-9, atol=1e-11)
    assert sweep.step == 8


def replace_parameters(sweep: Sweep, packed: dict[str, Tensor]) -> Sweep:
    other = Sweep(D, sweep.sizes, sweep.l1, sweep.seeds, loss=sweep.loss, dtype=torch.float64)
    for name, values in other.parameters().items():
        values.copy_(packed[name])
    return other


@pytest.mark.parametrize("project", [False, True])
def test_atoms_keep_norm_one_and_projection_removes_the_gradient_along_them(project: bool) -> None:
    loss = LossSettings(project_gradient=project)
    sweep, engine = make(loss), ReferenceEngine()
    before = sweep.W_dec.clone()
    engine.step(sweep, batch(), 1.0)
    torch.testing.assert_close(sweep.W_dec.norm(dim=1), torch.ones(sweep.total, dtype=torch.float64))
    along = (sweep.moments["W_dec"][0] * before).sum(1).abs().max()
    assert (along < 1e-7) == project


def test_tied_is_one_matrix_with_one_pair_of_moments() -> None:
    sweep = make(LossSettings(tied=True))
    ReferenceEngine().step(sweep, batch(), 1.0)
    assert sweep.W_enc is sweep.W_dec
    assert sweep.moments.keys() == {"b_enc", "W_dec"}
    assert not {"W_enc", "m.W_enc"} & sweep.state_dict().keys()


def test_pre_bias_moves_and_starts_at_zero() -> None:
    sweep = Sweep(D, [8], [0.01], [0], loss=LossSettings(pre_bias=True))
    assert sweep.b_dec is not None
    assert not sweep.b_dec.any()
    ReferenceEngine().step(sweep, batch(dtype=torch.float32) + 1, 1.0)
    assert sweep.b_dec.abs().min() > 0
    assert Sweep(D, [8], [0.01], [0]).b_dec is None


def test_stats_are_sums_and_evaluate_changes_only_the_counters() -> None:
    sweep, engine, x = make(LossSettings(pre_bias=True)), ReferenceEngine(), batch()
    before = {name: value.clone() for name, value in sweep.state_dict().items()}
    whole = engine.evaluate(sweep, x)
    fired = sweep.fired.clone()
    parts = engine.evaluate(sweep, x[:10]) + engine.evaluate(sweep, x[10:])
    for name in ("rows", "sse", "l1", "l0"):
        torch.testing.assert_close(torch.as_tensor(getattr(whole, name)), torch.as_tensor(getattr(parts, name)))
    assert torch.equal(sweep.fired, 2 * fired)
    assert [int(own.sum()) for own in sweep.per_dictionary(fired)] == whole.l0.tolist()
    assert all(torch.equal(value, before[name]) for name, value in sweep.state_dict().items() if name != "fired")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True, pre_bias=True)], ids=str)
def test_a_diverging_dictionary_leaves_the_others_bit_identical(value: float, loss: LossSettings) -> None:
    healthy, broken = make(loss, torch.float32), make(loss, torch.float32)
    broken.W_dec[broken.offsets[1]] = value
    engine = ReferenceEngine()
    for number in range(4):
        x = batch(seed=number, dtype=torch.float32)
        expected, found = engine.step(healthy, x, 1.0), engine.step(broken, x, 1.0)
        assert found.sse[[0, 2]].tolist() == expected.sse[[0, 2]].tolist()
        assert not torch.isfinite(found.sse[1])
    for k in (0, 2):
        for name, mine in broken.parameters().items():
            rows = slice(k, k + 1) if name == "b_dec" else broken.rows(k)
            assert torch.equal(mine[rows], healthy.parameters()[name][rows])
    assert broken.diverged() == {1}
    assert healthy.diverged() == set()


def test_a_dictionary_alone_or_in_a_sweep_has_the_same_bits() -> None:
    sizes, l1, seeds = [3, 50, 7, 129], [0.01, 0.02, 0.03, 0.04], [0, 1, 0, 0]
    width = 13  # rows that are no multiple of a cache line: dictionaries lie at odd addresses
    together, engine = Sweep(width, sizes, l1, seeds, loss=LossSettings(pre_bias=True)), ReferenceEngine()
    alone = [Sweep(width, [sizes[k]], [l1[k]], [seeds[k]], loss=LossSettings(pre_bias=True)) for k in range(len(sizes))]
    for k, own in enumerate(alone):
        assert torch.equal(own.W_dec, together.W_dec[together.rows(k)])
    for number in range(5):
        x = batch(65, number, torch.float32, width)
        for sweep in [together, *alone]:
            engine.step(sweep, x, 1.0)
    for k, own in enumerate(alone):
        for name, value in own.parameters().items():
            packed = together.parameters()[name]
            assert torch.equal(value, packed[k : k + 1] if name == "b_dec" else packed[together.rows(k)])


@pytest.mark.parametrize(
    "x", [torch.zeros(4, D + 1), torch.zeros(D), torch.zeros(0, D), torch.zeros(4, D, dtype=torch.float64)]
)
def test_a_batch_that_does_not_fit_is_named(x: Tensor) -> None:
    with pytest.raises(InvalidArgument, match="this sweep needs"):
        ReferenceEngine().step(make(LossSettings(), torch.float32), x, 1.0)


def test_lower_precision_and_other_dtypes_train() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        sweep = make(replace(LossSettings(), pre_bias=True), dtype)
        ReferenceEngine().step(sweep, batch(dtype=dtype), 1.0)
        assert sweep.W_dec.dtype == dtype
        assert not sweep.diverged()
