"""Order, resuming, ranks and memory of streams (promises 17, 18, 19, 22, 23)."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import store_trials as trials
from sparsecode.errors import InvalidArgument
from sparsecode.store import ActivationStream, Dataset, DatasetWriter

ROWS = 1000


def write(path: Path, n: int, *, dim: int = 3, shard_rows: int = 90, dtype: str = "float32") -> Dataset:
    size = dim * (4 if dtype == "float32" else 2) + 4
    x = torch.arange(n, dtype=torch.float32)[:, None].expand(n, dim)
    settings: dict[str, Any] = {"provenance": {}, "shard_bytes": shard_rows * size, "durable": False}
    with DatasetWriter(path, activation_dim=dim, dtype=dtype, **settings) as writer:
        writer.append(x, torch.arange(n))
        return writer.finish()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("data") / "x", ROWS)


def rows_of(stream: ActivationStream, batches: int) -> list[int]:
    return [int(row) for _ in range(batches) for row in next(stream)[:, 0]]


# These digests are pinned: a change of the order would make every recorded experiment see other batches.
GOLDEN = {
    "exact": "c4b579bab608e729",
    "windowed": "21296fe007ab04e2",
}


@pytest.mark.parametrize("mode", GOLDEN)
def test_the_order_is_pinned_and_depends_on_nothing_else(dataset: Dataset, mode: Any) -> None:
    for threads in (1, 2, 4):
        for prefetch in (0, 1, 8):
            for access in ("mmap", "pread"):
                opened = Dataset(dataset.path, access=access)
                with ActivationStream(
                    opened, batch_size=64, seed=11, mode=mode, threads=threads, prefetch=prefetch, window_bytes=4000
                ) as stream:
                    rows = rows_of(stream, 40)
                digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
                assert digest == GOLDEN[mode], (threads, prefetch, access)
    assert sorted(rows[:ROWS]) == sorted(rows[ROWS : 2 * ROWS]) == list(range(ROWS))
    assert rows[:ROWS] != rows[ROWS : 2 * ROWS]


@pytest.mark.parametrize("mode", ["exact", "windowed"])
def test_resuming_at_every_row_gives_the_rest_across_epochs(dataset: Dataset, mode: Any) -> None:
    def stream(position: int, batch_size: int) -> ActivationStream:
        return ActivationStream(
            dataset, batch_size=batch_size, seed=2, position=position, prefetch=0, mode=mode, window_bytes=4000
        )

    expected = next(stream(0, 2500))
    for position in range(ROWS):
        resumed = stream(position, 1500)
        assert torch.equal(next(resumed), expected[position : position + 1500])
        assert resumed.position == position + 1500


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_any_number_of_ranks_gives_the_same_global_batches(dataset: Dataset, world_size: int) -> None:
    with ActivationStream(dataset, batch_size=10, seed=3) as stream:
        expected = rows_of(stream, 24)
    ranks = [
        ActivationStream(dataset, batch_size=10, seed=3, rank=rank, world_size=world_size, prefetch=2)
        for rank in range(world_size)
    ]
    found = [row for i in range(24) for row in rows_of(ranks[i % world_size], 1)]
    assert found == expected
    assert {rank.position for rank in ranks} == {240}
    for rank in ranks:
        rank.close()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**64 - 1),
    window_bytes=st.integers(1, 500),
    data=st.data(),
)
def test_any_list_of_shards_and_any_range_is_permuted(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, window_bytes: int, data: st.DataObject
) -> None:
    dataset = write(tmp_path_factory.mktemp("h") / "x", sum(lengths), shard_rows=max(lengths))
    start = data.draw(st.integers(0, dataset.rows - 1))
    stop = data.draw(st.integers(start + 1, dataset.rows))
    for mode in ("exact", "windowed"):
        stream = ActivationStream(
            dataset,
            batch_size=stop - start,
            seed=seed,
            start_row=start,
            stop_row=stop,
            mode=mode,
            window_bytes=window_bytes,
            prefetch=0,
        )
        for _ in range(2):
            assert sorted(rows_of(stream, 1)) == list(range(start, stop))


def test_values_are_normalised_as_written(tmp_path: Path) -> None:
    x = torch.randn(100, 33, generator=torch.Generator().manual_seed(0)).half()
    with DatasetWriter(tmp_path, activation_dim=33, dtype="float16", provenance={}) as writer:
        writer.append(x, torch.arange(100))
        dataset = writer.finish()
    mean = torch.linspace(-1, 1, 33)
    order = [int(i) for i in _tokens_in_order(dataset, 100)]
    for scale in (1.0, 0.37, -2.0):
        factor = torch.tensor(1.0) / torch.tensor(scale)
        with ActivationStream(dataset, batch_size=100, mean=mean, scale=scale) as stream:
            assert torch.equal(next(stream), (x.float()[order] - mean) * factor)
        with ActivationStream(dataset, batch_size=100, scale=scale) as stream:
            assert torch.equal(next(stream), x.float()[order] * factor)
    with ActivationStream(dataset, batch_size=100, dtype="float16") as stream:
        assert torch.equal(next(stream), x[order])
    with ActivationStream(dataset, batch_size=100, prefetch=2) as stream:
        out = torch.empty(100, 33)
        assert stream.next_into(out) is out and torch.equal(out, x.float()[order])


def _tokens_in_order(dataset: Dataset, n: int) -> list[float]:
    """Row numbers in streaming order, from a twin dataset whose rows hold their own number."""
    twin = write(dataset.path.parent / f"{dataset.path.name}-twin", n, dim=1)
    with ActivationStream(twin, batch_size=n, prefetch=0) as stream:
        return next(stream)[:, 0].tolist()


def test_the_mean_may_be_that_of_the_statistics(dataset: Dataset) -> None:
    mean = dataset.statistics["mean"]
    streams = [ActivationStream(dataset, batch_size=10, mean=given) for given in (mean, torch.tensor(mean))]
    with streams[0] as one, streams[1] as other:
        assert torch.equal(next(one), next(other))


def test_batches_that_are_kept_stay_as_they_were(dataset: Dataset) -> None:
    with ActivationStream(dataset, batch_size=20, prefetch=3) as stream:
        kept = [next(stream) for _ in range(30)]
        copies = [batch.clone() for batch in kept]
        views = [batch[3:5].numpy() for batch in kept]
        del kept[::2]
        for _ in range(50):
            next(stream)
    del stream
    gc.collect()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies[1::2], strict=True))
    assert all((a == b[3:5].numpy()).all() for a, b in zip(views, copies, strict=True))


def test_memory_of_batches_is_used_again(dataset: Dataset) -> None:
    with ActivationStream(dataset, batch_size=100, prefetch=2) as stream:
        addresses = {next(stream).data_ptr() for _ in range(100)}
    assert len(addresses) <= 6
    assert all(address % 64 == 0 for address in addresses)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 2**62},
        {"seed": -1},
        {"seed": 2**64},
        {"start_row": 5, "stop_row": 5},
        {"stop_row": ROWS + 1},
        {"position": -1},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"mean": torch.zeros(4)},
        {"mean": torch.tensor([0.0, torch.nan, 0.0])},
        {"rank": 1},
        {"rank": -1},
        {"world_size": 0},
        {"threads": -1},
        {"prefetch": -1},
        {"mode": "random"},
        {"dtype": "float16"},
        {"dtype": "int8"},
    ],
)
def test_settings_that_cannot_work_are_refused(dataset: Dataset, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        ActivationStream(dataset, **({"batch_size": 10} | bad))


def test_a_closed_stream_says_so(dataset: Dataset) -> None:
    stream = ActivationStream(dataset, batch_size=10)
    next(stream)
    stream.close()
    stream.close()
    with pytest.raises(InvalidArgument, match="closed"):
        next(stream)


@pytest.mark.parametrize(("start", "workers"), [("fork", 1), ("fork", 2), ("fork", 3), ("spawn", 2)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_dataloader_workers_give_the_global_order(dataset: Dataset, start: str, workers: int) -> None:
    stream = ActivationStream(dataset, batch_size=50, seed=4)
    expected = rows_of(ActivationStream(dataset, batch_size=50, seed=4), 31)
    assert rows_of(stream, 1) == expected[:50]  # its threads run when the workers are made
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=start, timeout=60)
    batches = iter(loader)
    found = [int(row) for _ in range(30) for row in next(batches)[:, 0]]
    assert found == expected[50:]
    del batches
    assert rows_of(stream, 1) == expected[50:100]  # the workers' progress is not the parent's


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_by_itself_and_never_hangs(dataset: Dataset) -> None:
    """Forked at many moments while threads run: the child starts its own."""
    stream = ActivationStream(dataset, batch_size=16, seed=5, threads=4, prefetch=8)
    expected = rows_of(ActivationStream(dataset, batch_size=16, seed=5), 60)
    for i in range(25):
        at = stream.position
        read, write_end = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover: runs in the child
            try:
                signal.alarm(20)
                rows = rows_of(stream, 3)
                os.write(write_end, b"y" if rows == expected[at : at + 48] else b"n")
                stream.close()
            finally:
                os._exit(0)
        os.close(write_end)
        assert os.read(read, 1) == b"y", f"fork {i}"
        os.close(read)
        os.waitpid(child, 0)
        assert rows_of(stream, 1) == expected[at : at + 16]
    stream.close()


def _spawned(stream: ActivationStream, queue: Any) -> None:
    queue.put((rows_of(stream, 3), stream.position))


def test_a_spawned_process_goes_on_from_the_position(dataset: Dataset) -> None:
    stream = ActivationStream(dataset, batch_size=16, seed=5, mean=torch.zeros(3))
    expected = rows_of(stream, 2) and rows_of(ActivationStream(dataset, batch_size=16, seed=5, position=32), 3)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_spawned, args=(stream, queue))
    process.start()
    assert queue.get(timeout=60) == (expected, 80)
    process.join()
    stream.close()


def test_descriptors_and_threads_stay_flat(dataset: Dataset) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def once(access: Any) -> None:
        with ActivationStream(Dataset(dataset.path, access=access), batch_size=10, prefetch=1) as stream:
            next(stream)

    once("mmap")
    gc.collect()
    before = descriptors(), threads()
    for i in range(1000):
        once("pread" if i % 10 == 0 else "mmap")
    for _ in range(20):  # dropped without close
        next(ActivationStream(Dataset(dataset.path), batch_size=10))
    gc.collect()
    after = descriptors(), threads()
    assert after[0] <= before[0] and after[1] <= before[1], (before, after)


def test_memory_stays_bounded_while_much_is_streamed(tmp_path: Path) -> None:
    """256 MB here, 2 GB in `make soak`: anonymous memory grows by less than 64 MB."""
    assert max(trials.stream_growth(tmp_path, pieces=16).values()) < 64 << 20


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    write(tmp_path / "x", 200_000, shard_rows=200_000)
    script = f"""
        from sparsecode.store import ActivationStream, Dataset
        for prefetch in (4, 0):
            stream = ActivationStream(Dataset({str(tmp_path / "x")!r}), batch_size=100, prefetch=prefetch)
            try:
                for i, batch in enumerate(stream):
                    if i == 10:
                        print("ready", flush=True)
            except KeyboardInterrupt:
                stream.close()
                print("stopped", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    for _ in range(2):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
    assert process.wait(timeout=20) == 0
    watchdog.cancel()
    process.stdout.close()
