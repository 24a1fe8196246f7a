"""Uncertainty: percentile intervals over resampled features (Efron 1979), seeded, so that a run says the same twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from sparsecode.science.verdicts import Interval

LEVEL = 0.95
Array = npt.NDArray[np.float64]


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
    resampled = statistic(array[_choices(len(array), draws, seed)], axis=1)
    return _between(float(statistic(array, axis=0)), resampled)


def difference(a: Sequence[float] | Array, b: Sequence[float] | Array, *, draws: int = 1000, seed: int = 0) -> Interval:
    """mean(a) - mean(b), both resampled."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    resampled = first[_choices(len(first), draws, seed)].mean(1) - second[_choices(len(second), draws, seed + 1)].mean(
        1
    )
    return _between(float(first.mean() - second.mean()), resampled)


def count(found: int, features: int) -> Interval:
    """Of `features` features, `found` have a property: the bootstrap of a count is binomial, in closed form."""
    share = found / features
    low, high = (float(binom.ppf(q, features, share)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(found), low, high)


def from_draws(value: float, draws: Sequence[float] | Array) -> Interval:
    """An estimate with what it came to in resamples; NaN draws (a resample that could not be used) are left out."""
    array = np.asarray(draws, dtype=np.float64)
    return _between(value, array[~np.isnan(array)])


def _choices(n: int, draws: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (draws, n))


def _between(value: float, draws: Array) -> Interval:
    if not len(draws):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
