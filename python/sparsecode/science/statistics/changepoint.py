"""A curve of two straight pieces: where it bends, and the slope before and after, with intervals over features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsecode.science.statistics.bootstrap import Interval, from_draws, resamples

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bend:
    """Slopes per unit of x before and after `at`, one of the inner points."""

    at: float
    before: float
    after: float
    squared_error: float


def bend(x: npt.ArrayLike, y: npt.ArrayLike) -> Bend:
    """The continuous curve of two straight pieces, bent at an inner point of x [n >= 3], of least squared error.

    Each candidate is an exact least-squares fit of y = a + b x + c max(0, x - at).
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return min((_fit(x, y, at) for at in x[1:-1]), key=lambda found: found.squared_error)


def _fit(x: Array, y: Array, at: float) -> Bend:
    design = np.stack([np.ones_like(x), x, np.maximum(0, x - at)], axis=1)
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    error = float(((design @ solution - y) ** 2).sum())
    return Bend(float(at), float(solution[1]), float(solution[1] + solution[2]), error)


@dataclass(frozen=True)
class BendIntervals:
    """A bend of a curve over size: slopes per doubling with 95 % intervals over features, and the share of resamples
    that bend at each size.
    """

    at: int
    before: Interval
    after: Interval
    share_at: dict[str, float]


def bend_of_means(features: Mapping[int, Array], *, draws: int = 1000) -> BendIntervals:
    """The bend of the curve of means over log2(size): `features[size]` are the values there, one per feature."""
    generator = np.random.default_rng(0)
    x = [math.log2(size) for size in features]
    whole = bend(x, [values.mean() for values in features.values()])
    means = np.stack([resamples(values, draws, generator) for values in features.values()], axis=1)
    found = [bend(x, row) for row in means]
    places = [round(2**one.at) for one in found]
    return BendIntervals(
        round(2**whole.at),
        from_draws(whole.before, [one.before for one in found]),
        from_draws(whole.after, [one.after for one in found]),
        {str(at): places.count(at) / draws for at in sorted(set(places))},
    )
