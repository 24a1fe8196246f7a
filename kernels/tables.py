"""Where each program of a ragged launch works: tables from tiles to (dictionary, first row), built once per sweep.

No Triton here, so that the tables can be read and tested anywhere.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_BLOCK = 16  # the smallest side of a tile that tl.dot takes


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
        bounds: the same offsets as Python numbers.
    """

    offsets: Tensor
    order: Tensor
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, bounds: Sequence[int], device: torch.device | str) -> Segments:
        """Tables for offsets [K+1] on a device."""
        bounds = tuple(int(bound) for bound in bounds)
        order = sorted(range(len(bounds) - 1), key=lambda k: bounds[k] - bounds[k + 1])
        return cls(_table(bounds, device), _table(order, device), bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def total(self) -> int:
        """N, one past the last row."""
        return self.bounds[-1]

    def feature_tiles(self, height: int) -> FeatureTiles:
        """The tiles of `height` features that cover every dictionary."""
        tiles = [(k, row) for k in range(len(self)) for row in range(self.bounds[k], self.bounds[k + 1], height)]
        device = self.offsets.device
        return FeatureTiles(height, _table([k for k, _ in tiles], device), _table([row for _, row in tiles], device))


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
