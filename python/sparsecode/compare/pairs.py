"""All pairs of many dictionaries: every feature's nearest atom in every dictionary.

Shapes: K dictionaries, n features of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.compare.mcs import BLOCK, BestMatches, best_of_tiles
from sparsecode.compare.statistics import mean


@dataclass(frozen=True)
class AllPairs:
    """Column j of row k's matrices: dictionary k's features against dictionary j; against itself 1 and own index."""

    cosine: list[Tensor]  # K of [n, K] float32
    index: list[Tensor]  # K of [n, K] int64
    live_cosine: list[Tensor]  # K of [n, K]: the nearest *live* atom; -inf where a dictionary has none


def all_pairs(
    atoms: Sequence[Tensor], live: Sequence[Tensor], *, block: int = BLOCK, advance: Callable[[int], None] | None = None
) -> AllPairs:
    """MCS of every dictionary with every other, both ways, one product per pair of atoms.

    Args:
        atoms: K matrices [n, d] of unit rows.
        live: K masks [n]; features to be told apart from dead ones.
        block: atoms on a side of a tile.
        advance: called with the number of pairs of atoms that were compared since the last call.
    """
    K = len(atoms)
    cosine = [torch.ones(len(rows), K) for rows in atoms]
    index = [torch.arange(len(rows))[:, None].repeat(1, K) for rows in atoms]
    live_cosine = [torch.where(mask, 1.0, -torch.inf)[:, None].repeat(1, K) for mask in live]
    parts = [(torch.nonzero(mask).flatten(), torch.nonzero(~mask).flatten()) for mask in live]
    split = [(rows[alive], rows[dead]) for rows, (alive, dead) in zip(atoms, parts, strict=True)]
    for k in range(K):
        for j in range(k + 1, K):
            # [from k: live, dead][from j: live, dead], each (k -> j, j -> k)
            found = [[best_of_tiles(mine, theirs, block) for theirs in split[j]] for mine in split[k]]
            for side, own in enumerate(parts[k]):
                nearest = (found[side][0][0], found[side][1][0])
                _merge(cosine[k], index[k], live_cosine[k], own, parts[j], nearest, j)
            for side, own in enumerate(parts[j]):
                nearest = (found[0][side][1], found[1][side][1])
                _merge(cosine[j], index[j], live_cosine[j], own, parts[k], nearest, k)
            if advance is not None:
                advance(len(atoms[k]) * len(atoms[j]))
    return AllPairs(cosine, index, live_cosine)


def _merge(
    cosine: Tensor,
    index: Tensor,
    live_cosine: Tensor,
    own: Tensor,
    parts: tuple[Tensor, Tensor],
    nearest: tuple[BestMatches, BestMatches],
    column: int,
) -> None:
    """Nearest of a live and a dead atom; at equal cosines the lower index, as if there had been one pass."""
    (alive, dead), (live_part, dead_part) = nearest, parts
    live_index = live_part[alive.indices] if len(live_part) else alive.indices
    dead_index = dead_part[dead.indices] if len(dead_part) else dead.indices
    is_live = (alive.values > dead.values) | ((alive.values == dead.values) & (live_index < dead_index))
    cosine[own, column] = torch.maximum(alive.values, dead.values)
    index[own, column] = torch.where(is_live, live_index, dead_index)
    live_cosine[own, column] = alive.values


def mmcs_matrix(pairs: AllPairs) -> list[list[float]]:
    """[K][K]: MMCS from the row's dictionary to the column's."""
    return [[mean(values[:, j]) for j in range(values.shape[1])] for values in pairs.cosine]


def live_mmcs_matrix(pairs: AllPairs, live: Sequence[Tensor]) -> list[list[float | None]]:
    """[K][K]: the same among live features of both; None where one has none."""
    table: list[list[float | None]] = []
    for values, mask in zip(pairs.live_cosine, live, strict=True):
        row = [mean(values[mask, j]) for j in range(values.shape[1])]
        table.append([value if abs(value) < float("inf") else None for value in row])
    return table
