"""p-annealing over a training: when p changes, what becomes of lambda, and that the state can be saved."""

from __future__ import annotations

import doctest
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds import Annealed, Annealing, PAnneal, panneal


def codes(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(7, 5, generator=generator, dtype=torch.float64).relu()


def through(annealing: Annealing, state: Annealed, steps: range) -> list[tuple[PAnneal, Annealed]]:
    """The kind of each step and the state after it."""
    found = []
    for step in steps:
        kind = annealing.kind(state, step)
        state = annealing.next(state, step, codes(step))
        found.append((kind, state))
    return found


def as_dictionary_learning(annealing: Annealing, strength: float, steps: int) -> list[tuple[float, float]]:
    """(p, lambda) of every step by the rule of dictionary_learning's PAnnealTrainer, with `Lp^p`, in a few lines."""
    updates = annealing.changes + 1
    at = torch.linspace(annealing.start, annealing.end, updates, dtype=torch.float64).long().tolist()
    exponents = torch.linspace(1, annealing.p_end, updates, dtype=torch.float64).tolist()
    p, following, done, found = 1.0, None, 0, []
    queue: list[tuple[Tensor, Tensor]] = []
    for step in range(steps):
        found.append((p, strength))
        z = codes(step)
        if following is not None:
            queue = [*queue, (z.pow(p).sum(1).mean(), z.pow(following).sum(1).mean())][-annealing.window :]
        if step in at:
            if following is not None:
                own, new = (torch.stack(column).mean() for column in zip(*queue, strict=True))
                strength *= float(own / new)
            p = exponents[done]
            following = exponents[done + 1] if done < updates - 1 else annealing.p_end
            done += 1
    return found


@pytest.mark.parametrize("annealing", [Annealing(5, 45, 0.2, 4, 10), Annealing(0, 40, 0.5, 2, 3)])
def test_exponents_and_strengths_are_those_of_dictionary_learning(annealing: Annealing) -> None:
    expected = as_dictionary_learning(annealing, 0.3, 60)
    found = through(annealing, Annealed(0.3), range(60))
    assert [kind.p for kind, _ in found] == pytest.approx([p for p, _ in expected], rel=1e-12)
    assert [kind.strength for kind, _ in found] == pytest.approx([strength for _, strength in expected], rel=1e-12)
    assert found[-1][0].p == annealing.p_end
    assert found[-1][0].strength != 0.3


def test_a_change_leaves_the_penalty_of_the_last_batches_as_it_was() -> None:
    annealing, none = Annealing(0, 20, 0.2, 2, window=4), torch.empty(0)
    before, after = (through(annealing, Annealed(0.3), range(12))[step][0] for step in (10, 11))
    assert (before.p, after.p) == (1.0, 0.6)

    def of(kind: PAnneal) -> float:
        total = sum((kind.strength / len(z) * z.pow(kind.p).sum() for z in map(codes, range(7, 11))), none.sum())
        return float(total)

    assert of(after) == pytest.approx(of(before), rel=1e-12)


def test_sums_are_taken_only_in_the_window_before_a_change() -> None:
    annealing = Annealing(0, 40, 0.2, 2, window=3)
    assert [step for step in range(60) if annealing.wants(step)] == [18, 19, 20, 38, 39, 40]
    assert [len(state.sums) for _, state in through(annealing, Annealed(1.0), range(17, 22))] == [0, 1, 2, 0, 0]


@given(stop=st.integers(0, 60))
def test_a_saved_state_goes_on_as_if_nothing_had_happened(stop: int) -> None:
    annealing = Annealing(3, 50, 0.2, 5, window=6)
    whole = through(annealing, Annealed(0.3), range(60))
    state = whole[stop - 1][1] if stop else Annealed(0.3)
    again = Annealed.read(json.loads(json.dumps(state.record())))
    assert again == state
    assert through(annealing, again, range(stop, 60)) == whole[stop:]


def test_silence_changes_no_strength_and_a_nan_shows() -> None:
    annealing = Annealing(0, 10, 0.2, 1, window=2)
    for value, strength in ((0.0, 0.3), (float("nan"), float("nan"))):
        state = Annealed(0.3)
        for step in range(11):
            state = annealing.next(state, step, torch.full((2, 3), value))
        assert state.strength == pytest.approx(strength, nan_ok=True)


@pytest.mark.parametrize("changes", [1, 3, 9])
def test_changes_nearer_than_the_window_do_not_mix_exponents(changes: int) -> None:
    """Each ratio is of sums under the same two exponents, so codes that are all 1 leave lambda alone."""
    annealing, state = Annealing(0, changes, 0.2, changes, window=10), Annealed(0.3)
    for step in range(changes + 3):
        state = annealing.next(state, step, torch.ones(2, 3))
        assert state == Annealed(0.3, state.sums)
    assert annealing.kind(state, changes + 3).p == 0.2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": 0, "end": 5, "changes": 6}, "6 times between steps 0 and 5"),
        ({"start": -1, "end": 5, "changes": 1}, "between steps -1 and 5"),
        ({"start": 0, "end": 5, "changes": 0}, "0 times"),
        ({"start": 0, "end": 50, "p_end": 0.0}, "p_end is 0.0"),
        ({"start": 0, "end": 50, "p_end": 1.5}, "p_end is 1.5"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        Annealing(**settings)  # type: ignore[arg-type]


def test_examples_in_docstrings_run() -> None:
    assert doctest.testmod(panneal)[0] == 0
    assert doctest.testmod(panneal)[1] > 0
