"""Dictionaries over several processes: each holds some features, and what all of them give is added exactly.

Every dictionary is cut into C segments of features. A sum over features is that of each segment, added as a binary tree
over segments: its bits depend on C, but not on how many processes G there are, which hold runs of C/G segments each. So
C and G are powers of two, and G is at most C. Between processes goes one exchange for each dictionary and step, of the
reconstruction with two columns beside it, and one of D numbers where there is a pre-bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.world import Team, tree


@dataclass(frozen=True, eq=False)
class Split:
    """How dictionaries are cut, and who has which part of them.

    Attributes:
        segments: C.
        team: the processes that share each dictionary.

    Raises:
        InvalidSetting: C or G is no power of two, or G is larger than C.
    """

    segments: int
    team: Team

    def __post_init__(self) -> None:
        for number, what in ((self.segments, "segments"), (self.team.size, "processes")):
            if number < 1 or number & (number - 1):
                raise InvalidSetting(f"a dictionary has a power of two of {what}, not {number}")
        if self.team.size > self.segments:
            raise InvalidSetting(f"{self.segments} segments are too few for {self.team.size} processes")

    def held(self, size: int) -> slice:
        """Which features of a dictionary of `size` this process holds.

        Raises:
            InvalidSetting: they cannot be cut into as many segments of the same size.
        """
        if size % self.segments:
            raise InvalidSetting(f"{size} features are no multiple of {self.segments} segments")
        part = size // self.team.size
        return slice(self.team.rank * part, (self.team.rank + 1) * part)

    def pieces(self, size: int) -> list[tuple[int, slice]]:
        """The number of each segment that is held, and where it lies in what is held."""
        own, part = self.segments // self.team.size, size // self.segments
        return [(self.team.rank * own + i, slice(i * part, (i + 1) * part)) for i in range(own)]

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """The sum [n, m] over all segments, given those of the ones that are held."""
        return self.team.add(tree(parts))

    def union(self, own: set[int], count: int) -> set[int]:
        """The numbers below `count` that any process has."""
        flags = torch.zeros(count, 1)
        flags[list(own)] = 1
        return set(torch.nonzero(self.team.add(flags)[:, 0]).flatten().tolist())
