"""Toy data as batches to train on, made while the engine works.

Shape letters: B rows of a batch, D dimensions, G true features.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.science.toy.data import ToyData

_FRESH = 1 << 40  # number of the first draw of the evaluation: training never comes there


@dataclass(frozen=True)
class ToyBatches:
    """The draws of a generator in their order.

    Attributes:
        data: the generator.
        size: B, a multiple of the rows that share a draw.
    """

    data: ToyData
    size: int

    def sample(self, rows: int) -> Tensor:
        """See `Batches.sample`."""
        draws = range(-(-rows // self.data.settings.batch_size))
        return torch.cat([self.data.batch(draw) for draw in draws])[:rows]

    @contextmanager
    def begin(self, step: int, threads: int | None) -> Iterator[Iterator[Tensor]]:
        """See `Batches.begin`: the next batch is made while the engine works on this."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            yield self._from(step, pool)

    def _from(self, step: int, pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        ahead = pool.submit(self._make, step)
        while True:
            step += 1
            ready, ahead = ahead, pool.submit(self._make, step)
            yield ready.result()

    def _make(self, step: int) -> Tensor:
        draws = self.size // self.data.settings.batch_size
        return torch.cat([self.data.batch(step * draws + i) for i in range(draws)])

    def fresh(self, rows: int) -> tuple[Tensor, Tensor]:
        """Rows [rows, D] that training never sees, and their true codes [rows, G]."""
        draws = range(_FRESH, _FRESH - (-rows // self.data.settings.batch_size))
        codes = torch.cat([self.data.codes(draw) for draw in draws])[:rows]
        return torch.cat([self.data.batch(draw) for draw in draws])[:rows], codes
