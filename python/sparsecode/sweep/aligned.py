"""Rows of several datasets side by side: layers that one dictionary reads, or what a transcoder reads and writes.

Shape letters: B rows of a batch, d dimensions that are read, o that are written, R rows of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.machine import one_thread
from sparsecode.store import Dataset
from sparsecode.sweep.batches import DatasetBatches
from sparsecode.sweep.normalization import Normalization

SKIP_ROWS = 65_536  # that the linear map of a transcoder is fitted on
RIDGE = 1e-6  # of the mean variance, added to every direction


@dataclass(frozen=True, eq=False)
class Skip:
    """The linear part of a transcoder: least squares of what it writes, from what it reads.

    It is fitted once and held constant, the same for all dictionaries of a sweep, which learn what it leaves.

    Attributes:
        weight, bias: [o, d] and [o], of normalised rows.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    @one_thread()  # the same bits whatever threads there are
    def of(cls, rows: Tensor, inputs: int) -> Skip:
        """Fitted to rows [R, d + o] of both, of which `inputs` = d are read."""
        read, written = rows[:, :inputs].double(), rows[:, inputs:].double()
        means = read.mean(0), written.mean(0)
        read, written = read - means[0], written - means[1]
        moments = read.T @ read
        moments += RIDGE * moments.diagonal().mean() * torch.eye(inputs, dtype=moments.dtype)
        weight = torch.linalg.solve(moments, read.T @ written).T
        return cls(weight.float(), (means[1] - weight @ means[0]).float())

    def take(self, rows: Tensor) -> Tensor:
        """The rows [B, d + o], what it explains taken from the second part."""
        read, written = torch.split(rows, [self.weight.shape[1], len(self.bias)], dim=1)
        return torch.cat([read, written - torch.nn.functional.linear(read, self.weight, self.bias)], 1)

    def into(self, dictionary: Dictionary, scale: Tensor) -> Dictionary:
        """A transcoder that learned what this leaves, with it; `scale` [o] is of what is written."""
        bias = self.bias * scale
        b_dec = bias if dictionary.b_dec is None else dictionary.b_dec + bias
        return replace(dictionary, W_skip=self.weight * scale[:, None], b_dec=b_dec)


@dataclass(frozen=True)
class AlignedBatches:
    """Batches of aligned datasets side by side, each part on its own scale.

    Attributes:
        parts: batches of the same rows in the same order; see `store.aligned.check_aligned`.
        skip: taken from the last part, if any.
    """

    parts: tuple[DatasetBatches, ...]
    skip: Skip | None = None

    @property
    def size(self) -> int:
        """See `Batches.size`."""
        return self.parts[0].size

    @property
    def normalization(self) -> Normalization:
        """How whole rows are put on their scales."""
        widths = [part.dataset.activation_dim for part in self.parts]
        return Normalization.beside([part.normalization for part in self.parts], widths)

    def sample(self, rows: int) -> Tensor:
        """See `Batches.sample`."""
        return self._beside([part.sample(rows) for part in self.parts])

    @contextmanager
    def begin(self, step: int, threads: int | None) -> Iterator[Iterator[Tensor]]:
        """See `Batches.begin`."""
        with ExitStack() as stack:
            streams = [stack.enter_context(part.begin(step, threads)) for part in self.parts]
            yield (self._beside(rows) for rows in zip(*streams, strict=True))

    def _beside(self, rows: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(rows), 1)
        return whole if self.skip is None else self.skip.take(whole)


def chunks_beside(datasets: Sequence[Dataset], rows: int, start: int) -> Iterator[Tensor]:
    """Rows [B, D] of aligned datasets side by side as they are stored, from row `start` on, some at a time."""
    for first in range(start, datasets[0].rows, rows):
        stop = min(first + rows, datasets[0].rows)
        yield torch.cat([dataset.read(first, stop) for dataset in datasets], 1)


def layer_norms(W_dec: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Norms [n] of the part of each atom [n, D] that lies in each layer; their squares sum to 1."""
    return [part.norm(dim=1) for part in torch.split(W_dec, list(widths), dim=1)]


def effective_layers(norms: Sequence[Tensor]) -> Tensor:
    """In how many layers each atom [n] lies: 1 where all of it is in one, L where each of L holds the same.

    The participation ratio of the squared norms, 1 / sum of their squares.
    """
    return 1 / torch.stack(list(norms)).square().square().sum(0)
