"""What a sweep is to be trained on: the order of rows, and the dictionaries of one of several processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sparsecode.errors import InvalidSetting
from sparsecode.pipeline import plan
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.world import World


@pytest.mark.parametrize(
    ("asked", "memory", "planned", "expected"),
    [
        ("auto", 2001, {}, "exact"), ("auto", 1999, {}, "windowed"), ("auto", None, {}, "exact"),
        ("exact", 1, {}, "exact"), ("windowed", 10**9, {}, "windowed"),
        ("auto", 1, {"engine": "cpu"}, "exact"),  # begun by an older version
        ("auto", 10**9, {"engine": "cpu", "order": "windowed"}, "windowed"),  # on a smaller machine
    ],
)  # fmt: skip
def test_data_that_exceed_half_of_memory_are_read_in_windows(
    monkeypatch: pytest.MonkeyPatch, asked: str, memory: int | None, planned: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(plan, "machine_memory", lambda: memory)
    dataset: Any = SimpleNamespace(rows=100, activation_dim=5, dtype="float16")
    assert plan.order(TrainDictsConfig(order=asked), dataset, planned) == expected


def test_an_order_that_is_left_open_is_not_recorded_as_a_setting() -> None:
    assert "order" not in TrainDictsConfig().record()
    assert TrainDictsConfig(order="windowed").record()["order"] == "windowed"


def test_processes_share_the_dictionaries() -> None:
    every = plan.entries(TrainDictsConfig(sizes="64-256", l1="1e-2,2e-2"), 16)
    worlds = [World() for _ in range(3)]
    for rank, world in enumerate(worlds):
        world.rank, world.size = rank, 3
    shares = [plan.share(every, world) for world in worlds]
    assert sorted(str(entry) for one in shares for entry in one) == sorted(map(str, every))
    assert all(one == [entry for entry in every if entry in one] for one in shares)
    worlds[0].size = len(every) + 1
    with pytest.raises(InvalidSetting, match="start fewer"):
        plan.share(every, worlds[0])
