"""Batches in a seeded, seekable, shuffled order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import torch

from sparsecode import _core
from sparsecode.errors import InvalidArgument
from sparsecode.machine import cores
from sparsecode.store.dataset import TORCH_DTYPES, Dataset

_MOST_THREADS = 4  # beyond this, memory is the limit
WINDOW_BYTES = 256 << 20


class ActivationStream(torch.utils.data.IterableDataset[torch.Tensor]):
    """An endless iterator of batches [B, D], shuffled anew in every epoch.

    The global sequence of positions is 0, 1, 2, ...: with R rows, position p is row perm(seed, p // R)(p % R) of
    `start_row` .. `stop_row`. Batch i holds the B positions from `position` + i * B on and may cross epochs. Which rows
    a batch holds depends on nothing else: not on threads, prefetch, access or the number of ranks.

    Several ranks take turns: batch i belongs to rank i % `world_size`. `position` is where the next round starts, the
    same for all of them after the same number of batches; any world size may continue from it.

    A batch's memory is used again once no view of it is left, so keeping batches is safe and costs memory.
    As a `torch.utils.data.IterableDataset` (DataLoader with `batch_size=None`), each worker takes the turns of a rank.
    Works after fork and when sent to spawned processes.

    Args:
        dataset: what to stream.
        batch_size: B.
        seed: seed of the order, from 0 to 2^64 - 1.
        start_row, stop_row: the rows to stream; default all.
        position: where in the global sequence to begin.
        mode: `exact` permutes all rows; `windowed` permutes blocks of about 1 MiB, then rows within windows of
            `window_bytes`, and reads windows ahead, for data larger than memory; docs/format.md says how uniform that
            is.
        dtype: float32, or the type on disk to have rows as they are stored (without mean and scale).
        mean: [D], subtracted from every row, such as `dataset.statistics["mean"]`.
        scale: every value is divided by it: multiplied by float32(1 / scale), after the mean is subtracted.
        threads: threads that fill batches; from 2 on, the caller's is one of them while it waits. Default: up to 4
            cores.
        prefetch: batches filled ahead; 0 uses no threads.
        rank, world_size: which turns to take.
        window_bytes: size of a window in the windowed order; another size is another order.

    Raises:
        InvalidArgument: a setting does not fit the dataset.
        ShardCorrupt, ShardTruncated, IoFailed: from `next`, before any row of the damaged part is returned. The stream
            keeps its position, and the next call tries again.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        start_row: int = 0,
        stop_row: int | None = None,
        position: int = 0,
        mode: Literal["exact", "windowed"] = "exact",
        dtype: str = "float32",
        mean: torch.Tensor | Sequence[float] | None = None,
        scale: float = 1.0,
        threads: int | None = None,
        prefetch: int = 4,
        rank: int = 0,
        world_size: int = 1,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        if mode not in ("exact", "windowed"):
            raise InvalidArgument(f"mode must be exact or windowed, not {mode!r}")
        if dtype not in ("float32", dataset.dtype):
            raise InvalidArgument(f"dtype must be float32 or the dataset's {dataset.dtype}, not {dtype!r}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.dtype = TORCH_DTYPES[dtype]
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "start_row": start_row,
            "stop_row": dataset.rows if stop_row is None else stop_row,
            "window_bytes": window_bytes if mode == "windowed" else None,
            "raw": dtype != "float32",
            "mean": None if mean is None else _mean(dataset, mean),
            "scale": float(scale),
            "threads": threads or min(_MOST_THREADS, cores()),
            "prefetch": prefetch,
        }
        self._turns = (rank, world_size)
        self._open(position)

    def _open(self, position: int, turns: tuple[int, int] | None = None) -> None:
        rank, world_size = turns or self._turns
        for name, value in (self._settings | {"position": position, "rank": rank, "world_size": world_size}).items():
            if isinstance(value, int) and not 0 <= value < 2**64:
                raise InvalidArgument(f"{self.dataset.path}: {name} must be from 0 to 2^64 - 1, not {value}")
        self._core = _core.Stream(
            self.dataset._core, position=position, rank=rank, world_size=world_size, **self._settings
        )

    @property
    def position(self) -> int:
        """Where the next batch (with ranks: the next round) starts; pass it as `position` to continue from here."""
        return self._core.position

    @property
    def native(self) -> _core.Stream:
        """The core's own stream, for what reads it without Python in between."""
        return self._core

    def __next__(self) -> torch.Tensor:
        batch = self._core.next()
        return torch.frombuffer(batch, dtype=self.dtype).view(self.batch_size, -1)

    def next_into(self, out: torch.Tensor) -> torch.Tensor:
        """Writes the next batch into `out`, float32 [B, D] contiguous on the CPU, and returns it."""
        fits = out.dtype == torch.float32 and out.device.type == "cpu" and out.is_contiguous()
        if not fits or out.shape != (self.batch_size, self.dataset.activation_dim):
            shape = [self.batch_size, self.dataset.activation_dim]
            raise InvalidArgument(
                f"a batch needs float32 {shape}, contiguous on the CPU, not {out.dtype} {list(out.shape)}"
            )
        self._core.next_into(out.detach().view(-1).view(torch.uint8).numpy())
        return out

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            # DataLoader asks its workers in turn, so their batches come out in the global order.
            rank, world_size = self._turns
            turns = (worker.id * world_size + rank, worker.num_workers * world_size)
            self._open(self._core.position, turns)
        return self

    def close(self) -> None:
        """Ends the threads; batches taken stay valid."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # Threads cannot be sent to another process; the settings and the position can.
    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_core"]
        return state | {"position": self.position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        position = state.pop("position")
        self.__dict__.update(state)
        self._open(position)


def _mean(dataset: Dataset, mean: torch.Tensor | Sequence[float]) -> list[float]:
    values = torch.as_tensor(mean).detach().to("cpu", torch.float32).flatten()
    if not bool(torch.isfinite(values).all()):
        raise InvalidArgument(f"{dataset.path}: the mean holds NaN or infinities; no row would be a number")
    return [float(value) for value in values]
