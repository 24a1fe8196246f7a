"""Writing a dataset in parts: shard by shard, by one process or several, in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from sparsecode import _core
from sparsecode.errors import DatasetComplete, InvalidArgument
from sparsecode.machine import cores
from sparsecode.store.dataset import Dataset
from sparsecode.store.writer import DatasetWriter

_UNKNOWN = 1 << 60  # more shards than there are


class PartWriter:
    """Makes those shards of a dataset that are one part's: of part i of n, shard j where j mod n is i.

    A shard is safe once it is complete, with a file beside it that says what it holds. The part that finds all shards
    there makes them one dataset, with the bytes that a `DatasetWriter` would have written. Parts share a folder and
    nothing else: they are made in any order, at once or one after the other, and again after a kill.

    Args:
        path, activation_dim, dtype, provenance, contexts, shard_bytes, direct: see `DatasetWriter`.
        rows: of the whole dataset; None: not known, for part 0 of 1 alone.
        shard_rows: of every shard but the last, whatever its bytes; None: as many as `shard_bytes` hold.
        part: (i, n).

    Attributes:
        shard_rows: rows of every shard but the last.
        complete: whether the dataset is.

    Raises:
        SettingsDiffer: begun with other settings; nothing is changed.
        InvalidArgument, ManifestInvalid, OutOfSpace, IoFailed: see `DatasetWriter`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        activation_dim: int,
        dtype: str,
        provenance: Mapping[str, Any],
        rows: int | None,
        contexts: bool = False,
        shard_bytes: int = 256 << 20,
        shard_rows: int | None = None,
        part: tuple[int, int] = (0, 1),
        direct: bool = False,
    ) -> None:
        if not 0 <= part[0] < part[1] or (rows is None and part[1] > 1):
            raise InvalidArgument(f"{path}: part {part[0]} of {part[1]} of {rows} rows")
        self.path, self.activation_dim, self._numbered = Path(path), activation_dim, contexts
        self._all, self._part = rows, part
        text, threads = json.dumps(dict(provenance), allow_nan=False), min(2, cores())
        self._core = _core.DatasetParts(
            self.path, activation_dim, dtype, contexts, text, shard_bytes, shard_rows, True, threads, direct
        )
        self.shard_rows = self._core.shard_rows
        self._there, self.complete = self._core.there()
        self._open: tuple[int, DatasetWriter] | None = None
        self._made = self._end = self._filled = 0

    @property
    def rows(self) -> int | None:
        """Rows of this part; None while that is not known."""
        return None if self._all is None else sum(map(self._size, filter(self._own, range(self._shards(self._all)))))

    @property
    def stored(self) -> int:
        """Rows of this part that are there."""
        return sum(self._there[shard] for shard in self._there if self._own(shard) and self._is_there(shard))

    def wanted(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The rows that this part has yet to store among `start` to `stop` of the dataset, cut at the ends of shards.

        Raises:
            DatasetComplete: the dataset was completed without them.
        """
        self._end = max(self._end, stop)
        if self._all is None and self.complete and stop > sum(self._there.values()):
            raise DatasetComplete(f"{self.path}: complete, with fewer rows; choose another folder")
        while start < stop and not self.complete:
            shard = start // self.shard_rows
            end = min(stop, (shard + 1) * self.shard_rows)
            if self._own(shard) and not self._is_there(shard):
                yield start, end
            start = end

    def append(
        self,
        row: int,
        activations: torch.Tensor,
        tokens: npt.NDArray[np.integer[Any]],
        contexts: npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Stores rows from `row` of the dataset on: a stretch that is `wanted`, the next one.

        Raises:
            RunLocked: another process makes this shard.
            NonFiniteActivation, OutOfSpace, IoFailed: see `DatasetWriter.append`.
        """
        shard = row // self.shard_rows
        if self._open is None:
            core = self._core.writer(shard)
            self._open = shard, DatasetWriter.of_shard(self.path, self.activation_dim, self._numbered, core)
            self._filled = 0
        self._open[1].append(activations, tokens, contexts)
        self._filled += len(activations)
        if row + len(activations) == shard * self.shard_rows + self._size(shard):
            self._complete()

    def finish(self, left_out: Mapping[str, int]) -> Dataset | None:
        """Makes the shards one dataset; None where some are not there yet.

        Args:
            left_out: rows of the whole dataset that were read and left out, by the reason.
        """
        if self._open is not None:
            self._complete()
        if not self.complete:
            self._there, self.complete = self._core.there()
            self._all = self._end if self._all is None else self._all
        if not self.complete and not self.missing:
            counts = {name: int(count) for name, count in left_out.items() if count}
            self.complete = self._core.gather(self._shards(self._all or 0), counts)
        return Dataset(self.path) if self.complete else None

    @property
    def missing(self) -> int:
        """Shards of the whole dataset that are not there."""
        return sum(not self._is_there(shard) for shard in range(self._shards(self._all or 0)))

    def close(self) -> None:
        """Leaves a shard that is not complete."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _own(self, shard: int) -> bool:
        return shard % self._part[1] == self._part[0]

    def _shards(self, rows: int) -> int:
        return -(-rows // self.shard_rows)

    def _size(self, shard: int) -> int:
        return self.shard_rows if self._all is None else min(self.shard_rows, self._all - shard * self.shard_rows)

    def _is_there(self, shard: int) -> bool:
        """Whether the shard is there, with as many rows as it must have."""
        return self._there.get(shard) == self._size(shard)

    def _complete(self) -> None:
        assert self._open is not None
        shard, writer = self._open
        writer.finish_shard()
        self.close()
        self._there[shard] = self._filled
        self._made += 1
        if self._made.bit_count() == 1:  # so that a reader sees what is there, and the manifest is written seldom
            self._core.gather(_UNKNOWN, {})
