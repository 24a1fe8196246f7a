"""Nonlinearities of dictionaries: codes [..., n] from pre-activations [..., n].

The sweeps of this project train `relu`; the others are read from other libraries' files. A name here is a value of
`activation` in a dictionary's JSON file, so it stays for ever.
"""

from __future__ import annotations

import torch
from torch import Tensor

# name: the settings of a dictionary that it needs, and those that it may have
ACTIVATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "relu": ((), ()),
    "jumprelu": (("threshold",), ()),
    "batchtopk": (("threshold",), ("k",)),
    "topk": (("k",), ("selection_scale",)),
    "topk_linear": (("k",), ()),
    "abstopk": (("k",), ()),
    "groupmax": (("k",), ()),
    "gated": (("r_mag", "b_mag"), ()),
}


def jumprelu(pre: Tensor, threshold: Tensor) -> Tensor:
    """What exceeds its feature's threshold [n], as it is; never below 0.

    BatchTopK is used this way after training: one threshold for all features, so that no row depends on its batch.
    """
    return pre.relu() * (pre > threshold)


def topk(pre: Tensor, k: int, selection_scale: Tensor | None = None) -> Tensor:
    """The k largest of each row, no less than 0 (Gao et al., arXiv 2406.04093), ranked after a scale [n] if given."""
    rectified = pre.relu()
    ranked = rectified if selection_scale is None else rectified * selection_scale
    return _keep(rectified, ranked.topk(k, dim=-1, sorted=False).indices)


def topk_linear(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row unchanged, even when negative."""
    return _keep(pre, pre.topk(k, dim=-1, sorted=False).indices)


def abstopk(pre: Tensor, k: int) -> Tensor:
    """The k of largest magnitude of each row, with their sign (arXiv 2510.00404)."""
    return _keep(pre, pre.abs().topk(k, dim=-1, sorted=False).indices)


def groupmax(pre: Tensor, k: int) -> Tensor:
    """The largest of each of k groups of neighbouring features, no less than 0."""
    rectified = pre.relu()
    groups = rectified.reshape(*pre.shape[:-1], k, pre.shape[-1] // k)
    kept = torch.zeros_like(groups).scatter_(-1, groups.argmax(-1, keepdim=True), groups.amax(-1, keepdim=True))
    return kept.flatten(-2)


def gated(projected: Tensor, b_gate: Tensor, r_mag: Tensor, b_mag: Tensor) -> Tensor:
    """Which features fire, and how much, decided apart (arXiv 2404.16014); `projected` is without any bias."""
    return (projected * r_mag.exp() + b_mag).relu() * (projected + b_gate > 0)


def _keep(values: Tensor, indices: Tensor) -> Tensor:
    return torch.zeros_like(values).scatter_(-1, indices, values.gather(-1, indices))
