"""Two modes of a distribution: a mixture of two normals, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_LEAST_SPREAD = 1e-5  # variance added to each mode: cosines that are all alike have none
_TINY = 1e-12  # share of every value in every mode: none is ever empty
_TOLERANCE = 1e-7  # of the log likelihood per value


@dataclass(frozen=True)
class TwoModes:
    """The lower and the upper mode."""

    means: tuple[float, float]
    spreads: tuple[float, float]  # standard deviations
    weights: tuple[float, float]
    ashman: float  # distance of the means in units of the spreads; above 2 the modes are apart
    bic_gain: float  # BIC of one normal minus BIC of two: above 10 is strong evidence for two


def two_modes(values: npt.ArrayLike) -> tuple[TwoModes, Array]:
    """Two normal distributions fitted to a sample [n] of at least four, by expectation maximisation; and for each
    value the posterior probability of the upper mode [n].

    EM finds a local optimum: it starts from the halves on either side of the median, and of the middle of the range,
    and the likelier result is taken.
    """
    x = np.asarray(values, dtype=np.float64)
    cuts = (float(np.median(x)), float(x.min() + x.max()) / 2)
    fits = [_maximise(x, (x > cut).astype(np.float64)) for cut in cuts]
    likelihood, weights, means, variances, upper = max(fits, key=lambda fit: fit[0])
    if means[0] > means[1]:
        weights, means, variances, upper = weights[::-1], means[::-1], variances[::-1], 1 - upper
    spread = x.var() + _LEAST_SPREAD
    alone = float(_log_density(x, x.mean(), spread).sum())
    found = TwoModes(
        means=(float(means[0]), float(means[1])),
        spreads=(float(np.sqrt(variances[0])), float(np.sqrt(variances[1]))),
        weights=(float(weights[0]), float(weights[1])),
        ashman=ashman(means[0], means[1], variances[0], variances[1]),
        bic_gain=2 * (likelihood - alone) - 3 * float(np.log(len(x))),  # five parameters instead of two
    )
    return found, upper


def _maximise(x: Array, upper: Array) -> tuple[float, Array, Array, Array, Array]:
    """(log likelihood, weights [2], means [2], variances [2], posterior of the second [n]) from a first posterior."""
    before = -np.inf
    while True:
        shares = np.stack([1 - upper, upper]) + _TINY
        total = shares.sum(axis=1)
        weights, means = total / total.sum(), shares @ x / total
        variances = (shares * (x - means[:, None]) ** 2).sum(axis=1) / total + _LEAST_SPREAD
        joint = np.log(weights)[:, None] + _log_density(x, means[:, None], variances[:, None])
        both = np.logaddexp(joint[0], joint[1])
        likelihood, upper = float(both.sum()), np.exp(joint[1] - both)
        if likelihood - before < _TOLERANCE * len(x):
            return likelihood, weights, means, variances, upper
        before = likelihood


def _log_density(x: Array, mean: Any, variance: Any) -> Array:
    found: Array = -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)
    return found


def ashman(mean_a: float, mean_b: float, variance_a: float, variance_b: float) -> float:
    """√2 |mean_a - mean_b| / √(variance_a + variance_b) (Ashman, Bird and Zepf 1994)."""
    return float(np.sqrt(2) * abs(mean_a - mean_b) / np.sqrt(variance_a + variance_b))
