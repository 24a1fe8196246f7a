"""How well any dictionary reconstructs rows, measured through its own encoder and decoder.

Shape letters: B rows of a batch, D dimensions, n features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecode.sweep import Dictionary, metrics


def measure(dictionary: Dictionary, batches: Iterable[Tensor]) -> tuple[dict[str, Any], Tensor]:
    """Metrics over raw rows [B, D], and the density [n] of each feature.

    Returns:
        {mse: per row and dimension of raw activations, l1: mean sum of the codes, l0: mean number of active codes,
        fvu: ratio of sums, dead: features that never fired, rows}, and the density.

    Raises:
        ValueError: there is no batch.
    """
    sse = l1 = active = 0.0
    fired = torch.zeros(dictionary.dict_size, dtype=torch.int64)
    spread: metrics.Deviations | None = None
    for x in batches:
        codes = dictionary.encode(x)
        sse += float((dictionary.decode(codes) - x).double().square().sum())
        l1 += float(codes.double().sum())
        active += float((codes > 0).sum())
        fired += metrics.fired(codes)
        own = metrics.Deviations.of(x)
        spread = own if spread is None else spread + own
    if spread is None:
        raise ValueError("no rows to measure on")
    rows = spread.rows
    found = {
        "mse": sse / (rows * dictionary.activation_dim),
        "l1": l1 / rows,
        "l0": active / rows,
        "fvu": metrics.fvu(sse, spread.total),
        "dead": metrics.dead(fired),
        "rows": rows,
    }
    return found, metrics.density(fired, rows)


def fvu_of_strongest(dictionary: Dictionary, x: Tensor, counts: Sequence[int]) -> list[dict[str, Any]]:
    """FVU of rows [B, D] where each row keeps only its k largest codes, for each k of `counts`.

    For orthonormal atoms no other k codes leave less; for others these are a greedy choice.

    Returns:
        [{"codes": k, "l0": mean number of codes that were active among the kept, "fvu"}], k at most n.
    """
    spread = metrics.Deviations.of(x).total
    counts = sorted({min(k, dictionary.dict_size) for k in counts})
    values, places = dictionary.encode(x).topk(counts[-1], dim=1)
    found = []
    for k in counts:
        kept = torch.zeros(len(x), dictionary.dict_size).scatter_(1, places[:, :k], values[:, :k])
        error = float((dictionary.decode(kept) - x).double().square().sum())
        found.append({"codes": k, "l0": float((kept > 0).sum()) / len(x), "fvu": metrics.fvu(error, spread)})
    return found
