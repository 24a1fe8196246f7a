"""Metrics against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecode.sweep import LossSettings, Sweep, metrics
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.schedule import Budget, Schedule


def test_perfect_reconstruction_explains_all_and_the_mean_explains_nothing() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) + 3
    total = metrics.Deviations.of(x).total
    assert metrics.explained_variance(0.0, total) == 1
    mean = float((x.double() - x.double().mean(0)).square().sum())
    assert metrics.explained_variance(mean, total) == pytest.approx(0, abs=1e-12)
    zero = float(x.double().square().sum())
    assert metrics.fvu(zero, total) > 5
    assert math.isnan(metrics.fvu(1.0, 0.0))


def test_fvu_is_a_ratio_of_sums() -> None:
    # Two rows of very different spread: the mean of their own ratios would be (1 + 0) / 2.
    assert metrics.fvu(1 * 1.0 + 0 * 99.0, 1.0 + 99.0) == pytest.approx(0.01)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=5), seed=st.integers(0, 99), shift=st.floats(-1e3, 1e3))
def test_deviations_do_not_depend_on_how_rows_are_cut(cuts: list[int], seed: int, shift: float) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    edges = sorted({0, 40, *cuts})
    parts = [metrics.Deviations.of(x[a:b]) for a, b in pairwise(edges)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    assert whole.rows == 40
    assert whole.total == pytest.approx(float((x - x.mean(0)).square().sum()), rel=1e-9)


def test_counts_of_codes() -> None:
    codes = torch.tensor([[0.0, 1.0, 0.5, 0.0], [0.0, 2.0, 0.0, 0.0]])
    fired = metrics.fired(codes)
    assert fired.tolist() == [0, 2, 1, 0]
    assert metrics.dead(fired) == 2
    assert metrics.density(fired, 2).tolist() == [0, 1, 0.5, 0]


def test_summaries_of_a_dictionary_that_copies_its_input() -> None:
    # Atoms e_i and -e_i reconstruct anything exactly: FVU 0, L0 = D, l1 = mean L1 norm of the rows.
    D = 3
    sweep = Sweep(D, [2 * D + 1, 4], [0.0, 0.0], [0, 1], loss=LossSettings())
    weights = torch.cat([torch.eye(D), -torch.eye(D), torch.ones(1, D)])
    sweep.W_enc[: 2 * D + 1] = weights
    sweep.W_dec[: 2 * D + 1] = weights
    sweep.b_enc[2 * D] = -1e6
    x = torch.randn(50, D, generator=torch.Generator().manual_seed(1))
    stats = ReferenceEngine().evaluate(sweep, x)
    found = metrics.summaries(sweep, stats, metrics.Deviations.of(x).total)[sweep.names[0]]
    assert found["mse"] == found["fvu"] == 0
    assert (found["l0"], found["dead"], found["rows"]) == (D, 1, 50)
    assert found["l1"] == pytest.approx(float(x.abs().sum(1).mean()), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 60, 240])
def test_metrics_do_not_depend_on_batch_size_or_order(batch: int) -> None:
    x = torch.randn(240, 5, generator=torch.Generator().manual_seed(2))
    shuffled = x[torch.randperm(240, generator=torch.Generator().manual_seed(3))]

    def measured(rows: torch.Tensor, size: int) -> dict[str, dict[str, object]]:
        sweep = Sweep(5, [8, 3], [0.0, 0.1], [0, 1])
        sums = StepStats.zeros(2, torch.device("cpu"))
        for part in torch.split(rows, size):
            sums += ReferenceEngine().evaluate(sweep, part)
        return metrics.summaries(sweep, sums, metrics.Deviations.of(rows).total)

    whole = measured(x, 240)
    for name, values in measured(shuffled, batch).items():
        assert values == pytest.approx(whole[name], rel=1e-5), name
        assert values["dead"] == whole[name]["dead"] and values["rows"] == 240


def test_dead_is_said_of_a_window_of_rows() -> None:
    # A feature that fires on the last row only is dead in the window before it, and alive in a window that holds it.
    codes = torch.zeros(10, 2)
    codes[9, 1] = 1.0
    assert [metrics.dead(metrics.fired(codes[:stop])) for stop in (9, 10)] == [2, 1]


def test_values_that_json_cannot_name_are_none() -> None:
    sweep = Sweep(2, [1], [0.0], [0])
    sums = StepStats(4, *(torch.tensor([math.nan], dtype=torch.float64) for _ in range(3)))
    values = metrics.summaries(sweep, sums, 1.0)[sweep.names[0]]
    assert [values[name] for name in ("mse", "l1", "l0", "fvu")] == [None] * 4


def test_schedule_warms_up_stays_and_falls_to_zero() -> None:
    schedule = Schedule(warmup=4, decay_fraction=0.25, total=16)
    scales = [schedule.lr_scale(step) for step in range(17)]
    assert scales[:4] == [0.25, 0.5, 0.75, 1.0]
    assert scales[4:13] == [1.0] * 9
    assert scales[13:] == [0.75, 0.5, 0.25, 0.0]
    assert [Schedule(0, 0.0, total=5).lr_scale(step) for step in range(5)] == [1.0] * 5


def test_l1_rises_over_its_share_and_stays() -> None:
    schedule = Schedule(0, 0.0, l1_warmup=0.25, total=16)
    assert [schedule.l1_factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert schedule.factors(1) == (1.0, 0.5)
    assert [Schedule(0, 0.0, total=5).l1_factor(step) for step in range(5)] == [1.0] * 5
    unknown = Schedule(0, 0.0, l1_warmup=0.25)
    assert ([unknown.l1_factor(step) for step in range(99)], unknown.l1_steps) == ([0.0] * 99, 0)


def test_l1_rises_by_a_guess_and_is_full_when_the_plan_says_so() -> None:
    guessed = Schedule(0, 0.0, l1_warmup=0.5, l1_from=10, l1_until=30)
    assert [guessed.l1_factor(step) for step in (9, 10, 19, 29, 99)] == [0.0, 0.05, 0.5, 1.0, 1.0]
    # Steps became ten times as slow: half of the steps that there will be is at 20.
    slow = replace(guessed, total=40, planned_at=15)
    assert [slow.l1_factor(step) for step in (14, 15, 19)] == [0.25, 0.6, 1.0]
    assert (slow.l1_steps, replace(guessed, total=20, planned_at=18).l1_factor(18)) == (20, 1.0)
    # Steps became faster: L1 is full where it was guessed.
    assert replace(guessed, total=400, planned_at=15).l1_factor(29) == 1.0


@given(
    warmup=st.integers(0, 50),
    decay=st.floats(0, 1),
    l1_warmup=st.floats(0, 1),
    more=st.integers(1, 200),
    planned=st.integers(0, 200),
    guess=st.integers(1, 400),
)
def test_steps_before_the_plan_do_not_depend_on_the_total(
    warmup: int, decay: float, l1_warmup: float, more: int, planned: int, guess: int
) -> None:
    start = planned // 3
    before = Schedule(warmup, decay, l1_warmup, l1_from=start, l1_until=max(start, round(l1_warmup * guess)))
    after = replace(before, total=planned + more, planned_at=planned)
    assert [before.factors(step) for step in range(planned)] == [after.factors(step) for step in range(planned)]
    assert all(0 < after.lr_scale(step) <= 1 for step in range(planned + more))
    factors = [after.l1_factor(step) for step in range(planned + more)]
    assert factors == sorted(factors)
    assert 0 <= factors[0] <= factors[-1] <= 1
    assert factors[-1] == 1 or l1_warmup > 0.99 or planned + more < 100


def test_a_guess_of_the_steps_comes_early_and_keeps_the_limit() -> None:
    budget = Budget(100.0, most=300)
    assert [budget.early(step, seconds) for step, seconds in ((0, 5.0), (3, 1.9), (3, 2.0), (6, 2.0))] == [
        None, None, 150, 300,
    ]  # fmt: skip
    assert Budget(1.0).early(1, 5.0) == 2
    assert Budget(1.0, least=9).early(1, 5.0) == 9


@pytest.mark.parametrize("slow", [0, 50, 1000])
def test_a_budget_is_met_though_the_first_steps_are_slower(slow: int) -> None:
    seconds, budget, step, elapsed, total = 100.0, Budget(100.0), 0, 0.0, None
    while total is None or step < total:
        elapsed += 0.2 if step < slow else 0.05
        step += 1
        total = total or budget.total(step, elapsed)
    assert elapsed == pytest.approx(seconds, rel=0.02) if slow < 1000 else elapsed <= seconds


def test_a_budget_smaller_than_a_step_and_one_with_a_limit() -> None:
    assert Budget(1.0).total(1, 5.0) == 2
    limited = Budget(100.0, most=10)
    assert [limited.total(step, step * 0.1) for step in range(1, 11)] == [None] * 9 + [10]
    assert limited.total(4, 50.0) == 8
