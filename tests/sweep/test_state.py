"""The state of a training goes by dictionaries: whoever owns one, among however many processes, reads its part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsecode.errors import CheckpointCorrupt
from sparsecode.sweep.engines import StepStats, choose_engine
from sparsecode.sweep.kinds import kinds_of
from sparsecode.sweep.settings import LossSettings
from sparsecode.sweep.state import load_state, save_state
from sparsecode.sweep.sweep import Sweep
from sparsecode.world import World

D, STEPS = 6, 5
KINDS = kinds_of(["relu", "batchtopk k=2 aux=1/32", "panneal", "jumprelu l0=2"], [1e-2])
EVERY = [(size, kind, 0) for size in (8, 12) for kind in KINDS]


class Rank(World):
    """One of several processes; what others say is given."""

    def __init__(self, rank: int, size: int, others: Sequence[Any] = ()) -> None:
        self.rank, self.size, self.others = rank, size, others
        self.said: Any = None

    def agree(self, mine: Any, decide: Callable[[list[Any]], Any]) -> Any:
        self.said = mine
        return decide([mine, *self.others]) if self.rank == 0 else None


def sweep_of(entries: Sequence[tuple[int, Any, int]], steps: int = STEPS) -> tuple[Sweep, StepStats]:
    sizes, kinds, seeds = zip(*entries, strict=True)
    sweep = Sweep(D, sizes, kinds, seeds, 1e-2, LossSettings(pre_bias=True))
    sweep.state.plan(1000)
    engine, generator = choose_engine("reference", "cpu", threads=1), torch.Generator().manual_seed(0)
    sums = StepStats.zeros(len(sweep))
    for _ in range(steps):
        sums += engine.step(sweep, torch.randn(16, D, generator=generator), 1.0)
    return sweep, sums


def same(one: Sweep, other: Sweep) -> None:
    assert one.step == other.step
    for name, value in one.state_dict().items():
        assert torch.equal(value.nan_to_num(-1), other.state_dict()[name].nan_to_num(-1)), name


@pytest.mark.parametrize("chosen", [EVERY, EVERY[::2], EVERY[3:4], EVERY[::-1]])
def test_a_part_of_a_sweep_takes_up_its_own(tmp_path: Path, chosen: list[Any]) -> None:
    save_state(tmp_path / "state.safetensors", *sweep_of(EVERY), elapsed=1.5)
    found, sums = sweep_of(chosen, 0)
    sums, elapsed = load_state(tmp_path / "state.safetensors", found, sums)
    expected, expected_sums = sweep_of(chosen)
    same(found, expected)
    assert (elapsed, sums.rows) == (1.5, 16 * STEPS)
    assert all(map(torch.equal, (sums.sse, sums.l1, sums.l0),
                   (expected_sums.sse, expected_sums.l1, expected_sums.l0)))  # fmt: skip


def test_parts_of_several_count_once_the_first_has_named_them(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for steps in (2, STEPS):
        second = Rank(1, 2)
        save_state(path, *sweep_of(EVERY[1::2], steps), elapsed=1.0, world=second)
        if steps == 2:
            assert not path.exists()
        else:  # the state before is whole until then
            found, sums = sweep_of(EVERY, 0)
            load_state(path, found, sums)
            same(found, sweep_of(EVERY, 2)[0])
        save_state(path, *sweep_of(EVERY[::2], steps), elapsed=1.0, world=Rank(0, 2, [second.said]))
    assert len(list(tmp_path.iterdir())) == 2
    found, sums = sweep_of(EVERY, 0)
    load_state(path, found, sums)
    same(found, sweep_of(EVERY)[0])


@pytest.mark.parametrize("other", [[(8, 1e-2, 7)], [(9, 1e-2, 0)]])
def test_a_state_without_a_dictionary_is_refused(tmp_path: Path, other: list[Any]) -> None:
    save_state(tmp_path / "state.safetensors", *sweep_of(EVERY), elapsed=1.0)
    with pytest.raises(CheckpointCorrupt, match="delete it to start"):
        load_state(tmp_path / "state.safetensors", *sweep_of(other, 0))
