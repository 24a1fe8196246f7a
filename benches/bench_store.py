"""The activation store beside common alternatives in the same run: float16 on disk, batches of 4096 rows.

Shuffled reading (D = 32, 128, 512, 2048; 8 million rows at 128): numpy's fancy indexing of a memmap, torch.index_select
into a given tensor, and a sequential copy of as many rows, which is as fast as memory gives them. Aims: 4 times numpy,
1.1 times torch, the speed of the sequential copy; with conversion to float32 and normalisation in the same pass 6 times
numpy's `.astype` and 1.4 times torch's `.float()`; whole batches 300 times a DataLoader over a map-style dataset; the
windowed order from a cold cache 90 % of a sequential read; writing 80 % of a plain write (neither with fsync).
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sparsecode.machine import cores
from sparsecode.store import ActivationStream, Dataset, DatasetWriter

BATCH = 4096
ROWS = {32: 8_000_000, 128: 8_000_000, 512: 500_000, 2048: 125_000}
BATCHES = {32: 128, 128: 128, 512: 48, 2048: 12}  # per round: 0.02 to 0.1 s
ROUNDS = 7
HEADER = 512  # bytes before the first row of a shard


def write(path: Path, dim: int, rows: int) -> Dataset:
    """A dataset in one shard, so that the baselines can map the same file as one array."""
    piece = torch.randn(1 << 23 >> dim.bit_length(), dim, generator=torch.Generator().manual_seed(0)).half()
    settings: dict[str, Any] = {"provenance": {}, "shard_bytes": 1 << 40, "durable": False}
    with DatasetWriter(path, activation_dim=dim, dtype="float16", **settings) as writer:
        for start in range(0, rows, len(piece)):
            part = piece[: rows - start]
            writer.append(part, np.zeros(len(part), np.int32))
        return writer.finish()


class Data:
    """One dataset, mapped by everyone, and one random order."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.dim, self.rows = dim, ROWS[dim]
        self.dataset = write(folder, dim, self.rows)
        self.file = folder / "shard-00000.safetensors"
        self.order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(1))
        self.mapped_numpy, self.mapped_torch = self.map()
        self.mapped_torch.view(torch.int16).sum()  # every page touched
        self.count = BATCHES[dim]
        # Always further on, round the file: the same rows again would come from the processor's cache.
        self.indices = cycle(torch.split(self.order[: self.rows // BATCH * BATCH], BATCH))

    def map(self) -> tuple[npt.NDArray[np.float16], torch.Tensor]:
        mapped = np.memmap(self.file, np.float16, "r+", HEADER, (self.rows, self.dim))
        return mapped, torch.from_numpy(mapped)

    def index(self) -> torch.Tensor:
        """The next rows in the random order."""
        return next(self.indices)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Data]]:
    made: dict[int, Data] = {}
    base = tmp_path_factory.mktemp("store")

    def get(dim: int) -> Data:
        if dim not in made:
            made[dim] = Data(base / str(dim), dim)
        return made[dim]

    yield get
    shutil.rmtree(base)


def measure(benchmark: Any, rows: int, work: Callable[[], object], *, rounds: int = ROUNDS) -> None:
    benchmark.pedantic(work, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info |= {"rows": rows, "million_rows_per_s": rows / benchmark.stats.stats.min / 1e6}


def drop(batches: Iterable[object]) -> None:
    """Uses up an iterator, keeping nothing."""
    deque(batches, maxlen=0)


def shuffled(dim: int) -> str:
    return f"store: shuffled float16 rows of {dim}, page cache"


def converted(dim: int) -> str:
    return f"store: shuffled rows of {dim} as normalised float32, page cache"


@pytest.mark.parametrize("dim", ROWS)
@pytest.mark.parametrize(
    "who",
    ["numpy memmap[index]", "torch.index_select(out=)", "sequential copy", "sequential copy into memory", "sparsecode"],
)
def test_shuffled(benchmark: Any, data: Callable[[int], Data], dim: int, who: str) -> None:
    d = data(dim)
    benchmark.group = shuffled(dim)
    out = torch.empty(BATCH, dim, dtype=torch.float16)
    if who == "sparsecode":
        with ActivationStream(d.dataset, batch_size=BATCH, dtype="float16", threads=cores()) as stream:
            next(stream)
            measure(benchmark, d.count * BATCH, lambda: drop(next(stream) for _ in range(d.count)))
        return
    ahead = cycle(torch.split(d.mapped_torch[: d.rows // BATCH * BATCH], BATCH))
    # A copy that keeps the rows writes to memory; one into the same batch again and again, to the processor's cache.
    kept = torch.empty(d.count if "memory" in who else 0, BATCH, dim, dtype=torch.float16).zero_()
    work: dict[str, Callable[[int], object]] = {
        "numpy memmap[index]": lambda _: d.mapped_numpy[d.index().numpy()],
        "torch.index_select(out=)": lambda _: torch.index_select(d.mapped_torch, 0, d.index(), out=out),
        "sequential copy": lambda _: out.copy_(next(ahead)),
        "sequential copy into memory": lambda i: kept[i].copy_(next(ahead)),
    }
    measure(benchmark, d.count * BATCH, lambda: drop(work[who](i) for i in range(d.count)))


@pytest.mark.parametrize("dim", ROWS)
@pytest.mark.parametrize("who", ["numpy .astype", "torch .float()", "sparsecode"])
def test_converted(benchmark: Any, data: Callable[[int], Data], dim: int, who: str) -> None:
    """The baselines convert and do not even normalise."""
    d = data(dim)
    benchmark.group = converted(dim)
    if who == "sparsecode":
        settings: dict[str, Any] = {"mean": torch.ones(dim), "scale": 2.0, "threads": cores()}
        with ActivationStream(d.dataset, batch_size=BATCH, **settings) as stream:
            next(stream)
            measure(benchmark, d.count * BATCH, lambda: drop(next(stream) for _ in range(d.count)))
        return
    work: dict[str, Callable[[int], object]] = {
        "numpy .astype": lambda _: d.mapped_numpy[d.index().numpy()].astype(np.float32),
        "torch .float()": lambda _: torch.index_select(d.mapped_torch, 0, d.index()).float(),
    }
    measure(benchmark, d.count * BATCH, lambda: drop(work[who](i) for i in range(d.count)))


@pytest.mark.benchmark(group="store: first pass over a new mapping, shuffled float16 rows of 128")
@pytest.mark.parametrize(
    "who", ["numpy memmap[index]", "torch.index_select", "sparsecode, digests known", "sparsecode, digests compared"]
)
def test_first_pass(benchmark: Any, data: Callable[[int], Data], who: str) -> None:
    """Pages are in memory but not yet in the process's tables: every first touch is a fault."""
    d = data(128)
    batches = 512

    def numpy() -> None:
        mapped, _ = d.map()
        for _ in range(batches):
            mapped[d.index().numpy()]

    def with_torch() -> None:
        _, mapped = d.map()
        for _ in range(batches):
            torch.index_select(mapped, 0, d.index())

    def ours() -> None:
        verify: Literal["never", "always"] = "never" if "known" in who else "always"
        dataset = Dataset(d.dataset.path, verify=verify)
        with ActivationStream(dataset, batch_size=BATCH, dtype="float16", threads=cores()) as stream:
            for _ in range(batches):
                next(stream)

    work = {"numpy memmap[index]": numpy, "torch.index_select": with_torch}.get(who, ours)
    measure(benchmark, batches * BATCH, work, rounds=2)


class MapStyle(TorchDataset[torch.Tensor]):
    """The usual dataset for a DataLoader: one row of a memmap at a time, as float32."""

    def __init__(self, rows: npt.NDArray[np.float16]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.rows[index].astype(np.float32))


class MapStyleSafetensors(TorchDataset[torch.Tensor]):
    """Reading by the library of the file's format, which needs to know nothing of where its rows begin."""

    def __init__(self, file: Path) -> None:
        opened: Any = safe_open(file, "pt")
        self.rows = opened.get_slice("activations")

    def __len__(self) -> int:
        return int(self.rows.get_shape()[0])

    def __getitem__(self, index: int) -> torch.Tensor:
        row: torch.Tensor = self.rows[index].float()
        return row


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.benchmark(group="store: whole batches of float32 through the Python iterator, rows of 128")
@pytest.mark.parametrize(
    "who",
    [
        "DataLoader, map-style",
        "DataLoader, map-style, 2 workers",
        "DataLoader, map-style, safetensors",
        "DataLoader over sparsecode",
        "sparsecode",
    ],
)
def test_iterator(benchmark: Any, data: Callable[[int], Data], who: str) -> None:
    """Iterators run already: torch's sampler takes a while to shuffle its list of all rows, which is not counted."""
    d = data(128)
    if "map-style" in who:
        workers = 2 if "workers" in who else 0
        rows_of = MapStyleSafetensors(d.file) if "safetensors" in who else MapStyle(d.mapped_numpy)
        loader = DataLoader(rows_of, batch_size=BATCH, shuffle=True, num_workers=workers)
        rows = iter(loader)
        next(rows)
        # With workers four batches are filled ahead: the round that warms up takes them.
        measure(benchmark, 8 * BATCH, lambda: drop(islice(rows, 8)), rounds=3)
        return
    with ActivationStream(d.dataset, batch_size=BATCH, threads=cores()) as stream:
        batches = iter(DataLoader(stream, batch_size=None)) if "over" in who else iter(stream)
        next(batches)
        measure(benchmark, 256 * BATCH, lambda: drop(next(batches) for _ in range(256)))


def forget(path: Path) -> None:
    """Drops a file from the page cache. Mapped pages stay there, so no process may map it."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    with pytest.raises(BlockingIOError):  # a read that must not wait for the disk
        os.preadv(descriptor, [bytearray(4096)], path.stat().st_size // 2, os.RWF_NOWAIT)
    os.close(descriptor)


@pytest.fixture(scope="module")
def unmapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("unmapped")
    write(folder, 128, ROWS[128])
    yield folder
    shutil.rmtree(folder)


@pytest.mark.benchmark(group="store: one epoch of 2 GB from a cold cache, rows of 128")
@pytest.mark.parametrize("who", ["sequential read", "sparsecode windowed, digests compared", "sparsecode windowed"])
def test_cold(benchmark: Any, unmapped: Path, who: str) -> None:
    file = unmapped / "shard-00000.safetensors"
    buffer = bytearray(4 << 20)

    def read() -> None:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

    def windowed() -> None:
        dataset = Dataset(unmapped, verify="always" if "digests" in who else "never")
        settings: dict[str, Any] = {"mode": "windowed", "dtype": "float16", "window_bytes": 64 << 20}
        with ActivationStream(dataset, batch_size=BATCH, threads=cores(), **settings) as stream:
            for _ in range(dataset.rows // BATCH):
                next(stream)

    work = read if who == "sequential read" else windowed
    benchmark.pedantic(work, setup=lambda: forget(file), rounds=4)
    benchmark.extra_info |= {"bytes": file.stat().st_size}


WRITE_BATCHES = 128  # of 16,384 rows of 128 float16, as a harvest appends them: 512 MB
WRITE_ROWS = 16_384


@pytest.mark.benchmark(group="store: writing 512 MB, rows of 128, without fsync")
@pytest.mark.parametrize(
    "who", ["plain write", "sparsecode", "plain write of numpy .astype", "sparsecode from float32"]
)
def test_writing(benchmark: Any, tmp_path: Path, who: str) -> None:
    x = torch.randn(WRITE_ROWS, 128)
    x = x if "float32" in who or "astype" in who else x.half()
    tokens = np.zeros(WRITE_ROWS, np.int32)
    target = tmp_path / "x"

    def plain() -> None:
        with target.open("wb", buffering=0) as file:
            for _ in range(WRITE_BATCHES):
                rows: npt.NDArray[Any] = x.numpy().astype(np.float16) if "astype" in who else x.numpy()
                file.write(rows.data.cast("B"))

    def ours() -> None:
        with DatasetWriter(target, activation_dim=128, dtype="float16", provenance={}, durable=False) as writer:
            for _ in range(WRITE_BATCHES):
                writer.append(x, tokens)
            writer.finish()

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)

    benchmark.pedantic(plain if "plain" in who else ours, setup=clean, rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {"bytes": WRITE_BATCHES * WRITE_ROWS * 256}
    clean()
