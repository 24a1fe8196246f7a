"""Where the rows of a training come from: a dataset on disk, a tensor, or batches that somebody gives.

Shape letters: B rows of a batch, D activation dimension, R rows of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.errors import InvalidArgument
from sparsecode.store import ActivationStream, Dataset
from sparsecode.sweep.normalization import Normalization

Array = npt.NDArray[Any]
Data = Tensor | Array | Dataset | Iterable[Tensor | Array]

Order = Literal["exact", "windowed"]  # of rows; see `ActivationStream`

_MOST_HELD_OUT = 4  # at least three quarters of little data are trained on


def rows_held_out(wanted: int, rows: int) -> int:
    """How many of `rows` rows are kept for the final metrics: as many as wanted, but at most a quarter."""
    return min(wanted, rows // _MOST_HELD_OUT)


class Batches(Protocol):
    """Normalised rows, batch after batch, in an order of their own."""

    @property
    def size(self) -> int:
        """B, the rows of a batch."""

    def sample(self, rows: int) -> Tensor:
        """The first [rows, D] of the order, or as many as there are; they do not depend on the size of a batch."""

    def begin(self, step: int, threads: int | None) -> AbstractContextManager[Iterator[Tensor]]:
        """The batches [B, D] from number `step` on; `threads` may make them ready ahead (None: as many as fit)."""


@dataclass(frozen=True)
class DatasetBatches:
    """The first rows of a dataset, shuffled anew in every epoch.

    Attributes:
        dataset: where they are.
        size: B.
        stop_row: how many rows are used, from the first on.
        normalization: what is done to them.
        seed: of the order.
        order: see `ActivationStream.mode`.
    """

    dataset: Dataset
    size: int
    stop_row: int
    normalization: Normalization
    seed: int = 0
    order: Order = "exact"

    def sample(self, rows: int) -> Tensor:
        """See `Batches.sample`."""
        with self._stream(min(rows, self.stop_row), 0, 1) as stream:
            return next(stream).clone()

    def begin(self, step: int, threads: int | None) -> ActivationStream:
        """See `Batches.begin`."""
        return self._stream(self.size, step * self.size, threads)

    def _stream(self, size: int, position: int, threads: int | None) -> ActivationStream:
        return ActivationStream(
            self.dataset,
            batch_size=size,
            seed=self.seed,
            stop_row=self.stop_row,
            position=position,
            mode=self.order,
            mean=self.normalization.mean,
            scale=float(self.normalization.scale),
            threads=threads,
        )


@dataclass(frozen=True, eq=False)
class TensorBatches:
    """The rows of a tensor, shuffled anew in every epoch.

    Attributes:
        x: [R, D] float32 on the CPU.
        size: B.
        normalization: what is done to the rows.
        seed: of the order.
    """

    x: Tensor
    size: int
    normalization: Normalization
    seed: int = 0

    def sample(self, rows: int) -> Tensor:
        """See `Batches.sample`."""
        return self._rows(self._order(0)[:rows])

    @contextmanager
    def begin(self, step: int, threads: int | None) -> Iterator[Iterator[Tensor]]:
        """See `Batches.begin`."""
        yield self._from(step * self.size)

    def _from(self, position: int) -> Iterator[Tensor]:
        epoch, first = divmod(position, len(self.x))
        waiting = self._order(epoch)[first:]
        while True:
            while len(waiting) < self.size:
                epoch += 1
                waiting = torch.cat([waiting, self._order(epoch)])
            taken, waiting = waiting[: self.size], waiting[self.size :]
            yield self._rows(taken)

    def _rows(self, numbers: Tensor) -> Tensor:
        return self.normalization.apply(self.x[numbers]).contiguous()

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        return torch.randperm(len(self.x), generator=generator)


class GivenBatches:
    """Batches that come once, as somebody gives them.

    The first `held_out` rows are kept and never trained on. The rows after them, as many as a start looks at, are kept
    as well: they decide the normalisation, and are trained on first.

    Args:
        batches: [B, D] each, of equal size and any float type.
        normalize: "center", "rms" or "none".
        sample: how many rows decide the normalisation.
        held_out: how many rows are kept for the final metrics.

    Attributes:
        size: B.
        normalization: what is done to the rows.
        held_out: [rows, D] as they came.

    Raises:
        InvalidArgument: there are too few batches, or a value that is not finite.
        DatasetUnfit: the first rows are all the same.
    """

    def __init__(self, batches: Iterator[Tensor | Array], normalize: str, sample: int, held_out: int) -> None:
        rows = map(matrix, batches)
        self.held_out = _taken(rows, held_out)
        first = _taken(rows, sample)
        if not first:
            raise InvalidArgument("there are too few batches to train on")
        self.size = len(first[0])
        self.first = torch.cat(first)
        self.normalization = Normalization.of(statistics(self.first), normalize)
        self._all = chain(first, rows)

    def sample(self, rows: int) -> Tensor:
        """See `Batches.sample`."""
        return self.normalization.apply(self.first[:rows]).contiguous()

    @contextmanager
    def begin(self, step: int, threads: int | None) -> Iterator[Iterator[Tensor]]:
        """See `Batches.begin`; from the first batch alone."""
        if step:
            raise InvalidArgument("batches that come once cannot be taken up in their middle")
        yield (self.normalization.apply(batch).contiguous() for batch in self._all)


def _taken(batches: Iterator[Tensor], rows: int) -> list[Tensor]:
    """The next batches, until there are so many rows."""
    taken: list[Tensor] = []
    while sum(map(len, taken)) < rows and (batch := next(batches, None)) is not None:
        taken.append(batch)
    return taken


def matrix(x: Tensor | Array) -> Tensor:
    """Activations [..., D] as rows [R, D], float32 on the CPU.

    Raises:
        InvalidArgument: they are no numbers with a fraction, or have no width.
    """
    found = torch.as_tensor(x).detach()
    if found.ndim < 2 or not found.is_floating_point():
        raise InvalidArgument(f"activations must be floats [..., width], not {found.dtype} {list(found.shape)}")
    return found.reshape(-1, found.shape[-1]).to("cpu", torch.float32)


def chunks(x: Data, rows: int = 4096, start: int = 0) -> Iterator[Tensor]:
    """Rows of a tensor, an array or a dataset (of it from row `start`), some at a time, or of batches as they are:
    float32 [B, D].
    """
    if isinstance(x, Dataset):
        for first in range(start, x.rows, rows):
            yield x.read(first, min(first + rows, x.rows))
    elif isinstance(x, Tensor | np.ndarray):
        yield from torch.split(matrix(x), rows)
    else:
        yield from map(matrix, x)


def statistics(x: Tensor) -> dict[str, Any]:
    """Mean [D], variance (per value) and rms of rows [R, D], as a dataset has them.

    Raises:
        InvalidArgument: a value that is not finite.
    """
    x = x.double()
    mean = x.mean(0)
    variance, rms = float((x - mean).square().mean()), float(x.square().mean().sqrt())
    if not (math.isfinite(variance) and math.isfinite(rms)):
        raise InvalidArgument("the rows hold NaN or infinities")
    return {"mean": mean, "variance": variance, "rms": rms}
