"""Kinds that keep the largest: of each row, or of a batch.

Of equal values all that are no less than the k-th are kept: a rule that needs no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds.kind import Kind, Weights

THRESHOLD_RATE = 0.01  # of BatchTopK's running threshold, as SAELens and the authors have it


class _Selecting(Kind):
    """A kind whose loss is the error alone."""

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Kind.backward`."""
        del y, weights, second
        return torch.where(z != 0, q, 0), {}


@dataclass(frozen=True)
class TopK(_Selecting):
    """The k largest of each row (Gao et al., arXiv 2406.04093)."""

    k: int

    def __post_init__(self) -> None:
        if not (self.k >= 1 and self.k == int(self.k)):
            raise InvalidSetting(f"k is {self.k}, not a whole number of features from 1 up")

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """See `Kind.codes`."""
        del weights
        return largest(y, int(self.k))


@dataclass(frozen=True)
class BatchTopK(_Selecting):
    """The k B largest of a batch, at least one (Bussmann et al., arXiv 2412.06410)."""

    k: float

    def __post_init__(self) -> None:
        if not 0 < self.k < float("inf"):
            raise InvalidSetting(f"k is {self.k}, not a number of features above 0")

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """See `Kind.codes`."""
        del weights
        return largest(y.flatten(), max(1, round(self.k * len(y)))).view_as(y)


def largest(y: Tensor, k: int) -> Tensor:
    """Positive values of y [..., n] that are no less than the k-th largest of their row, else 0; a NaN is kept."""
    if k >= y.shape[-1]:
        return y.relu()
    floor = y.topk(k, dim=-1, sorted=True).values[..., -1:]
    return torch.where(((y >= floor) & (y > 0)) | y.isnan(), y, 0)


def next_threshold(threshold: float | None, z: Tensor, rate: float = THRESHOLD_RATE) -> float | None:
    """BatchTopK's running threshold after a batch with codes z: a moving mean of the smallest code that was kept.

    The first is taken as it is; a batch without codes changes nothing. It is state: what resumes needs it.
    """
    kept = z[z > 0]
    if not len(kept):
        return threshold
    least = float(kept.min())
    return least if threshold is None else threshold + rate * (least - threshold)
