"""One test for all engines: each must match the reference in float64 and keep every engine's promises.

Without TRITON_INTERPRET the reference itself (in float32) and every path of the CPU engine; with it, in a process of
its own that tests/kernels/test_interpreter.py starts, every way of the GPU engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from engine_cases import (
    COVERING,
    ENGINES,
    INTERPRETED,
    SWITCHES,
    assert_near,
    assert_same_sums,
    batch,
    engine_named,
    in_float64,
    make,
    red_zones,
    same_bits,
    state,
)
from sparsecode.errors import InvalidArgument
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine

pytestmark = pytest.mark.parametrize("engine", ENGINES)
SHAPES = (
    [(1, 32, [1]), (33, 48, [7, 20]), (7, 128, [33])]
    if INTERPRETED
    else [(1, 1, [1]), (70, 48, [7, 65]), (129, 128, [33, 64])]
)


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with red_zones(monkeypatch):
        yield


def compare(engine: str, sweep: Sweep, x: Tensor) -> None:
    """Gradients by name and loss sums of a batch."""
    stats, gradients = engine_named(engine, sweep).gradients(sweep, x)
    expected_stats, expected = ReferenceEngine().gradients(in_float64(sweep), x.double())
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, 1e-5, name)
    assert_same_sums(stats, expected_stats)


@pytest.mark.parametrize("loss", COVERING if INTERPRETED else SWITCHES, ids=str)
def test_gradients_and_steps_are_those_of_the_reference(engine: str, loss: LossSettings) -> None:
    sweep, x = make(loss=loss), batch()
    exact, mine, reference = in_float64(sweep), engine_named(engine, sweep), ReferenceEngine()
    before = state(sweep)
    stats, gradients = mine.gradients(sweep, x)
    expected_stats, expected = reference.gradients(exact, x.double())
    assert same_bits(before, state(sweep))
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert_near(gradients[name], gradient, 1e-5, name)
    assert_same_sums(stats, expected_stats)
    # The last has the whole of L1 again, by default.
    for factors in ((0.5, 0.3), (0.5,)) if INTERPRETED else ((0.5, 0.0), (1.0, 0.7), (0.25,)):
        assert_same_sums(mine.step(sweep, x, *factors), reference.step(exact, x.double(), *factors))
    assert sweep.step == exact.step
    assert torch.equal(sweep.fired, exact.fired)
    for name, value in exact.state_dict().items():
        assert_near(state(sweep)[name].double(), value.double(), 1e-4, name)
    assert torch.allclose(sweep.W_dec.norm(dim=1), torch.ones(sweep.total), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_odd_shapes(engine: str, shape: tuple[int, int, list[int]]) -> None:
    rows, width, sizes = shape
    compare(engine, make(width, sizes, LossSettings(pre_bias=True)), batch(rows, width))


@pytest.mark.parametrize(("bias", "active"), [(-100.0, 0), (100.0, 1)], ids=["none", "all"])
def test_all_codes_zero_and_all_active(engine: str, bias: float, active: int) -> None:
    sweep, x = make(16, (9,), bias=bias), batch(17, 16)
    stats, gradients = engine_named(engine, sweep).gradients(sweep, x)
    _, expected = ReferenceEngine().gradients(in_float64(sweep), x.double())
    assert stats.l0.item() == active * 9 * 17
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, 1e-5, name)


def test_a_pre_activation_of_exactly_zero_is_inactive(engine: str) -> None:
    """Integers, whose products every engine and every sum gets exactly: a third of the pre-activations are 0."""
    generator = torch.Generator().manual_seed(5)
    rows, size = (20, 12) if INTERPRETED else (100, 48)
    sweep = make(16, (size,))
    sweep.W_enc.copy_(torch.randint(-1, 2, (size, 16), generator=generator).float())
    sweep.b_enc.copy_(torch.randint(-1, 2, (size,), generator=generator).float())
    x = torch.randint(-1, 2, (rows, 16), generator=generator).float()
    y = x.double() @ sweep.W_enc.double().T + sweep.b_enc.double()
    assert (y == 0).sum() > rows * size / 16
    stats, gradients = engine_named(engine, sweep).gradients(sweep, x)
    _, expected = ReferenceEngine().gradients(in_float64(sweep), x.double())
    assert stats.l0.item() == (y > 0).sum()
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, 1e-5, name)


@pytest.mark.parametrize("where", ["W_dec"] if INTERPRETED else ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_a_diverging_dictionary_leaves_the_others_bit_identical(engine: str, where: str) -> None:
    def train(poison: bool) -> Sweep:
        sweep = make(loss=LossSettings(pre_bias=True))
        if poison:
            value = sweep.parameters()[where]
            (value[1] if where == "b_dec" else value[sweep.rows(1)]).view(-1)[3:5] = float("nan")
        mine = engine_named(engine, sweep)
        for seed in range(2):
            mine.step(sweep, batch(seed=seed), 1.0)
        return sweep

    clean, poisoned = train(False), train(True)
    assert poisoned.diverged() == {1}
    for k in range(len(clean)):
        for name, value in clean.parameters().items():
            rows = slice(k, k + 1) if name == "b_dec" else clean.rows(k)
            assert k == 1 or torch.equal(value[rows], poisoned.parameters()[name][rows]), name


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_broken_row_is_seen_in_the_loss_and_the_gradients(engine: str, poison: float) -> None:
    sweep, x = make(), batch()
    x[7, 3] = poison
    stats, gradients = engine_named(engine, sweep).gradients(sweep, x)
    assert not torch.isfinite(stats.sse).any()
    assert not torch.isfinite(gradients["W_enc"]).all()


def test_evaluate_changes_only_the_counters(engine: str) -> None:
    sweep, x = make(), batch()
    exact, before = in_float64(sweep), state(sweep)
    stats = engine_named(engine, sweep).evaluate(sweep, x)
    assert_same_sums(stats, ReferenceEngine().evaluate(exact, x.double()))
    after = state(sweep)
    assert torch.equal(after.pop("fired"), exact.fired)
    before.pop("fired")
    assert same_bits(before, after)


def test_the_same_bits_every_run_and_after_a_saved_state(engine: str) -> None:
    """Two steps, and the second again by another engine from the state after the first."""
    runs = [make(), make()]
    first, second = (engine_named(engine, sweep) for sweep in runs)
    first.step(runs[0], batch(seed=0), 1.0)
    runs[1].load_state_dict(state(runs[0]))
    first.step(runs[0], batch(seed=1), 1.0)
    second.step(runs[1], batch(seed=1), 1.0)
    assert same_bits(state(runs[0]), state(runs[1]))


def test_a_strided_batch_is_read_right(engine: str) -> None:
    wide = batch(8, 40)
    found = []
    for x in (wide[:, ::2], wide[:, ::2].contiguous()):
        sweep = make(20)
        engine_named(engine, sweep).step(sweep, x, 1.0)
        found.append(state(sweep))
    assert same_bits(*found)


def test_a_batch_that_does_not_fit_is_named(engine: str) -> None:
    sweep = make()
    for x in (batch(3, 17), batch(3).double(), batch(3)[0], batch(3)[:0]):
        with pytest.raises(InvalidArgument, match="this sweep needs"):
            engine_named(engine, sweep).step(sweep, x, 1.0)
    assert sweep.step == 0


def test_every_switch_is_met(engine: str) -> None:
    """The list of combinations is a covering array for every engine."""
    for left, right in (("tied", "pre_bias"), ("tied", "project_gradient"), ("mse", "l1_scale")):
        seen = {(getattr(loss, left), getattr(loss, right)) for loss in COVERING}
        values = [sorted({getattr(loss, name) for loss in COVERING}) for name in (left, right)]
        assert seen == set(product(*values))
