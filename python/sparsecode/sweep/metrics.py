"""How good a dictionary is: pure functions over sums, so that batch size and order do not matter.

Shape letters: B rows, D activation dimension, F features. Definitions are those of docs/definitions.md; errors are
measured on normalised activations, whatever the convention of the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsecode.machine import wide

if TYPE_CHECKING:
    from sparsecode.sweep.engines import StepStats
    from sparsecode.sweep.sweep import Sweep


@dataclass(frozen=True)
class Deviations:
    """Sum of squared deviations of rows from their mean; those of two sets of rows are added.

    Attributes:
        rows: how many.
        mean: [D] float64.
        total: sum over rows and dimensions of (x - mean)^2.
    """

    rows: int
    mean: Tensor
    total: float

    @classmethod
    def of(cls, x: Tensor) -> Deviations:
        """Deviations of rows [B, D] from their mean."""
        x = wide(x)
        mean = x.mean(0)
        return cls(x.shape[0], mean.cpu(), float((x - mean).square().sum()))

    def __add__(self, other: Deviations) -> Deviations:
        """Deviations of both sets (Chan, Golub and LeVeque 1979, formula 2.1)."""
        rows = self.rows + other.rows
        gap = other.mean - self.mean
        between = float(gap.square().sum()) * self.rows * other.rows / rows
        return Deviations(rows, self.mean + gap * (other.rows / rows), self.total + other.total + between)


def fvu(squared_error: float, squared_deviations: float) -> float:
    """Fraction of variance unexplained: a ratio of sums over all rows, not a mean of ratios. NaN for constant data."""
    return squared_error / squared_deviations if squared_deviations > 0 else math.nan


def explained_variance(squared_error: float, squared_deviations: float) -> float:
    """1 - FVU: 1 for a perfect reconstruction, 0 for the mean of the data."""
    return 1 - fvu(squared_error, squared_deviations)


def fired(codes: Tensor) -> Tensor:
    """Rows of codes [B, F] on which each feature is active: [F] int64."""
    return (codes > 0).sum(0)


def density(fired_rows: Tensor, rows: int) -> Tensor:
    """Share of `rows` rows on which each feature fired: [F] float32."""
    return (wide(fired_rows) / rows).float()


def dead(fired_rows: Tensor) -> int:
    """Features that fired on no row of the window over which `fired_rows` was counted; state the window beside it."""
    return int((fired_rows == 0).sum())


def motion(start_cosine: Tensor, fired_rows: Tensor) -> dict[str, Any]:
    """How many features are alive, and how far most of them came: {live, start_cosine: the median of live ones, or
    None where there are none}.

    Args:
        start_cosine: [F] cosine of each atom with the one it started from.
        fired_rows: [F] rows on which each feature fired.
    """
    own = start_cosine[fired_rows > 0]
    return {"live": len(own), "start_cosine": float(own.median()) if len(own) else None}


def summaries(sweep: Sweep, sums: StepStats, squared_deviations: float) -> dict[str, dict[str, Any]]:
    """Metrics of every dictionary by name over the rows of `sums`, with `sweep.fired` counted over the same rows.

    Returns:
        name -> {mse: per row and dimension, l1: mean sum of the codes, l0, fvu, dead: on none of the rows, rows};
        values that are not finite are None, the only name JSON has for them.
    """
    found: dict[str, dict[str, Any]] = {}
    columns = zip(sums.sse.tolist(), sums.l1.tolist(), sums.l0.tolist(), strict=True)
    counts = [dead(sweep.whole(own)) for own in sweep.per_dictionary(sweep.fired)]
    for name, (sse, l1, active), asleep in zip(sweep.names, columns, counts, strict=True):
        values = {
            "mse": sse / (sums.rows * sweep.output_dim),
            "l1": l1 / sums.rows,
            "l0": active / sums.rows,
            "fvu": fvu(sse, squared_deviations),
        }
        clean = {key: value if math.isfinite(value) else None for key, value in values.items()}
        found[name] = clean | {"dead": asleep, "rows": sums.rows}
    return found
