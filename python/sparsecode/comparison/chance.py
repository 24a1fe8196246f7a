"""What random directions would show: closed forms for cosines between uniform directions in D dimensions.

The cosine c of two such directions has c² ~ Beta(1/2, (D-1)/2); the largest of m independent ones has the m-th power
of its distribution function. Where directions keep to fewer dimensions than there are, D is the number that they
effectively use (`effective_dimension`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betainc
from torch import Tensor

_GRID = 20_001  # of the numerical integral: exact to 1e-7


def cosine_cdf(c: npt.ArrayLike, dim: float) -> npt.NDArray[np.float64]:
    """P(cosine <= c) of two random directions in `dim` dimensions (2 or more)."""
    value = np.clip(np.asarray(c, dtype=np.float64), -1, 1)
    tail: npt.NDArray[np.float64] = np.sign(value) * betainc(0.5, (dim - 1) / 2, value**2)
    return (1 + tail) / 2


def expected_mmcs(others: int, dim: float) -> float:
    """Mean of the largest cosine of a random direction with `others` random directions.

    >>> round(expected_mmcs(1024, 128), 2)
    0.28
    """
    grid = np.linspace(-1, 1, _GRID)
    return float(1 - np.trapezoid(cosine_cdf(grid, dim) ** others, grid))


def share_above(threshold: float, others: int, dim: float) -> float:
    """Probability that the largest of `others` cosines is above `threshold`, without loss for tiny tails."""
    tail = betainc((dim - 1) / 2, 0.5, 1 - threshold**2) / 2 if threshold >= 0 else 1 - cosine_cdf(threshold, dim)
    return float(-np.expm1(others * np.log1p(-tail)))


def effective_dimension(atoms: Tensor) -> float:
    """Dimensions in which as many random directions would be as near to each other as these unit rows [n, d] are.

    The inverse of the mean squared cosine of two of them, which is 1/D for random directions; at most d, and d for a
    single row.

    >>> import torch
    >>> effective_dimension(torch.eye(4)[:, :3][:3])
    3.0
    """
    n, d = atoms.shape
    wide = atoms.double()
    gram = wide.T @ wide if d <= n else wide @ wide.T
    pairs = float(gram.square().sum()) - n
    return float(d) if n < 2 or pairs <= n * (n - 1) / d else n * (n - 1) / pairs


def participation_ratio(variances: Tensor) -> float:
    """(sum of variances)^2 / sum of their squares: the number of directions over which variance effectively spreads.

    Args:
        variances: eigenvalues of a covariance.

    >>> import torch
    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0]))
    2.0
    """
    wide = variances.double()
    return float(wide.sum() ** 2 / wide.square().sum())
