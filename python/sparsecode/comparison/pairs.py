"""All pairs of many dictionaries: every feature's nearest atom in every dictionary.

Shapes: K dictionaries, n features of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.comparison.core import best_of_all
from sparsecode.comparison.statistics import mean


@dataclass(frozen=True)
class AllPairs:
    """Column j of matrix k compares dictionary k's features with dictionary j; with itself, 1 and the own index."""

    cosine: list[Tensor]  # K of [n, K] float32
    index: list[Tensor]  # K of [n, K] int32
    live_cosine: list[Tensor]  # K of [n, K]: the nearest *live* atom; -inf if a dictionary has none


def all_pairs(
    atoms: Sequence[Tensor],
    live: Sequence[Tensor],
    *,
    absolute: bool = False,
    advance: Callable[[int], None] | None = None,
) -> AllPairs:
    """MCS of every dictionary with every other, both ways, with one product per pair of atoms.

    Memory beside the result, which is O(N K), is O(N d) for N atoms in all.

    Args:
        atoms: K matrices [n, d] of unit rows.
        live: K masks [n] of live features.
        absolute: whether to ignore the sign of cosines.
        advance: called occasionally with the number of pairs of atoms compared since the last call.
    """
    sizes = [len(rows) for rows in atoms]
    cosine, index, live_cosine = best_of_all(atoms, live, absolute=absolute, advance=advance)
    assert live_cosine is not None
    cosines, indices, live_cosines = (
        [part.T for part in torch.split(values, sizes, dim=1)] for values in (cosine, index, live_cosine)
    )
    return AllPairs(cosines, indices, live_cosines)


def mmcs_matrix(pairs: AllPairs) -> list[list[float]]:
    """[K][K]: MMCS from the row's dictionary to the column's."""
    return [[mean(values[:, j]) for j in range(values.shape[1])] for values in pairs.cosine]


def live_mmcs_matrix(pairs: AllPairs, live: Sequence[Tensor]) -> list[list[float | None]]:
    """[K][K]: MMCS among live features of both; None where one has none."""
    table: list[list[float | None]] = []
    for values, mask in zip(pairs.live_cosine, live, strict=True):
        row = [mean(values[mask, j]) for j in range(values.shape[1])]
        table.append([value if abs(value) < float("inf") else None for value in row])
    return table
