"""Kinds of dictionaries beside ReLU + L1: their codes, their losses, and gradients by hand, in plain torch.

No engine trains them yet; this is the truth that engines will be held to. Shape letters: B rows of a batch, D
activation dimension, F features of one dictionary. With y = (x - b) W_enc^T + b_enc, codes z of y, the residual
r = z W_dec + b - x, the error c |r|^2 and q = 2 c r W_dec^T:

    TopK        z = y where it is positive and one of the k largest of its row          dL/dy = q there
    BatchTopK   z = y where it is positive and one of the k B largest of the batch      dL/dy = q there
    JumpRelu    z = y where y > theta                                                   dL/dy = dL/dz there
                dL/dtheta = -sum of (theta dL/dz + s) / w over the rows with |y - theta| < w / 2

s is the penalty's derivative by the L0 of a row. With groups (Matryoshka, Bussmann et al., arXiv 2503.17547), features
[0, m_1), [0, m_2), ... [0, F) each reconstruct x alone, and the error is the mean of theirs; a feature's q is then that
of the sum of the errors of all groups it is in. Of equal values all that are no less than the k-th are kept: a rule
that needs no order. A NaN is kept, so that it shows. Atoms have norm 1, so penalties do not multiply by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting

PENALTIES = ("step", "target", "tanh")
THRESHOLD_RATE = 0.01  # of BatchTopK's running threshold, as SAELens and the authors have it


@dataclass(frozen=True)
class Weights:
    """One dictionary's parameters: W_enc [F, D], b_enc [F], W_dec [F, D], and if it has them b_dec [D], theta [F]."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor | None = None
    theta: Tensor | None = None


class Kind:
    """How codes come from pre-activations, and what the loss has beside the error."""

    def codes(self, y: Tensor, theta: Tensor | None = None) -> Tensor:
        """Codes [B, F] of pre-activations [B, F]; zero where there is none."""
        raise NotImplementedError

    def penalty(self, y: Tensor, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """The terms of the loss beside the error."""
        del z, theta
        return y.new_zeros(())

    def backward(self, y: Tensor, z: Tensor, q: Tensor, theta: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Derivatives of the loss by y [B, F] and by theta [F], from those of the error by z, q [B, F]."""
        del y, theta
        return torch.where(z != 0, q, 0), None


@dataclass(frozen=True)
class TopK(Kind):
    """The k largest of each row (Gao et al., arXiv 2406.04093)."""

    k: int

    def codes(self, y: Tensor, theta: Tensor | None = None) -> Tensor:
        """See `Kind.codes`."""
        del theta
        return largest(y, self.k)


@dataclass(frozen=True)
class BatchTopK(Kind):
    """The k B largest of a batch (Bussmann et al., arXiv 2412.06410)."""

    k: float

    def codes(self, y: Tensor, theta: Tensor | None = None) -> Tensor:
        """See `Kind.codes`."""
        del theta
        return largest(y.flatten(), max(1, round(self.k * len(y)))).view_as(y)


@dataclass(frozen=True)
class JumpRelu(Kind):
    """Codes above a threshold that is trained by a straight-through estimator (Rajamanoharan et al., arXiv 2407.14435).

    Attributes:
        strength: lambda.
        window: w, in which a pre-activation moves its threshold.
        penalty_kind: "step": lambda times the mean L0. "target": lambda (mean L0 / `target` - 1)^2, as
            dictionary_learning has it. "tanh": lambda times the mean over rows of sum tanh(`steepness` z), Anthropic's
            of January 2025.
        target: the L0 of "target".
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
        if (self.penalty_kind == "target") != (self.target is not None):
            raise InvalidSetting("a target L0 belongs to the penalty 'target', which needs one")

    def codes(self, y: Tensor, theta: Tensor | None = None) -> Tensor:
        """See `Kind.codes`."""
        assert theta is not None
        return torch.where((y > theta) | y.isnan(), y, 0)

    def penalty(self, y: Tensor, z: Tensor, theta: Tensor | None = None) -> Tensor:
        """See `Kind.penalty`."""
        assert theta is not None
        rows, active = len(y), (y > theta).to(y).sum()
        if self.penalty_kind == "tanh":
            found = self.strength / rows * (self.steepness * z).tanh().sum()
        elif self.target is not None:
            found = self.strength * (active / (rows * self.target) - 1).square()
        else:
            found = self.strength / rows * active
        return found + self.pre_activation / rows * (theta - y).relu().sum()

    def backward(self, y: Tensor, z: Tensor, q: Tensor, theta: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """See `Kind.backward`."""
        assert theta is not None
        rows, by_l0 = len(y), 0.0
        if self.penalty_kind == "tanh":
            q = q + self.strength / rows * self.steepness * (1 - (self.steepness * z).tanh().square())
        elif self.target is not None:
            by_l0 = 2 * self.strength * (float((y > theta).sum()) / (rows * self.target) - 1) / (rows * self.target)
        else:
            by_l0 = self.strength / rows
        through = torch.where((y - theta).abs() < self.window / 2, (theta * q + by_l0) / self.window, 0)
        below = self.pre_activation / rows * (y < theta).to(y)
        dy = torch.where((y > theta) | y.isnan(), q, 0) - below
        return dy + through if self.to_input else dy, below.sum(0) - through.sum(0)


@dataclass(frozen=True)
class AuxK:
    """The loss that lets dead features explain what the others leave (Gao et al., arXiv 2406.04093, appendix A.2).

    With e = -r, which counts as a constant, and e_hat the decoding without b_dec of the `k` largest codes of dead
    features in each row: alpha |e_hat - e|^2 / |e - mean e|^2, sums over the batch. It reaches dead features alone.

    Attributes:
        alpha: its weight.
        k: codes per row; None: half of D. Never more than there are dead features.
    """

    alpha: float = 1 / 32
    k: int | None = None

    def backward(self, y: Tensor, r: Tensor, W_dec: Tensor, dead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and its derivatives by y [B, F] and W_dec [F, D].

        All are zero where no feature is dead, or where e does not vary, as with one row.

        Args:
            y: [B, F] pre-activations.
            r: [B, D] residual.
            W_dec: [F, D].
            dead: [F] bool.
        """
        dy, d_dec = torch.zeros_like(y), torch.zeros_like(W_dec)
        variation = (r - r.mean(0)).square().sum()
        if not bool(dead.any()) or not bool(variation > 0):
            return y.new_zeros(()), dy, d_dec
        z = largest(y[:, dead], self.k or max(1, W_dec.shape[1] // 2))
        gap = z @ W_dec[dead] + r
        scale = 2 * self.alpha / variation
        d_dec[dead] = scale * (z.T @ gap)
        dy[:, dead] = torch.where(z != 0, scale * (gap @ W_dec[dead].T), 0)
        return self.alpha * gap.square().sum() / variation, dy, d_dec


@torch.no_grad()
def gradients(
    kind: Kind,
    weights: Weights,
    x: Tensor,
    divisor: float,
    groups: Sequence[int] = (),
    aux: AuxK | None = None,
    dead: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one dictionary on a batch.

    Args:
        kind: of the dictionary.
        weights: its parameters.
        x: [B, D].
        divisor: what the summed squared error is divided by; see `Sweep.error_divisor`.
        groups: the ends m_1 < m_2 < ... < F of nested groups of features; none: one of all.
        aux: the loss of dead features, if any; of the residual of all features.
        dead: [F] bool, which are; needed with `aux`.

    Returns:
        The loss, and gradients by the names of the parameters that there are, before any projection.
    """
    x = x if weights.b_dec is None else x - weights.b_dec
    y = torch.nn.functional.linear(x, weights.W_enc, weights.b_enc)
    z = kind.codes(y, weights.theta)
    parts = [slice(*ends) for ends in pairwise((0, *(groups or (len(weights.b_enc),))))]
    r, residuals = -x, []
    for part in parts:
        r = r + z[:, part] @ weights.W_dec[part]
        residuals.append(r)
    loss = kind.penalty(y, z, weights.theta)
    dr, q, d_dec = torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(weights.W_dec)
    for part, own in zip(reversed(parts), reversed(residuals), strict=True):
        loss = loss + own.square().sum() / (divisor * len(parts))
        dr = dr + own * (2 / (divisor * len(parts)))
        q[:, part], d_dec[part] = dr @ weights.W_dec[part].T, z[:, part].T @ dr
    dy, d_theta = kind.backward(y, z, q, weights.theta)
    if aux is not None and dead is not None:
        more, dy_aux, d_dec_aux = aux.backward(y, r, weights.W_dec, dead)
        loss, dy, d_dec = loss + more, dy + dy_aux, d_dec + d_dec_aux
    found = {"W_enc": dy.T @ x, "b_enc": dy.sum(0), "W_dec": d_dec}
    if weights.b_dec is not None:
        found["b_dec"] = dr.sum(0) - found["b_enc"] @ weights.W_enc
    if d_theta is not None:
        found["theta"] = d_theta
    return loss, found


def largest(y: Tensor, k: int) -> Tensor:
    """Positive values of y [..., n] that are no less than the k-th largest of their row, else 0; a NaN is kept."""
    if k >= y.shape[-1]:
        return y.relu()
    floor = y.topk(k, dim=-1, sorted=True).values[..., -1:]
    return torch.where(((y >= floor) & (y > 0)) | y.isnan(), y, 0)


def next_threshold(threshold: float | None, z: Tensor, rate: float = THRESHOLD_RATE) -> float | None:
    """BatchTopK's running threshold after a batch with codes z: a moving mean of the smallest code that was kept.

    The first is taken as it is; a batch without codes changes nothing.
    """
    kept = z[z > 0]
    if not len(kept):
        return threshold
    least = float(kept.min())
    return least if threshold is None else threshold + rate * (least - threshold)
