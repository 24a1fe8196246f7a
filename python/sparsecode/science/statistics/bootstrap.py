"""Uncertainty: percentile intervals over resampled features (Efron 1979), seeded, so that a run says the same twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

LEVEL = 0.95
_ROOM = 1 << 21  # values of resamples held at a time: 32 MB with their places
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate between the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, bound: float) -> bool:
        """Whether a bound lies within: on either side of it would be the same to these data."""
        return self.low <= bound <= self.high

    def near(self, bound: float, distance: float) -> bool:
        """Whether a bound lies within, or no further from either end than `distance`."""
        return self.low - distance <= bound <= self.high + distance

    def text(self, form: str = ".2f") -> str:
        """`0.31 (0.28 to 0.33)`."""
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def interval(
    values: Sequence[float] | Array, statistic: Callable[..., Array] = np.mean, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """A statistic of `values` [n] and its percentile interval over `draws` resamples.

    Args:
        values: one per feature; at least one.
        statistic: takes an array and `axis`, such as `np.mean` or `np.median`.
        draws: resamples.
        seed: of the resampling.

    >>> interval([2.0, 2.0, 2.0])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    array = np.asarray(values, dtype=np.float64)
    resampled = resamples(array, draws, np.random.default_rng(seed), statistic)
    return from_draws(float(statistic(array, axis=0)), resampled)


def difference(a: Sequence[float] | Array, b: Sequence[float] | Array, *, draws: int = 1000) -> Interval:
    """mean(a) - mean(b), both resampled."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    one, other = (resamples(own, draws, np.random.default_rng(seed)) for seed, own in enumerate((first, second)))
    return from_draws(float(first.mean() - second.mean()), one - other)


def count(found: int, features: int) -> Interval:
    """Interval of a count, `found` of `features` features: its bootstrap is binomial, in closed form."""
    share = found / features
    low, high = (float(binom.ppf(q, features, share)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(found), low, high)


def from_draws(value: float, draws: Sequence[float] | Array) -> Interval:
    """An estimate with what it came to in resamples; NaN draws (a resample that could not be used) are left out."""
    array = np.asarray(draws, dtype=np.float64)
    known = array[~np.isnan(array)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def resamples(
    values: Array, draws: int, generator: np.random.Generator, statistic: Callable[..., Array] = np.mean
) -> Array:
    """A statistic of `draws` resamples of `values` [n]: [draws]. Memory does not grow with their product."""
    n, most = len(values), max(1, _ROOM // len(values))
    parts = [min(most, draws - done) for done in range(0, draws, most)]
    found: Array = np.concatenate([statistic(values[generator.integers(0, n, (part, n))], axis=1) for part in parts])
    return found
