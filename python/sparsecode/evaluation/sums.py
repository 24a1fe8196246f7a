"""The sums of an evaluation, in float64 over rows, so that neither batch size nor order matters.

Shape letters: R rows, D activation dimension, F features, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecode.machine import wide
from sparsecode.sweep.metrics import Deviations

_LOGITS = 1 << 24  # logits processed at once: 64 MB
_SMALL = 1e-4  # rows shorter than this are divided by 1, as in SAELens
# Densities from one in a million, two bins per factor of ten; features that never fire are counted apart.
DENSITY_EDGES = tuple(10 ** (exponent / 2) for exponent in range(-12, 1))


@dataclass
class Reconstruction:
    """Sums over rows and their reconstructions.

    Attributes:
        rows: R.
        squared_error: sum over rows and dimensions of (x_hat - x)^2.
        l0, l1: sums over rows of active codes and of the codes' absolute values.
        cosine: sum over rows of the cosine of x_hat with x, 0 where either is zero.
        l2_ratio: sum over rows of |x_hat| / |x|.
        norm_in, norm_out: sums of |x| and |x_hat|.
        norm_out_squared, product: sums of |x_hat|^2 and of x . x_hat.
        fired: [F] rows on which each feature is active.
        spread: squared deviations of the rows from their mean.
    """

    rows: int = 0
    squared_error: float = 0.0
    l0: float = 0.0
    l1: float = 0.0
    cosine: float = 0.0
    l2_ratio: float = 0.0
    norm_in: float = 0.0
    norm_out: float = 0.0
    norm_out_squared: float = 0.0
    product: float = 0.0
    fired: Tensor | None = None
    spread: Deviations | None = None
    dimensions: int = 0

    def add(self, x: Tensor, x_hat: Tensor, codes: Tensor) -> None:
        """Adds rows x and x_hat [R,D] with their codes [R,F]."""
        if not len(x):
            return
        self.rows += len(x)
        self.dimensions = x.shape[1]
        active = codes != 0
        self.l0 += int(active.sum())
        self.l1 += float(wide(codes).abs().sum())
        fired = active.sum(0).cpu()
        self.fired = fired if self.fired is None else self.fired + fired
        own = Deviations.of(x)
        self.spread = own if self.spread is None else self.spread + own
        x, x_hat = wide(x), wide(x_hat)
        norm_in, norm_out, product = x.norm(dim=1), x_hat.norm(dim=1), (x * x_hat).sum(1)
        self.squared_error += float((x_hat - x).square().sum())
        self.cosine += float(torch.where(norm_in * norm_out > 0, product / (norm_in * norm_out), 0.0).sum())
        self.l2_ratio += float((norm_out / torch.where(norm_in < _SMALL, 1.0, norm_in)).sum())
        self.norm_in += float(norm_in.sum())
        self.norm_out += float(norm_out.sum())
        self.norm_out_squared += float(norm_out.square().sum())
        self.product += float(product.sum())


@dataclass
class Predictions:
    """Sums over a changed model's predictions: their loss, and their divergence from the unchanged model's.

    Attributes:
        loss: sum of cross-entropies, in nats, over `scored` predictions.
        divergence: sum of KL(unchanged || changed), in nats, over `compared` positions.
    """

    loss: float = 0.0
    scored: int = 0
    divergence: float = 0.0
    compared: int = 0

    def add(self, logits: Tensor, clean: Tensor, targets: Tensor, score: Tensor, keep: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: [B,T,V] of the changed model.
            clean: [B,T,V] of the unchanged one.
            targets: [B,T] token to be predicted at each position.
            score: [B,T] bool, positions whose prediction counts.
            keep: [B,T] bool, positions that are compared.
        """
        score, keep, targets = (value.to(logits.device) for value in (score, keep, targets))
        self.loss += float(wide(F.cross_entropy(logits[score].float(), targets[score], reduction="none")).sum())
        self.scored += int(score.sum())
        new, old = logits[keep], clean[keep]
        step = max(1, _LOGITS // logits.shape[-1])
        for first in range(0, len(new), step):
            log_q = new[first : first + step].float().log_softmax(-1)
            log_p = old[first : first + step].float().log_softmax(-1)
            self.divergence += float(wide((log_p.exp() * (log_p - log_q)).sum(-1)).sum())
        self.compared += len(new)

    @property
    def cross_entropy(self) -> float:
        """Mean loss in nats per token; NaN where nothing was scored."""
        return self.loss / self.scored if self.scored else math.nan

    @property
    def kl(self) -> float:
        """Mean KL(unchanged || changed) in nats per position."""
        return self.divergence / self.compared if self.compared else math.nan


@dataclass
class Sums:
    """The sums of one dictionary; the clean and ablated ones are shared by all dictionaries of a hook point."""

    reconstruction: Reconstruction = field(default_factory=Reconstruction)
    spliced: Predictions = field(default_factory=Predictions)


@dataclass(frozen=True)
class DensityHistogram:
    """Features by how often they fire: `counts` between the `edges` of densities, and those that `never` do."""

    edges: list[float]
    counts: list[int]
    never: int

    @classmethod
    def of(cls, fired: Tensor, rows: int) -> DensityHistogram:
        """The histogram of features [F] that fired on so many of `rows` rows.

        A density on an edge belongs to the bin above it; a feature that fires on every row, to the last bin.
        """
        density = wide(fired) / max(rows, 1)
        edges = torch.tensor(DENSITY_EDGES, dtype=torch.float64)
        place = torch.bucketize(density[density > 0], edges[1:-1], right=True)
        counts = torch.bincount(place, minlength=len(DENSITY_EDGES) - 1)
        return cls(list(DENSITY_EDGES), counts.tolist(), int((fired == 0).sum()))
