"""Near-duplicates within a dictionary, and features of two dictionaries that are each other's nearest.

In a dictionary with many copies of a direction every copy is found again. So a count of features found again is
meaningful only for pairs that are each other's nearest, and beside the number of near-duplicates.

Shapes: n, m atoms of two dictionaries, d dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.comparison.core import nearest


def nearest_own(atoms: Tensor, *, absolute: bool = False) -> Tensor:
    """[n] the largest cosine of every atom [n, d] (unit rows) with another one; NaN if there is no other.

    >>> nearest_own(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000, 0.8000])
    """
    if len(atoms) < 2:
        return torch.full((len(atoms),), torch.nan)
    (cosine, index), _ = nearest(atoms, atoms, 2, absolute=absolute)
    # Two equal atoms are as near to each other as to themselves, so the first of the two may be either.
    own = index[:, 0] == torch.arange(len(atoms))
    return torch.where(own, cosine[:, 1], cosine[:, 0])


def mutual(there: Tensor, back: Tensor) -> Tensor:
    """[n] whether the nearest atom `there` [n] of a feature has that feature as its own nearest, by `back` [m].

    An index of -1, of an atom without a direction, is never mutual.

    >>> mutual(torch.tensor([0, 0, 1]), torch.tensor([1, 2]))
    tensor([False,  True,  True])
    """
    known = there >= 0
    return known & (back[there.long().clamp(min=0)].long() == torch.arange(len(there)))
