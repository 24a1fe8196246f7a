"""How sparse a direction is in the basis of neurons: three measures that agree at the ends.

For a neuron (one component): kurtosis D, L1/L2 1, participation ratio 1. For a random direction in D dimensions:
kurtosis about 3, L1/L2 about √(2D/π), participation ratio about D/3. For all components equal: 1, √D, D.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def kurtosis(directions: npt.ArrayLike) -> Array:
    """D Σ x⁴ / (Σ x²)² of each row of [n, D]: kurtosis about zero, the neutral value of a component."""
    x = np.asarray(directions, dtype=np.float64)
    found: Array = x.shape[1] * (x**4).sum(1) / (x**2).sum(1) ** 2
    return found


def l1_over_l2(directions: npt.ArrayLike) -> Array:
    """Σ |x| / √Σ x² of each row of [n, D]."""
    x = np.asarray(directions, dtype=np.float64)
    found: Array = np.abs(x).sum(1) / np.sqrt((x**2).sum(1))
    return found


def participation_ratio(directions: npt.ArrayLike) -> Array:
    """(Σ x²)² / Σ x⁴ of each row of [n, D]: how many neurons a direction effectively uses."""
    x = np.asarray(directions, dtype=np.float64)
    found: Array = (x**2).sum(1) ** 2 / (x**4).sum(1)
    return found


MEASURES = {"participation ratio": participation_ratio, "L1/L2": l1_over_l2, "kurtosis": kurtosis}
