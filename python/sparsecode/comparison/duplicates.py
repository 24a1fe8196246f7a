"""Features that a dictionary holds several times, and features of two dictionaries that choose each other.

A dictionary with many copies of a direction finds each copy again: a count of features found again says something only
of pairs that are each other's nearest, and beside the dictionary's own near-duplicates.

Shapes: n, m atoms of two dictionaries, d dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.comparison.core import nearest


def nearest_own(atoms: Tensor, *, absolute: bool = False) -> Tensor:
    """[n] for every atom [n, d] (unit rows) the largest cosine with another of them; NaN where there is no other.

    >>> nearest_own(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000, 0.8000])
    """
    if len(atoms) < 2:
        return torch.full((len(atoms),), torch.nan)
    (cosine, index), _ = nearest(atoms, atoms, 2, absolute=absolute)
    # Two equal atoms are as near to each other as to themselves: then the first of both may be either.
    own = index[:, 0] == torch.arange(len(atoms))
    return torch.where(own, cosine[:, 1], cosine[:, 0])


def mutual(there: Tensor, back: Tensor) -> Tensor:
    """[n] whether a feature's nearest atom `there` [n] has that very feature as its own nearest: `back` [m].

    An index of -1, of an atom without a direction, is nobody's.

    >>> mutual(torch.tensor([0, 0, 1]), torch.tensor([1, 2]))
    tensor([False,  True,  True])
    """
    known = there >= 0
    return known & (back[there.long().clamp(min=0)].long() == torch.arange(len(there)))
