"""Writing a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from sparsecode import _core
from sparsecode.errors import InvalidArgument
from sparsecode.machine import cores
from sparsecode.store.dataset import TORCH_DTYPES, Dataset, as_bytes

_NAMES = {torch_dtype: name for name, torch_dtype in TORCH_DTYPES.items()}


class DatasetWriter:
    """The only writer of a dataset; opened with the settings of an incomplete one, it continues where that stopped.

    Rows are safe once their shard is complete: `rows` of them. Later rows are lost when the process dies, so a program
    that resumes appends again from row `rows` on.

    Args:
        path: folder of the dataset; made if missing.
        activation_dim: width D of a row.
        dtype: type on disk: float16, bfloat16 or float32.
        provenance: where the rows come from: names and JSON values. Another provenance is another dataset. `context` is
            the number of rows of every context, the last one's perhaps fewer, where all have the same.
        contexts: rows come with the number of their context, for contexts that differ in their numbers of rows.
        shard_bytes: approximate size of a shard file.
        non_finite: what to do with a row that holds NaN or infinities (or a value too large for `dtype`): `error`, or
            `drop` it and count it.
        durable: whether rows survive a power failure (fsync), or only a crash of the process, for data that is cheap to
            make.
        threads: 1, or 2 to write and digest at the same time; default 2 where there are two cores.
        direct: write past the page cache, from a thread that hardly uses the processor, as long as the disk keeps up;
            the rows are then not in memory for the next reader.

    Raises:
        RunLocked: another process writes here.
        SettingsDiffer: begun with other settings.
        InvalidArgument: settings that no dataset can have.
        ManifestInvalid: the folder's manifest is damaged.
        OutOfSpace, IoFailed: the folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        activation_dim: int,
        dtype: str,
        provenance: Mapping[str, Any],
        contexts: bool = False,
        shard_bytes: int = 256 << 20,
        non_finite: Literal["error", "drop"] = "error",
        durable: bool = True,
        threads: int | None = None,
        direct: bool = False,
    ) -> None:
        self.path = Path(path)
        self.activation_dim = activation_dim
        self._numbered = contexts
        if activation_dim < 1 or shard_bytes < 1:
            raise InvalidArgument(
                f"{path}: activation_dim {activation_dim} and shard_bytes {shard_bytes} must be at least 1"
            )
        try:
            text = json.dumps(dict(provenance), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{path}: provenance must be JSON values ({error})") from error
        self._core = _core.DatasetWriter(
            self.path,
            activation_dim,
            dtype,
            contexts,
            text,
            shard_bytes,
            non_finite,
            durable,
            threads or min(2, cores()),
            direct,
        )
        self._rows = self._core.rows
        self._consumed = self._core.consumed

    @classmethod
    def of_shard(cls, path: Path, activation_dim: int, contexts: bool, core: _core.DatasetWriter) -> Self:
        """The writer of one shard of a dataset that is written in parts, which is complete where it is full."""
        writer = cls.__new__(cls)
        writer.path, writer.activation_dim, writer._numbered = path, activation_dim, contexts
        writer._core, writer._rows, writer._consumed = core, 0, 0
        return writer

    def finish_shard(self) -> None:
        """Completes the shard of `of_shard` where it is not full."""
        if not self._rows:
            self._core.finish()

    @property
    def rows(self) -> int:
        """Rows in complete shards, safe on disk: where to continue after an interruption."""
        return self._rows

    @property
    def consumed(self) -> int:
        """Rows appended up to the end of the last complete shard, dropped ones included."""
        return self._consumed

    def append(
        self,
        activations: torch.Tensor,
        tokens: torch.Tensor | npt.NDArray[np.integer[Any]],
        contexts: torch.Tensor | npt.NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Appends rows, without copying them if they have the type on disk.

        Args:
            activations: [R, D], any float type, any device.
            tokens: [R], the token each row belongs to, below 2^31.
            contexts: [R], the number of the context each row belongs to, from 0 to 2^31 - 1 and never falling; with
                `contexts=True` only.

        Raises:
            NonFiniteActivation: NaN or infinities; nothing of this batch is appended.
            InvalidArgument: shapes or types do not fit.
            DatasetComplete: the dataset is complete already.
            OutOfSpace, IoFailed: open the writer again; it continues after the last complete shard.
        """
        given: Any = activations  # a notebook is not type checked
        if not isinstance(given, torch.Tensor):
            kind = type(given).__name__
            raise InvalidArgument(f"{self.path}: activations must be a tensor, not {kind}; torch.as_tensor makes one")
        if activations.ndim != 2 or activations.shape[1] != self.activation_dim:
            shape = list(activations.shape)
            raise InvalidArgument(f"{self.path}: activations must be [R, {self.activation_dim}], not {shape}")
        if activations.dtype not in _NAMES:
            if not activations.dtype.is_floating_point:
                raise InvalidArgument(f"{self.path}: activations must be floating point, not {activations.dtype}")
            activations = activations.to(torch.float32)
        activations = activations.detach().cpu().contiguous()
        ids = _int32(self.path, "tokens", tokens, len(activations))
        numbers = self._numbers(contexts, len(activations))
        self._core.append(as_bytes(activations), _NAMES[activations.dtype], ids.view(np.uint8), numbers.view(np.uint8))
        self._rows, self._consumed = self._core.rows, self._core.consumed

    def _numbers(
        self, contexts: torch.Tensor | npt.NDArray[np.integer[Any]] | None, rows: int
    ) -> npt.NDArray[np.int32]:
        if (contexts is not None) != self._numbered:
            given = (
                "numbers of contexts, but opened without contexts=True"
                if contexts is not None
                else "no numbers of contexts"
            )
            raise InvalidArgument(f"{self.path}: append was given {given}; all rows have them, or none has")
        if contexts is None:
            return np.empty(0, np.int32)
        numbers = _int32(self.path, "contexts", contexts, rows)
        if rows and (int(numbers[0]) < 0 or bool((np.diff(numbers) < 0).any())):
            raise InvalidArgument(f"{self.path}: numbers of contexts must be at least 0 and never fall")
        return numbers

    def note_left_out(self, counts: Mapping[str, int]) -> None:
        """Sets how many rows of the whole dataset were read and left out, by reason; `finish` writes it.

        This replaces earlier numbers: a program that resumes counts from the first row on again.
        """
        self._core.note_left_out({name: int(count) for name, count in counts.items() if count})

    def count_dropped(self, rows: int) -> None:
        """Counts rows that were dropped for NaN or infinities before they came here."""
        self._core.count_dropped(rows)

    def finish(self) -> Dataset:
        """Writes the remaining rows, marks the dataset complete and opens it.

        Raises:
            OutOfSpace, IoFailed: it stays incomplete.
        """
        self._core.finish()
        dataset = Dataset(self.path)
        self._rows = dataset.rows
        return dataset

    def close(self) -> None:
        """Leaves the dataset as it is, incomplete unless `finish` was called; another writer may continue it."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _int32(
    path: Path, name: str, values: torch.Tensor | npt.NDArray[np.integer[Any]], rows: int
) -> npt.NDArray[np.int32]:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise InvalidArgument(f"{path}: {name} must be integers [{rows}], not {array.dtype} {list(array.shape)}")
    if array.dtype.itemsize > 2 and array.size and array.dtype != np.int32:
        low, high = int(array.min()), int(array.max())
        if low < -(2**31) or high >= 2**31:
            raise InvalidArgument(f"{path}: {name} from {low} to {high} do not fit int32")
    return np.ascontiguousarray(array, dtype=np.int32)
