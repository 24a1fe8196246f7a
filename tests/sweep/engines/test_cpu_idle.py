"""Features that have stopped firing are left out of steps: the bits are always those of plain steps.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine_cases import SWITCHES, in_float64, make, same_bits, state
from sparsecode import _core
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

PATHS = _core.CpuEngine.paths()
WIDTH, SIZES = 20, (7, 65, 40)
STEPS = 420  # a feature that dies in the first steps rests after about 200
GONE = (100, 380)  # steps in which the rows along one direction do not come


def rows(step: int, count: int = 24) -> Tensor:
    """A batch that lacks one direction for a while: its features die, rest, and fire again."""
    x = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(step)).abs()
    x[:, :6] *= 0.0 if GONE[0] <= step < GONE[1] else 3.0
    return x


def sweep_of(loss: LossSettings | None = None) -> Sweep:
    """Most features look along the missing direction or fire never; biases keep them quiet elsewhere."""
    sweep = make(WIDTH, SIZES, loss, bias=-1.0)
    quiet = torch.arange(sweep.total) % 3
    sweep.W_enc[quiet == 0, :6] += 0.3
    sweep.W_enc[quiet == 0, 6:] -= 1.0
    sweep.b_enc[quiet == 1] -= 1000.0
    sweep.lr = [1e-3] * len(SIZES)
    return sweep


def lag_of(sweep: Sweep) -> Tensor:
    """[N] by how many steps the moments of each feature are behind, and one more."""
    return torch.zeros(sweep.total, dtype=torch.int32) if sweep.resting is None else sweep.resting.lag.clone()


def train(
    engine: CpuEngine, sweep: Sweep, steps: int = STEPS, at: Callable[[int], None] = lambda step: None
) -> tuple[int, int]:
    """Steps on `rows`; most features that rested at once, and how many that had rested for a while fired again."""
    most, woken = 0, 0
    for _ in range(steps):
        at(sweep.step)
        before = lag_of(sweep)
        engine.step(sweep, rows(sweep.step), min(1.0, (sweep.step + 1) / 20) * (0.5 if sweep.step > 300 else 1.0))
        lag = lag_of(sweep)
        most = max(most, int((lag > 0).sum()))
        woken += int(((before > 20) & (lag == 0)).sum())
    return most, woken


@pytest.mark.parametrize("loss", [loss for loss in SWITCHES if loss.mse == "mean"], ids=str)
def test_the_bits_are_those_of_plain_steps(loss: LossSettings) -> None:
    plain, resting = sweep_of(loss), sweep_of(loss)
    assert train(CpuEngine(threads=1, rest=False), plain) == (0, 0)
    most, woken = train(CpuEngine(threads=2), resting)
    assert most > 30 and woken > 5
    assert int((lag_of(resting) > 1).sum()) > 20
    assert same_bits(state(plain), state(resting))
    assert not lag_of(resting).any()  # whoever looks at the moments wakes all
    train(CpuEngine(threads=1, rest=False), plain, 30)
    train(CpuEngine(threads=2), resting, 30)
    assert same_bits(state(plain), state(resting))


@pytest.mark.parametrize("codes", ["lists", "dense", "measured"])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_rests_alike(path: str, codes: str) -> None:
    plain, resting = sweep_of(), sweep_of()
    train(CpuEngine(threads=2, rest=False), plain)
    most, woken = train(CpuEngine(threads=2, path=path, codes=codes), resting)
    assert most > 30 and woken > 5
    assert same_bits(state(plain), state(resting))


def test_a_saved_state_is_that_of_plain_steps_and_goes_on_as_such() -> None:
    plain, resting = sweep_of(), sweep_of()
    train(CpuEngine(threads=1, rest=False), plain)
    train(CpuEngine(threads=1), resting, 350)
    saved = state(resting)
    resumed = sweep_of()
    resumed.load_state_dict(saved)
    train(CpuEngine(threads=1), resumed, STEPS - 350)
    assert same_bits(state(plain), state(resumed))
    train(CpuEngine(threads=1), resting, STEPS - 350)
    assert same_bits(state(plain), state(resting))


def test_what_changes_between_steps_wakes_what_rests() -> None:
    """A higher rate, by the schedule or the sweep's own, a parameter written to, and another engine."""

    def change(sweep: Sweep) -> Callable[[int], None]:
        def at(step: int) -> None:
            if step == 330:
                sweep.lr = [1.0] * len(SIZES)
            if step == 335:
                sweep.lr = [1e-3] * len(SIZES)
            if step == 360:
                sweep.W_dec[3] *= 2.0**-20
                sweep.b_enc[3:9] *= 2.0**-30

        return at

    plain, resting = sweep_of(), sweep_of()
    other = CpuEngine(threads=1, rest=False)
    train(other, plain, at=change(plain))
    engine = CpuEngine(threads=1)
    most, _ = train(engine, resting, 400, at=change(resting))
    assert most > 30
    train(other, resting, 5)
    train(engine, resting, STEPS - 405)
    assert same_bits(state(plain), state(resting))


def test_a_faster_step_wakes_what_rests() -> None:
    plain, resting = sweep_of(), sweep_of()
    for engine, sweep in ((CpuEngine(threads=1, rest=False), plain), (CpuEngine(threads=1), resting)):
        train(engine, sweep, 330)
        for scale in (1.0, 1e4, 1.0):
            engine.step(sweep, rows(200), scale)
    assert same_bits(state(plain), state(resting))


def test_moments_end_at_zero_instead_of_subnormal_numbers() -> None:
    sweep = sweep_of()
    engine = CpuEngine(threads=1)
    train(engine, sweep, 90)
    for _ in range(900):
        engine.step(sweep, rows(GONE[0]), 1.0)
    for name, (m, v) in sweep.moments.items():
        for moment in (m, v):
            smallest = moment[moment != 0].abs().min()
            assert smallest > 1e-34, name
    assert (sweep.moments["W_dec"][0] == 0).float().mean() > 0.4


def test_resting_features_are_those_of_the_reference() -> None:
    sweep = sweep_of()
    exact, reference = in_float64(sweep), ReferenceEngine()
    engine = CpuEngine(threads=2)
    for _ in range(350):
        x = rows(sweep.step)
        engine.step(sweep, x, 0.1)
        reference.step(exact, x.double(), 0.1)
    assert int((lag_of(sweep) > 0).sum()) > 30
    for name, value in exact.parameters().items():
        torch.testing.assert_close(sweep.parameters()[name].double(), value, rtol=1e-3, atol=1e-4)
