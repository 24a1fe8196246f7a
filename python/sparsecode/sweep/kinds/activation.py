"""What a trained dictionary of a kind computes, as `Dictionary` and its files have it."""

from __future__ import annotations

import torch

from sparsecode.dictionary import activations
from sparsecode.sweep.kinds.kind import Weights
from sparsecode.sweep.kinds.spec import KindSpec


def activation_of(kind: KindSpec, weights: Weights, threshold: float | None) -> activations.Activation:
    """The nonlinearity of a trained dictionary.

    Args:
        kind: of the dictionary.
        weights: its parameters.
        threshold: BatchTopK's; None, as before the first batch: 0.
    """
    if kind.keeps_threshold:
        assert kind.k is not None
        k = int(kind.k) if kind.k == int(kind.k) else kind.k
        return activations.BatchTopK(torch.full_like(weights.b_enc, threshold or 0.0), k)
    if kind.name == "topk":
        return activations.TopK(int(kind.k or 0))
    if kind.name == "jumprelu":
        return activations.JumpRelu(weights.own("theta"))
    if kind.name == "gated":
        return activations.Gated(weights.own("rho"), weights.own("b_mag"))
    return activations.Relu()
