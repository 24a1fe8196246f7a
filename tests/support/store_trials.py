"""Trials behind the store's promises: `tests/store/` runs each in its fast form, `soak/soak_store.py` in full."""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from sparsecode.errors import OutOfSpace, ShardCorrupt
from sparsecode.store import ActivationStream, Dataset, DatasetWriter

DIM = 8
ROWS = 4000
SETTINGS: dict[str, Any] = {
    "activation_dim": DIM,
    "dtype": "float16",
    "provenance": {"hook_point": "blocks.2.mlp.hook_post", "seed": 0},
    "shard_bytes": 500 * (DIM * 2 + 4),
}


def rows(start: int, stop: int) -> torch.Tensor:
    """Rows of a fixed sequence."""
    return (torch.arange(start * DIM, stop * DIM) % 2039).view(-1, DIM).half() / 16


def write_all(path: Path, *, total: int = ROWS, pause: float = 0.0) -> Dataset:
    """Writes `total` rows in batches of 64, or continues to."""
    with DatasetWriter(path, **SETTINGS) as writer:
        start = writer.rows
        while start < total:
            stop = min(start + 64, total)
            writer.append(rows(start, stop), torch.arange(start, stop))
            start = stop
            if pause:
                time.sleep(pause)
        return writer.finish()


ACCESS: list[Literal["mmap", "pread"]] = ["mmap", "pread"]


def write_small(path: Path, *, n: int = 50, seed: int = 0, shard_rows: int = 20) -> Dataset:
    """A dataset of n random rows of width 3, a few hundred bytes a shard."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    settings: dict[str, Any] = {"provenance": {"seed": 0}, "shard_bytes": shard_rows * 10, "durable": False}
    with DatasetWriter(path, activation_dim=3, dtype="float16", **settings) as writer:
        writer.append(x, torch.arange(n))
        return writer.finish()


def contents(path: Path) -> dict[str, str]:
    """Digest of every file in a folder."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked child; its process id. The child ends with status 0, or 1 after an exception.

    One that hangs is killed after two minutes.
    """
    child = os.fork()
    if child == 0:
        status = 1
        signal.alarm(120)
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def flip_bits(folder: Path, count: int, seed: int) -> int:
    """Flips single bits in a dataset's files and expects ShardCorrupt before a row each time; returns flips noticed."""
    files = sorted(folder.iterdir())
    chosen = random.Random(seed)
    noticed = 0
    for trial in range(count):
        file = files[chosen.randrange(len(files))]
        whole = file.read_bytes()
        bit = chosen.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            with ActivationStream(Dataset(folder, access=ACCESS[trial % 2]), batch_size=4, prefetch=0) as stream:
                next(stream)
        except ShardCorrupt:
            noticed += 1
        file.write_bytes(whole)
    return noticed


def kill_writers(folder: Path, kills: int, seed: int) -> int:
    """Writes datasets by a process that is killed (SIGKILL) at random moments and restarted; returns the kills.

    Each finished dataset must hold the same bytes as an unbroken one, and nothing else.
    """
    write_all(folder / "whole")
    expected = contents(folder / "whole")
    chosen = random.Random(seed)
    struck = 0
    dataset = 0
    while struck < kills:
        path = folder / f"killed-{dataset}"
        dataset += 1
        while True:
            child = in_child(lambda path=path: write_all(path, pause=0.0003))  # type: ignore[misc]
            time.sleep(chosen.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                struck += 1
                if (path / "manifest.json").exists():
                    seen = Dataset(path)
                    assert seen.verify() == [] and seen.complete <= (seen.rows == ROWS)
            else:
                assert os.WEXITSTATUS(status) == 0
            if struck >= kills:
                write_all(path)
            if (path / "manifest.json").exists() and Dataset(path).complete:
                write_all(path)  # opening a complete one removes a lock that a kill left
                break
        assert contents(path) == expected, path
    return struck


def kill_readers(folder: Path, readers: int, batches: int) -> list[str]:
    """Lets `readers` processes stream at once and kills one of them; returns the digests of the rest."""
    dataset = write_all(folder / "read")

    def read(out: Path) -> None:
        digest = hashlib.sha256()
        with ActivationStream(Dataset(dataset.path), batch_size=64, seed=9, prefetch=3) as stream:
            for _ in range(batches):
                digest.update(next(stream).numpy().tobytes())
        out.write_text(digest.hexdigest())

    children = [in_child(lambda i=i: read(folder / f"digest-{i}")) for i in range(readers)]  # type: ignore[misc]
    time.sleep(0.02)
    os.kill(children[0], signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return [(folder / f"digest-{i}").read_text() for i in range(1, readers)]


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, resource.RLIM_INFINITY))


def fill_disk(
    folder: Path, *, limit: Callable[[], None] = _small_files, relieve: Callable[[], object] = bool
) -> tuple[int, int]:
    """Writes where there is no room; returns (rows that were safe, rows after resuming with room).

    `limit` is called in the child before it writes; default: files may hold 4 KB only, of 10.6 needed. `relieve` is
    called before the writer goes on.
    """

    def write() -> None:
        limit()
        try:
            write_all(folder)
        except OutOfSpace:
            return
        raise AssertionError("there was room")

    _, status = os.waitpid(in_child(write), 0)
    assert os.WEXITSTATUS(status) == 0
    seen = Dataset(folder)
    assert not seen.complete and seen.verify() == []
    left = {file.name for file in folder.iterdir()} - {".lock", "manifest.json", *(s.file for s in seen.shards)}
    assert not left, left
    relieve()
    return seen.rows, write_all(folder).rows


def io_steps(folder: Path) -> list[tuple[str, str]]:
    """(system call, file) of every fsync and rename while a dataset is written, from strace."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from store_trials import write_all
        write_all(Path({str(folder)!r}), total=1200)
    """
    log = folder.parent / "strace"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,fdatasync,rename,renameat,renameat2"]
    subprocess.run([*command, sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
    steps = []
    for line in log.read_text().splitlines():
        if sync := re.search(r"f(?:data)?sync\(\d+<([^>]*)>\) += 0", line):
            steps.append(("fsync", sync[1]))
        elif rename := re.search(r'rename\w*\(.*"[^"]*", (?:\S+, )?"([^"]*)".*\) += 0', line):
            steps.append(("rename", rename[1]))
    return [(call, path) for call, path in steps if path.startswith(str(folder))]


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) << 10


def stream_growth(folder: Path, *, pieces: int) -> dict[str, int]:
    """Largest growth of anonymous memory while `pieces` times 16 MB are streamed, for each mode."""
    x = torch.randn(1 << 16, 128).half()
    settings: dict[str, Any] = {"activation_dim": 128, "dtype": "float16", "provenance": {}, "durable": False}
    with DatasetWriter(folder, **settings) as writer:
        for _ in range(pieces):
            writer.append(x, torch.zeros(1 << 16, dtype=torch.int32))
        dataset = writer.finish()
    growth: dict[str, int] = {}
    modes: list[Literal["exact", "windowed"]] = ["exact", "windowed"]
    for mode in modes:
        before = anonymous_memory()
        with ActivationStream(dataset, batch_size=4096, mode=mode, window_bytes=32 << 20) as stream:
            growth[mode] = 0
            for _ in range(pieces * 16):
                next(stream)
                growth[mode] = max(growth[mode], anonymous_memory() - before)
    return growth
