"""Timing contenders in turns, so that a slow minute of the machine hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    baseline: str,
    rounds: int,
    before: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """Median over rounds of the baseline's time by each contender's; every contender runs once in every round.

    `before(name)` runs before each, untimed.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            before(name)
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {
        name: statistics.median(a / b for a, b in zip(times[baseline], own, strict=True)) for name, own in times.items()
    }
