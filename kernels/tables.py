"""Where each program of a ragged launch works: tables from tiles to (dictionary, first row), built once per sweep.

No Triton here, so that the tables can be read and tested anywhere.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MIN_BLOCK = 16  # the smallest side of a tile that tl.dot takes
WORD = 32  # codes of one word of a mask


@dataclass(frozen=True)
class FeatureTiles:
    """Tiles of `height` features, none of which crosses from one dictionary into the next.

    Attributes:
        dictionary: [T] int32, whose features the tile holds.
        first: [T] int32, the tile's first row in the packed tensors.
    """

    height: int
    dictionary: Tensor
    first: Tensor

    def __len__(self) -> int:
        return self.first.numel()


@dataclass(frozen=True)
class Segments:
    """The dictionaries of a packed sweep.

    Attributes:
        offsets: [K+1] int32, dictionary k owns rows offsets[k] to offsets[k+1].
        order: [K] int32, the largest dictionary first: long programs start early, short ones fill the gaps at the end.
        words: [K+1] int32, dictionary k owns words words[k] to words[k+1] of a row's mask (lists.py).
        bounds: the same offsets as Python numbers.
        chosen: the dictionaries that a launch works on, all of them but for `only`; `order` holds no others.
    """

    offsets: Tensor
    order: Tensor
    words: Tensor
    bounds: tuple[int, ...]
    chosen: tuple[int, ...]

    @classmethod
    def of(cls, bounds: Sequence[int], device: torch.device | str) -> Segments:
        """Tables for offsets [K+1] on a device."""
        bounds = tuple(int(bound) for bound in bounds)
        words = [0]
        for start, stop in itertools.pairwise(bounds):
            words.append(words[-1] + tiles_in(stop - start, WORD))
        everyone = tuple(range(len(bounds) - 1))
        return cls(_table(bounds, device), _order(bounds, everyone, device), _table(words, device), bounds, everyone)

    def only(self, chosen: Iterable[int]) -> Segments:
        """These tables for launches that work on only some of the dictionaries."""
        chosen = tuple(sorted(chosen))
        return replace(self, order=_order(self.bounds, chosen, self.offsets.device), chosen=chosen)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def total(self) -> int:
        """N, one past the last row."""
        return self.bounds[-1]

    @property
    def word_total(self) -> int:
        """W, the words of a row's mask."""
        return sum(tiles_in(stop - start, WORD) for start, stop in itertools.pairwise(self.bounds))

    def feature_tiles(self, height: int) -> FeatureTiles:
        """The tiles of `height` features that cover every chosen dictionary."""
        tiles = [(k, row) for k in self.chosen for row in range(self.bounds[k], self.bounds[k + 1], height)]
        device = self.offsets.device
        return FeatureTiles(height, _table([k for k, _ in tiles], device), _table([row for _, row in tiles], device))


def _order(bounds: Sequence[int], chosen: Iterable[int], device: torch.device | str) -> Tensor:
    return _table(sorted(chosen, key=lambda k: bounds[k] - bounds[k + 1]), device)


def _table(values: Sequence[int], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)


def padded(dim: int) -> int:
    """The power of two that a dimension is padded to by masks: tl.arange takes nothing else."""
    return max(MIN_BLOCK, 1 << (dim - 1).bit_length())


def tiles_in(total: int, height: int) -> int:
    """How many tiles of `height` cover `total` rows."""
    return -(-total // height)


def batch_splits(feature_tiles: int, batch_tiles: int, processors: int, *, least_tiles: int = 8, most: int = 16) -> int:
    """Into how many parts the backward pass cuts the batch so that a small sweep still fills the device.

    Two programs per processor, no part shorter than `least_tiles` batch tiles (each part pays once for loading its
    weights and writing its gradients), at most `most` partial gradients to add up.
    """
    wanted = tiles_in(2 * processors, max(feature_tiles, 1))
    return max(1, min(wanted, batch_tiles // least_tiles, most))
