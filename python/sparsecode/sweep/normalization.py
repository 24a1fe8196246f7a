"""How activations are put on one scale before dictionaries see them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.errors import DatasetUnfit

KINDS = ("center", "rms", "none")


def gamma(statistics: Mapping[str, Any]) -> float:
    """How far the mean of the rows is from zero: |mean| / |standard deviations|, both over dimensions.

    A feature that begins in a random direction then lies gamma of its own standard deviations to one side of zero, in
    expectation of the square, so at a large gamma many never fire (Simon, Adams and Zou, arXiv 2605.31518, 2026).

    Args:
        statistics: mean [D] and variance (per value) of the rows.
    """
    mean, variance = torch.as_tensor(statistics["mean"], dtype=torch.float64), statistics["variance"]
    return float(mean.norm()) / math.sqrt(len(mean) * variance) if variance > 0 else math.inf


@dataclass(frozen=True)
class Normalization:
    """Data become (x - mean) / scale; the mean is [D] or None, the scale a number or [D]."""

    mean: Tensor | None
    scale: float | Tensor

    @classmethod
    def of(cls, statistics: Mapping[str, Any], kind: str, where: object = "the data") -> Normalization:
        """From the statistics of a dataset's rows.

        Args:
            statistics: mean [D], variance (per value) and rms.
            kind: center: subtract the mean, divide by the standard deviation; rms: divide by the root mean square;
                none.
            where: the data's name in an error.

        Raises:
            DatasetUnfit: all rows are the same, or zero.
        """
        mean = torch.as_tensor(statistics["mean"], dtype=torch.float32) if kind == "center" else None
        scales = {"rms": statistics["rms"], "center": math.sqrt(statistics["variance"]), "none": 1.0}
        scale = float(scales[kind])
        if not (math.isfinite(scale) and scale > 0 and statistics["variance"] > 0):
            raise DatasetUnfit(f"{where}: all rows are equal, there is nothing to learn")
        return cls(mean, scale)

    @classmethod
    def beside(cls, parts: Sequence[Normalization], widths: Sequence[int]) -> Normalization:
        """That of rows side by side, each with its own; all or none have a mean."""
        means = [part.mean for part in parts if part.mean is not None]
        scales = [torch.as_tensor(part.scale).expand(width) for part, width in zip(parts, widths, strict=True)]
        return cls(torch.cat(means) if means else None, torch.cat(scales))

    def apply(self, x: Tensor) -> Tensor:
        """Rows [B, D] on that scale."""
        return (x if self.mean is None else x - self.mean) / self.scale
