"""ReLU + L1: what every engine trains, in the form of the other kinds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.sweep.kinds.kind import Kind, Weights


@dataclass(frozen=True)
class Relu(Kind):
    """Codes above 0, and `strength` times the mean over rows of their sum (Cunningham et al., arXiv 2309.08600).

    Attributes:
        strength: lambda, that is `Sweep.penalty`.
    """

    strength: float

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """See `Kind.codes`."""
        del weights
        return y.relu()

    def penalty(self, y: Tensor, z: Tensor, weights: Weights) -> Tensor:
        """See `Kind.penalty`."""
        del y, weights
        return self.strength / len(z) * z.sum()

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Kind.backward`."""
        del weights, second
        return torch.where(z != 0, q + self.strength / len(y), 0), {}
