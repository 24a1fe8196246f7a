"""Gated dictionaries: whether a feature fires, and how much it gives, are decided apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.sweep.kinds.kind import Kind, Weights


@dataclass(frozen=True)
class Gated(Kind):
    """A gate and a magnitude from one product, and two reconstructions (Rajamanoharan et al., arXiv 2404.16014).

    With p = (x - b) W_enc^T, the gate y = p + b_enc and the magnitude m = e^rho p + b_mag: z = relu(m) where y > 0. The
    step has no derivative, so the gate learns from a second error, that of relu(y) in place of z with W_dec and b_dec
    held constant there, and from the penalty lambda / B times the sum of relu(y). With q and q' of the two errors:

        dL/dp = e^rho q where z > 0, plus q' + lambda / B where y > 0
        db_enc = sum of q' + lambda / B where y > 0      db_mag = sum of q where z > 0
        drho = sum of e^rho p q where z > 0

    Attributes:
        strength: lambda.
    """

    strength: float

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """See `Kind.codes`."""
        magnitude = weights.own("rho").exp() * (y - weights.b_enc) + weights.own("b_mag")
        return torch.where((y > 0) | y.isnan(), magnitude.relu(), 0)

    def penalty(self, y: Tensor, z: Tensor, weights: Weights) -> Tensor:
        """See `Kind.penalty`."""
        del z, weights
        return self.strength / len(y) * y.relu().sum()

    def second(self, y: Tensor) -> Tensor:
        """See `Kind.second`."""
        return y.relu()

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Kind.backward`."""
        assert second is not None
        by_gate = torch.where((y > 0) | y.isnan(), second + self.strength / len(y), 0)
        by_magnitude, gain = torch.where(z != 0, q, 0), weights.own("rho").exp()
        by_gain = (gain * (y - weights.b_enc) * by_magnitude).sum(0)
        own = {"b_enc": by_gate.sum(0), "b_mag": by_magnitude.sum(0), "rho": by_gain}
        return gain * by_magnitude + by_gate, own
