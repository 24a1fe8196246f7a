"""JumpReLU: a threshold per feature, which learns although a step has no derivative."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds.kind import Kind, Weights

WITH_TARGET = ("target", "quadratic")
PENALTIES = ("step", *WITH_TARGET, "tanh")


@dataclass(frozen=True)
class JumpRelu(Kind):
    """Codes above a threshold that is trained by a straight-through estimator (Rajamanoharan et al., arXiv 2407.14435).

    With dL/dz of the error and the penalty, and s the penalty's derivative by the L0 of a row:

        dL/dy = dL/dz where y > theta
        dL/dtheta = -sum of (theta dL/dz + s) / w over the rows with |y - theta| < w / 2

    Here L0 is the number of y above theta, not of codes that are not zero, whose step would lose half of the window
    (dictionary_learning, issue 55).

    Attributes:
        strength: lambda.
        window: w, in which a pre-activation moves its threshold.
        penalty_kind: "step": lambda times the mean L0. "target": lambda (mean L0 / `target` - 1)^2, as
            dictionary_learning has it. "quadratic": lambda times the mean over rows of (2 / `target`)
            (L0 - `target`)^2, as SAELens has it, which also presses rows towards each other. "tanh": lambda times the
            mean over rows of sum tanh(`steepness` z), Anthropic's of January 2025.
        target: the L0 of "target" and of "quadratic".
        steepness: C of "tanh".
        to_input: whether the estimator moves y as well as theta, as Anthropic's does.
        pre_activation: lambda_P times the mean over rows of sum relu(theta - y), which gives features that do not
            fire a gradient.
    """

    strength: float
    window: float
    penalty_kind: str = "step"
    target: float | None = None
    steepness: float = 4.0
    to_input: bool = False
    pre_activation: float = 0.0

    def __post_init__(self) -> None:
        if self.penalty_kind not in PENALTIES:
            raise InvalidSetting(f"penalty must be one of {', '.join(PENALTIES)}, not '{self.penalty_kind}'")
        if (self.penalty_kind in WITH_TARGET) != (self.target is not None):
            raise InvalidSetting(f"a target L0 belongs to the penalties {' and '.join(WITH_TARGET)}, which need one")
        if self.target is not None and not self.target > 0:
            raise InvalidSetting(f"the target L0 is {self.target}, not a number above 0")
        if not self.window > 0:
            raise InvalidSetting(f"the window is {self.window}, not a number above 0")

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """See `Kind.codes`."""
        return torch.where((y > weights.own("theta")) | y.isnan(), y, 0)

    def penalty(self, y: Tensor, z: Tensor, weights: Weights) -> Tensor:
        """See `Kind.penalty`."""
        theta = weights.own("theta")
        l0 = (y > theta).to(y).sum(1)
        if self.penalty_kind == "tanh":
            found = (self.steepness * z).tanh().sum(1).mean()
        elif self.target is None:
            found = l0.mean()
        elif self.penalty_kind == "target":
            found = (l0.mean() / self.target - 1).square()
        else:
            found = 2 / self.target * (l0 - self.target).square().mean()
        return self.strength * found + self.pre_activation * (theta - y).relu().sum(1).mean()

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Kind.backward`."""
        del second
        theta, rows = weights.own("theta"), len(y)
        if self.penalty_kind == "tanh":
            q = q + self.strength / rows * self.steepness * (1 - (self.steepness * z).tanh().square())
        through = (theta * q + self._by_l0(y, theta)) / self.window
        through = torch.where((y - theta).abs() < self.window / 2, through, 0)
        below = self.pre_activation / rows * (y < theta).to(y)
        dy = torch.where((y > theta) | y.isnan(), q, 0) - below
        dy = dy + through if self.to_input else dy
        return dy, {"theta": below.sum(0) - through.sum(0)}

    def _by_l0(self, y: Tensor, theta: Tensor) -> Tensor:
        """The penalty's derivative [B, 1] by the L0 of each row."""
        l0 = (y > theta).to(y).sum(1, keepdim=True)
        by_mean = torch.full_like(l0, self.strength / len(y))
        if self.penalty_kind == "tanh":
            return by_mean * 0
        if self.target is None:
            return by_mean
        if self.penalty_kind == "target":
            return by_mean * (2 / self.target * (l0.mean() / self.target - 1))
        return by_mean * (4 / self.target) * (l0 - self.target)
