"""Statistics of cosines: mean, share above a threshold, histogram; for all features and for live ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.mcs import best_both, mcs, unit_rows


def mmcs(a: Tensor, b: Tensor) -> float:
    """MMCS(a -> b): the mean over the atoms of a [n, d] of their largest cosine with an atom of b [m, d]."""
    return mean(mcs(a, b)[0])


def mean(values: Tensor) -> float:
    """Mean in float64; NaN if there are no values."""
    return float(values.double().mean()) if len(values) else float("nan")


def share_above(values: Tensor, threshold: float) -> float:
    """Share of values strictly above `threshold`; NaN if there are no values."""
    return float((values > threshold).double().mean()) if len(values) else float("nan")


def histogram(values: Tensor, bins: int) -> list[int]:
    """Counts in `bins` equal bins over 0 to 1: bin i holds i/bins <= v < (i+1)/bins; the last one includes 1.

    Cosines below 0 (no atom on the same side) count in the first bin, so the counts add up to all values.
    """
    place = (values.double() * bins).floor().long().clamp(0, bins - 1)
    return [int(count) for count in torch.bincount(place, minlength=bins)]


def summary(values: Tensor, live: Tensor | None, threshold: float, bins: int) -> dict[str, Any]:
    """Statistics of per-feature cosines [n] as JSON, of all features, and of live and dead ones if `live` [n] is known.

    NaN (features without a partner in a matching) is excluded from all of them and counted as `unmatched`.
    """
    known = ~torch.isnan(values)
    found: dict[str, Any] = {"unmatched": int((~known).sum()), "all": _of(values[known], threshold, bins)}
    if live is not None:
        found["live"] = _of(values[known & live], threshold, bins)
        found["dead"] = _of(values[known & ~live], threshold, bins)
    return found


def _of(values: Tensor, threshold: float, bins: int) -> dict[str, Any]:
    above = share_above(values, threshold)
    return {
        "features": len(values),
        "mean": mean(values) if len(values) else None,
        "above": int((values > threshold).sum()),
        "share_above": above if len(values) else None,
        "histogram": histogram(values, bins),
    }


def chance_mmcs(n: int, b: Tensor, seed: int = 0) -> float:
    """MMCS of up to 512 random directions with the atoms b [m, d]: what n meaningless atoms would reach.

    Each direction's maximum is independent of the others, so a sample of them estimates the mean for any n.
    """
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(min(n, 512), b.shape[1], generator=generator)
    return mean(best_both(unit_rows(random, "random"), unit_rows(b, "b"))[0].values)
