"""Features that are found again in other dictionaries, and the steadiest of them.

Shapes: n features of a dictionary, K dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.members import Member, Place

LISTED = 200  # steadiest features kept in the record: more than anyone reads


def stability(cosine: Tensor, own: int, threshold: float) -> Tensor:
    """[n] share of the other dictionaries with an atom above `threshold` for a feature; 0 if K = 1. cosine [n, K]."""
    others = _others(cosine, own)
    if others.shape[1] == 0:
        return torch.zeros(len(cosine))
    return (others > threshold).float().mean(dim=1)


def found_in_all(cosine: Tensor, columns: Sequence[int], threshold: float) -> Tensor | None:
    """[n] whether a feature is above `threshold` in all `columns`; None if there are none."""
    return (cosine[:, list(columns)] > threshold).all(dim=1) if columns else None


def steadiest(
    members: Sequence[Member],
    places: Sequence[Place],
    cosine: Sequence[Tensor],
    threshold: float,
    limit: int = LISTED,
) -> list[dict[str, Any]]:
    """The features found again in most other dictionaries, each direction once.

    They are live features of all dictionaries, sorted by stability, then by mean cosine over the other dictionaries. A
    feature whose cosine with an earlier one is above `threshold` is the same one and left out.
    """
    rows: list[tuple[float, float, float, int, int]] = []
    for k, member in enumerate(members):
        share = stability(cosine[k], k, threshold)
        if not bool((share > 0).any()):
            continue
        others = _others(cosine[k], k)
        chosen = torch.nonzero(member.live_or_all & (share > 0)).flatten()
        columns = (share[chosen], others[chosen].mean(dim=1), others[chosen].amin(dim=1))
        values = zip(*(column.tolist() for column in columns), chosen.tolist(), strict=True)
        rows += [(found, average, lowest, k, i) for found, average, lowest, i in values]
    rows.sort(key=lambda row: (-row[0], -row[1], row[3], row[4]))
    kept: list[dict[str, Any]] = []
    directions = torch.empty(limit, members[0].atoms.shape[1])
    for share_i, mean_i, lowest, k, i in rows:
        if len(kept) == limit:
            break
        atom = members[k].atoms[i]
        if len(kept) and float((directions[: len(kept)] @ atom).max()) > threshold:
            continue
        directions[len(kept)] = atom
        larger = found_in_all(cosine[k][i : i + 1], places[k].larger, threshold)
        density = members[k].density
        kept.append(
            {
                "dictionary": members[k].name,
                "feature": members[k].feature(i),
                "stability": share_i,
                "mean_cosine": mean_i,
                "lowest_cosine": lowest,
                "in_every_larger": None if larger is None else bool(larger[0]),
                "density": None if density is None else float(density[i]),
            }
        )
    return kept


def _others(cosine: Tensor, own: int) -> Tensor:
    return torch.cat([cosine[:, :own], cosine[:, own + 1 :]], dim=1)
