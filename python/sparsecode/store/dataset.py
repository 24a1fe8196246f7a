"""Opening a dataset and reading rows in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sparsecode import _core
from sparsecode.errors import InvalidArgument
from sparsecode.machine import cores
from sparsecode.store.contexts import RowContexts, every_context

TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

Access = Literal["mmap", "pread"]
Verify = Literal["once", "always", "never"]


@dataclass(frozen=True)
class Shard:
    """One file of a dataset, as the manifest lists it."""

    file: str
    rows: int
    bytes: int
    digest: str


class Dataset:
    """A dataset on disk: `rows` activations of width D = `activation_dim`, each with the token it belongs to.

    Opening checks the manifest and every shard's length and header; the digests of rows are compared when they are
    first read. Nothing is written, so a read-only folder is enough.

    Args:
        path: the dataset's folder.
        access: `mmap` reads from mappings, fast; `pread` reads with system calls, slower, but a file truncated during a
            read is an error and never a crash (see docs/reliability.md).
        verify: compare digests of what is read `once` per process, `always`, or `never`.

    Raises:
        DatasetMissing, FormatTooNew, ManifestInvalid, InvalidName: the manifest cannot be used.
        ShardMissing, ShardTruncated, ShardCorrupt, HeaderInvalid: a shard is not what the manifest says.
    """

    def __init__(self, path: str | Path, *, access: Access = "mmap", verify: Verify = "once") -> None:
        self.path = Path(path)
        self.access: Access = access
        self.verify_mode: Verify = verify
        self._core = _core.Dataset(self.path, access, verify)
        self._digest = self.fingerprint

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return self._core.rows

    @property
    def activation_dim(self) -> int:
        """Width D of a row."""
        return self._core.activation_dim

    @property
    def dtype(self) -> str:
        """Type on disk: float16, bfloat16 or float32."""
        return self._core.dtype

    @property
    def complete(self) -> bool:
        """Whether its writer finished it."""
        return self._core.complete

    @property
    def shard_bytes(self) -> int:
        """Bytes of rows in a full shard; a writer given this makes shards with the same number of rows."""
        beside = 8 if self._core.has_contexts else 4
        return self._core.shard_rows * (self.activation_dim * TORCH_DTYPES[self.dtype].itemsize + beside)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that depend on every row and on the provenance."""
        return self._core.fingerprint

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance that the writer was given."""
        return dict(json.loads(self._core.provenance))

    @property
    def statistics(self) -> dict[str, Any]:
        """Statistics of the stored rows: {"mean" [D], "rms", "variance", "non_finite"}.

        variance is the mean over rows and dimensions of (x - mean of its dimension)^2; non_finite counts dropped rows.
        """
        rms, variance, non_finite = self._core.spread
        return {"mean": self._core.mean, "rms": rms, "variance": variance, "non_finite": non_finite}

    @property
    def left_out(self) -> dict[str, int]:
        """Rows that the harvest read and left out, by reason: special, padding, unknown."""
        return dict(self._core.left_out)

    @property
    def contexts_known(self) -> bool:
        """Whether the dataset says which rows belong to one context."""
        return self._contexts.known

    @property
    def contexts_stored(self) -> bool:
        """Whether the shards hold the number of each row's context; else all have `provenance["context"]` rows."""
        return self._core.has_contexts

    def context_of(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Context numbers [n] of given rows [n], in any order; numbers never decrease from row to row.

        Raises:
            ContextsUnknown: the dataset does not say.
            InvalidArgument: there are no such rows.
            ShardCorrupt, ShardTruncated: see `read`.
        """
        return self._contexts.of(rows)

    def context_bounds(self, row: int) -> tuple[int, int]:
        """The first row of the context that `row` belongs to, and the row after its last.

        Raises:
            ContextsUnknown, InvalidArgument, ShardCorrupt, ShardTruncated: as `context_of`.
        """
        return self._contexts.bounds(row)

    def contexts(self) -> Iterator[npt.NDArray[np.int64]]:
        """All contexts in the order of their rows, in pieces [n, 3]: number, first row, row after the last.

        Raises:
            ContextsUnknown, ShardCorrupt, ShardTruncated: as `context_of`.
        """
        return self._contexts.each()

    @cached_property
    def _contexts(self) -> RowContexts:
        stored = self._core.has_contexts
        every = None if stored else every_context(self.provenance, self.statistics["non_finite"])
        return RowContexts(self.path, self._core, self.rows, every)

    @property
    def shards(self) -> list[Shard]:
        """The files, in order."""
        return [Shard(*entry) for entry in self._core.shards]

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Rows `start` .. `stop` as float32 [stop - start, D].

        Raises:
            InvalidArgument: there are no such rows.
            ShardCorrupt, ShardTruncated: their bytes are not the ones that were written.
        """
        out = torch.empty((self._count(start, stop), self.activation_dim), dtype=torch.float32)
        self._core.read_into(start, stop, as_bytes(out), False)
        return out

    def read_stored(self, start: int, stop: int) -> torch.Tensor:
        """Rows `start` .. `stop` in the type on disk; raises as `read` does."""
        out = torch.empty((self._count(start, stop), self.activation_dim), dtype=TORCH_DTYPES[self.dtype])
        self._core.read_into(start, stop, as_bytes(out), True)
        return out

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """The tokens of rows `start` .. `stop`, int32 [stop - start]."""
        out = np.empty(self._count(start, stop), dtype=np.int32)
        self._core.tokens_into(start, stop, out.view(np.uint8))
        return out

    def verify(self, threads: int | None = None) -> list[str]:
        """Compares the digests of all rows again: the file names of bad shards, none if all is well."""
        return [file for file, _ in self.damage(threads)]

    def damage(self, threads: int | None = None) -> list[tuple[str, str]]:
        """Compares the digests of all rows again: (file name, message) of each bad shard."""
        return self._core.bad_shards(threads or cores())

    def _count(self, start: int, stop: int) -> int:
        if not 0 <= start <= stop <= self.rows:
            raise InvalidArgument(f"{self.path}: rows {start} to {stop} do not exist; there are {self.rows}")
        return stop - start

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        state = "" if self.complete else ", incomplete"
        return f"Dataset({str(self.path)!r}, {self.rows} rows of {self.activation_dim} {self.dtype}{state})"

    # A spawned worker opens the folder for itself; mappings cannot be sent.
    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "access": self.access, "verify": self.verify_mode, "fingerprint": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], access=state["access"], verify=state["verify"])  # type: ignore[misc]
        if self.fingerprint != state["fingerprint"]:
            raise InvalidArgument(f"{self.path}: the dataset changed since it was opened; open it again")


def dataset_damage(path: str | Path, threads: int | None = None) -> list[tuple[str, str]]:
    """(file name, message) of every damaged shard, even if the dataset cannot be opened.

    Raises:
        DatasetMissing, ShardCorrupt, FormatTooNew, ManifestInvalid, InvalidName: the manifest itself cannot be used.
    """
    return _core.dataset_damage(Path(path), threads or cores())


def read_header(path: str | Path) -> tuple[int, int, str]:
    """Checks the header of one shard file by itself: (rows, activation_dim, dtype).

    Raises:
        HeaderInvalid: the header is invalid; its subclass says how.
        ShardTruncated, ShardCorrupt, ShardMissing: the file is damaged or missing.
    """
    return _core.read_shard_header(Path(path))


def as_bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """A contiguous CPU tensor's memory as bytes, not copied."""
    flat = tensor.detach().reshape(-1)
    view: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return view
