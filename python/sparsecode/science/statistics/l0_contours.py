"""Lines of equal L0 over (size, L1): their slope d log L1 / d log size.

0: one L1 gives every size the same L0. 1: L1 must grow in proportion to the size, the diagonal of a heat map. Dividing
L1 by the size adds exactly 1, if everything else is equal: (L1, n) divided is (L1 / n, n) undivided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparsecode.science.statistics.bootstrap import Array, Interval, interval

_LEVELS = 48  # of L0 over the whole grid: enough that every pair of sizes with a common L0 meets some


@dataclass(frozen=True)
class LocalSlope:
    """Slope of the line of one L0 between two neighbouring sizes."""

    size: int
    larger: int
    l0: float
    slope: float


def local_slopes(grid: Mapping[int, Sequence[tuple[float, float]]]) -> list[LocalSlope]:
    """Slopes between neighbouring sizes, at levels of L0 that both reach.

    Args:
        grid: size -> (L1, L0) pairs. Between them log L1 is interpolated linearly in log L0; an L0 of 0 is left out.
    """
    curves = {size: _curve(points) for size, points in sorted(grid.items())}
    curves = {size: curve for size, curve in curves.items() if len(curve) > 1}
    if len(curves) < 2:
        return []
    everything = np.concatenate([curve[:, 0] for curve in curves.values()])
    levels = np.linspace(everything.min(), everything.max(), _LEVELS)
    found = []
    for (size, a), (larger, b) in pairwise(curves.items()):
        low, high = max(a[0, 0], b[0, 0]), min(a[-1, 0], b[-1, 0])
        for level in levels[(levels >= low) & (levels <= high)]:
            shift = np.interp(level, b[:, 0], b[:, 1]) - np.interp(level, a[:, 0], a[:, 1])
            found.append(LocalSlope(size, larger, float(np.exp(level)), float(shift / np.log(larger / size))))
    return found


def slope(found: Sequence[LocalSlope], *, draws: int = 1000) -> Interval | None:
    """Mean over pairs of neighbouring sizes of their mean slope over levels; None without any.

    The interval resamples pairs: levels of one pair lie on the same few dictionaries, and are not independent.
    """
    pairs: dict[int, list[float]] = {}
    for one in found:
        pairs.setdefault(one.size, []).append(one.slope)
    if not pairs:
        return None
    return interval([float(np.mean(slopes)) for slopes in pairs.values()], draws=draws)


def _curve(points: Sequence[tuple[float, float]]) -> Array:
    """[m, 2] of (log L0, log L1) by rising L0; where L0 does not fall with L1 the point is dropped."""
    kept: list[tuple[float, float]] = []
    for l1, l0 in sorted(points):
        if l1 > 0 and l0 > 0 and (not kept or np.log(l0) < kept[-1][0]):
            kept.append((float(np.log(l0)), float(np.log(l1))))
    return np.array(kept[::-1]).reshape(-1, 2)
