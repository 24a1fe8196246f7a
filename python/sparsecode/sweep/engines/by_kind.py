"""One dictionary of any kind on a batch: what the engines share that compute with torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.sweep.kinds import Pass, forward_and_back
from sparsecode.sweep.kinds.kind import EXACT, Products
from sparsecode.sweep.kinds.loss import encoded
from sparsecode.sweep.sweep import Sweep


def both_ways(sweep: Sweep, k: int, x: Tensor, step: int, l1_factor: float = 1.0, products: Products = EXACT) -> Pass:
    """Codes and gradients of dictionary k on rows [B, D] at a step, counted from 0."""
    spec, kind, weights = sweep.kinds[k], sweep.kind(k, step, l1_factor), sweep.weights(k)
    divisor, dead = sweep.error_divisor(x.shape[0]), sweep.state.dead(k, sweep.rows(k))
    return forward_and_back(kind, weights, x, divisor, spec.ends(sweep.sizes[k]), spec.auxiliary(), dead, products)


def used(sweep: Sweep, k: int, x: Tensor, products: Products = EXACT) -> tuple[Tensor, Tensor]:
    """Codes [B, F] and residual [B, D] of dictionary k as it is used after the training: BatchTopK by its threshold."""
    spec, weights = sweep.kinds[k], sweep.weights(k)
    x, y = encoded(weights, x, products)
    if spec.keeps_threshold:
        threshold = sweep.state.threshold_of(k) or 0.0
        z = torch.where((y > threshold) | y.isnan(), y.relu(), 0)
    else:
        z = sweep.kind(k, sweep.step).codes(y, weights)
    return z, products.of(z, weights.W_dec) - x
