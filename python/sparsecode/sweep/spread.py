"""Which process trains which dictionaries of a sweep."""

from __future__ import annotations

from collections.abc import Sequence


def owners(loads: Sequence[int], ranks: int) -> list[int]:
    """The rank of each load, so that the largest sum of a rank is small: longest first, to the rank with the least.

    At most 4/3 - 1/(3 ranks) times as large as the best (Graham 1969); of equal loads and ranks the first.

    >>> owners([64, 128, 256, 512], 2)
    [1, 1, 1, 0]
    """
    sums, found = [0] * ranks, [0] * len(loads)
    for k in sorted(range(len(loads)), key=lambda k: (-loads[k], k)):
        found[k] = min(range(ranks), key=lambda rank: (sums[rank], rank))
        sums[found[k]] += loads[k]
    return found
