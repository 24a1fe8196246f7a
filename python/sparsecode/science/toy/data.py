"""Toy data with known features: the generator of Sharkey, Braun and Millidge (2022), as the seed's code has it.

A sample is a sparse non-negative combination of `n_features` unit vectors in `dim` dimensions; which features come
together is correlated within a batch, and later features are rarer. Letters: G true features, D dimensions, B rows.

Blocks may be added that no dictionary can identify: in a subspace of r dimensions, a unit vector in a direction that is
uniformly random in every row in which the block is on. Blocks are orthogonal to each other, so that what they add has
the same variance in each of their dimensions; the features are not orthogonal to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.special import ndtr
from torch import Tensor

_DECAY = 0.99  # feature i's probability is multiplied by 0.99 ** i: the seed's exponential decay of frequency
_BLOCK_ON = 0.1  # share of rows in which a block is on: more, and the blocks are most of the variance
_EIGENVALUE_MARGIN = 1.001  # how far past its smallest eigenvalue the correlation matrix is lifted


@dataclass(frozen=True)
class ToySettings:
    """What the toy data is made of; the defaults are the seed's."""

    dim: int = 256
    n_features: int = 512
    active: float = 5.0  # expected number of active features per row, before empty rows are given one
    batch_size: int = 256
    seed: int = 0
    blocks: int = 0  # subspaces without a special basis
    block_rank: int = 12  # dimensions of each


class ToyData:
    """True features and an endless, seekable stream of batches: batch i is a pure function of (settings, i).

    On one machine: NumPy's products and decompositions round otherwise on another processor.
    """

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings
        generator = np.random.Generator(np.random.PCG64([settings.seed, 0x746F79]))  # "toy"
        directions = generator.standard_normal((settings.n_features, settings.dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.features = torch.from_numpy(directions).float()  # [G, D], unit rows
        self.correlation = correlation_matrix(settings.n_features, generator)  # [G, G]
        self._root = np.linalg.cholesky(self.correlation)
        drawn = np.random.Generator(np.random.PCG64([settings.seed, 0x626C6B]))  # "blk"
        shape = settings.blocks, settings.block_rank, settings.dim  # with orthonormal rows
        bases = np.linalg.qr(drawn.standard_normal((settings.dim, settings.blocks * settings.block_rank)))[0].T
        self.blocks = torch.from_numpy(bases.reshape(shape)).float()

    def probabilities(self, batch: int) -> npt.NDArray[np.float64]:
        """Probability [G] of each feature in the rows of one batch: mean active / G, correlated, decaying."""
        return self._probabilities(self._generator(batch))

    def codes(self, batch: int) -> Tensor:
        """True codes [B, G] of one batch: a feature is on with its probability; its value is a product of uniforms.

        A row with no active feature gets one at random, with value 1 times a uniform.
        """
        return torch.from_numpy(self._codes(batch).toarray())

    def batch(self, batch: int) -> Tensor:
        """Rows [B, D] of one batch."""
        # scipy's product is serial: the same bits whatever the number of threads, which resuming relies on.
        rows = torch.from_numpy(self._codes(batch) @ self.features.numpy())
        return rows if not len(self.blocks) else rows + self._in_blocks(batch)

    def _in_blocks(self, batch: int) -> Tensor:
        """What the blocks add to the rows [B, D] of one batch, by numpy's own sums: see `batch`."""
        settings = self.settings
        generator = np.random.Generator(np.random.PCG64([settings.seed, 0x626C6B, batch]))
        found = np.zeros((settings.batch_size, settings.dim), dtype=np.float32)
        for basis in self.blocks.numpy():
            on = generator.random((settings.batch_size, 1)) < _BLOCK_ON
            direction = generator.standard_normal((settings.batch_size, settings.block_rank))
            direction = (on * direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)
            found += np.einsum("br,rd->bd", direction, basis, optimize=False)
        return torch.from_numpy(found)

    def _codes(self, batch: int) -> csr_array:
        settings = self.settings
        B, G = settings.batch_size, settings.n_features
        generator = self._generator(batch)
        probability = self._probabilities(generator)
        active = generator.random((B, G)) <= probability
        empty = np.flatnonzero(~active.any(axis=1))
        first = np.ones(int(active.sum()) + len(empty))
        active[empty, generator.integers(0, G, len(empty))] = True
        rows, columns = np.nonzero(active)
        drawn = ~np.isin(rows, empty)  # values are drawn for active features alone; the seed draws all and masks
        first[drawn] = generator.random(int(drawn.sum()))
        values = (first * generator.random(len(first))).astype(np.float32)
        return csr_array((values, (rows, columns)), shape=(B, G))

    def batches(self, start: int = 0) -> Iterator[Tensor]:
        """Batches `start`, `start` + 1, ... without end."""
        while True:
            yield self.batch(start)
            start += 1

    def _generator(self, batch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.settings.seed, 0x746F79, batch]))

    def _probabilities(self, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        settings = self.settings
        correlated = self._root @ generator.standard_normal(settings.n_features)
        probability: npt.NDArray[np.float64] = ndtr(correlated) * _DECAY ** np.arange(settings.n_features)
        probability *= settings.active / settings.n_features / probability.mean()
        return probability


def correlation_matrix(size: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random symmetric matrix of uniform entries, its diagonal raised until it is positive definite.

    With smallest eigenvalue m < 0, 1.001 |m| is added to the diagonal: the seed's construction, which keeps the
    entries but makes the diagonal larger than 1.
    """
    uniform = generator.random((size, size))
    symmetric = (uniform + uniform.T) / 2
    smallest = np.linalg.eigvalsh(symmetric)[0]
    if smallest < 0:
        symmetric[np.diag_indices(size)] += _EIGENVALUE_MARGIN * -smallest
    return symmetric
