"""Two modes of a distribution: a mixture of two normals (EM, scikit-learn), and how far apart they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_LEAST_SPREAD = 1e-5  # variance added to each mode: cosines that are all alike have none


@dataclass(frozen=True)
class TwoModes:
    """The lower and the upper mode, and each value's share of the upper one."""

    means: tuple[float, float]
    spreads: tuple[float, float]  # standard deviations
    weights: tuple[float, float]
    ashman: float  # distance of the means in units of the spreads; above 2 the modes are apart
    bic_gain: float  # BIC of one normal minus BIC of two: above 10 is strong evidence for two
    upper: Array = field(repr=False)  # [n] posterior probability of the upper mode

    def as_json(self) -> dict[str, Any]:
        """Without the values' shares."""
        found = asdict(self)
        del found["upper"]
        return found


def two_modes(values: npt.ArrayLike, *, seed: int = 0) -> TwoModes:
    """Fits two normal distributions to a sample [n] of at least four."""
    from sklearn.mixture import GaussianMixture

    x = np.asarray(values, dtype=np.float64)[:, None]
    one = GaussianMixture(1, reg_covar=_LEAST_SPREAD, random_state=seed).fit(x)
    # EM finds a local optimum: two starts, in the middle of either half.
    start = np.quantile(x, [0.25, 0.75])[:, None]
    if start[0] == start[1]:
        start[0] -= 1e-3
    fits = [
        GaussianMixture(2, reg_covar=_LEAST_SPREAD, random_state=seed, max_iter=1000, means_init=means).fit(x)
        for means in (start, np.array([[x.min()], [x.max()]]))
    ]
    two = max(fits, key=lambda fit: float(fit.score(x)))
    order = np.argsort(two.means_[:, 0])
    means, variances, weights = two.means_[order, 0], two.covariances_[order, 0, 0], two.weights_[order]
    return TwoModes(
        means=(float(means[0]), float(means[1])),
        spreads=(float(np.sqrt(variances[0])), float(np.sqrt(variances[1]))),
        weights=(float(weights[0]), float(weights[1])),
        ashman=ashman(*means, *variances),
        bic_gain=float(one.bic(x) - two.bic(x)),
        upper=two.predict_proba(x)[:, order[1]],
    )


def ashman(mean_a: float, mean_b: float, variance_a: float, variance_b: float) -> float:
    """√2 |mean_a - mean_b| / √(variance_a + variance_b) (Ashman, Bird and Zepf 1994)."""
    return float(np.sqrt(2) * abs(mean_a - mean_b) / np.sqrt(variance_a + variance_b))
