"""Hartigan's dip test of unimodality.

The dip is the largest distance between the empirical distribution function and the nearest unimodal one (Hartigan and
Hartigan, "The dip test of unimodality", Annals of Statistics 13, 1985). The p-value is the share of uniform samples
with as large a dip: of all unimodal distributions the uniform has the largest dips.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# The null distribution is simulated at these sizes only. The dip times the root of n grows slightly with n (3 % per
# doubling at 100, 1 % at 500): scaling down from the next larger size errs against finding modes.
_NULL_SIZES = (64, 128, 256, 512)
_NULL_DRAWS = 500


def dip(values: npt.ArrayLike) -> float:
    """The dip statistic of a sample [n]; between 1/(2n) and 1/4.

    >>> dip([0.0, 0.0, 1.0, 1.0])
    0.25
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    if n < 2 or x[0] == x[-1]:
        return 0.5 / max(n, 1)
    low, high, best = 0, n - 1, 1.0  # best: 2 n times the dip
    while True:
        below, above = _hull(x, low, high, 1), _hull(x, low, high, -1)
        gap, modal_low, modal_high = _widest(x, below, above)
        if gap <= best:
            break
        # How far the sample is from the convex part left of the modal interval, and the concave part right of it.
        left = _deviation(x, below[below <= modal_low], 1)
        right = _deviation(x, above[above >= modal_high], -1)
        best = max(best, left, right)
        if (low, high) == (modal_low, modal_high):
            break
        low, high = modal_low, modal_high
    return float(best / (2 * n))


def p_value(values: npt.ArrayLike, *, draws: int = _NULL_DRAWS) -> tuple[float, float]:
    """(dip, p) of a sample [n]; p is at least 1 / (draws + 1)."""
    found, n = dip(values), len(np.asarray(values))
    size = next((size for size in _NULL_SIZES if size >= n), _NULL_SIZES[-1])
    null = uniform_dips(size, draws) * np.sqrt(size / n)
    return found, float((1 + (null >= found).sum()) / (1 + draws))


@functools.lru_cache(maxsize=64)
def uniform_dips(n: int, draws: int, seed: int = 0) -> Array:
    """Dips of `draws` uniform samples of n."""
    generator = np.random.default_rng([seed, n])
    return np.array([dip(generator.random(n)) for _ in range(draws)])


def _hull(x: Array, low: int, high: int, side: int) -> npt.NDArray[np.int64]:
    """Knots of the greatest convex minorant (side 1) or least concave majorant (-1) of the points (x[i], i).

    Of points at the same place only the lowest (highest) counts, so that places of knots increase strictly.
    """
    places = x[low : high + 1].tolist()
    order = range(len(places)) if side > 0 else range(len(places) - 1, -1, -1)
    knots: list[int] = []
    for i in order:  # from the left below, from the right above: the same turn on both
        if knots and places[knots[-1]] == places[i]:
            continue
        while len(knots) > 1:
            a, b = knots[-2], knots[-1]
            if (b - a) * (places[i] - places[a]) < (i - a) * (places[b] - places[a]):
                break
            knots.pop()
        knots.append(i)
    return np.array(sorted(knots)) + low


def _widest(x: Array, below: npt.NDArray[np.int64], above: npt.NDArray[np.int64]) -> tuple[float, int, int]:
    """Largest distance of the sample's steps between both hulls, and the interval (in indices) that it spans."""
    at_above = above - np.interp(x[above], x[below], below)
    at_below = np.interp(x[below], x[above], above) - below
    i, j = int(at_above.argmax()), int(at_below.argmax())
    if at_above[i] >= at_below[j]:
        return float(at_above[i]) + 1, int(below[below <= above[i]].max(initial=below[0])), int(above[i])
    return float(at_below[j]) + 1, int(below[j]), int(above[above >= below[j]].min(initial=above[-1]))


def _deviation(x: Array, knots: npt.NDArray[np.int64], side: int) -> float:
    """Largest distance of the sample's steps from the polygon through `knots`, which it does not cross (times n)."""
    if len(knots) < 2:
        return 1.0
    inside = np.arange(knots[0], knots[-1] + 1)
    return float((side * (inside - np.interp(x[inside], x[knots], knots))).max()) + 1
