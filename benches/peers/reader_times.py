"""Rows per second of shuffled batches of cached activations, beside other readers: `make bench-peers`.

Every reader gives float32 batches of 4096 rows of the same dataset from the page cache. SAELens keeps contexts in an
Arrow dataset (written here from the same rows) and shuffles within a buffer; the DataLoader of torch shuffles all rows,
given one row at a time, or a batch at once (`__getitems__`), which few datasets offer. Prints a table, also as CSV.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from benches.rows import write_rows
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sparsecode.machine import cores
from sparsecode.store import ActivationStream, Dataset

BATCH = 4096
HEADER = 512  # bytes before the first row of a shard
HOOK = "activations"


def saelens(dataset: Dataset, folder: Path, context: int, most: int) -> Iterator[Tensor]:
    """SAELens's reader of cached activations, with the buffer and mixing that its runner takes unless told."""
    import datasets
    from sae_lens.training.activations_store import ActivationsStore

    shape = (context, dataset.activation_dim)
    features = datasets.Features({HOOK: datasets.Array2D(shape, "float32")})
    contexts = min(dataset.rows, most) // context

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for i in range(contexts):
            yield {HOOK: dataset.read(i * context, (i + 1) * context).numpy()}

    datasets.disable_progress_bars()
    cached = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(folder / "cache"))
    cached.save_to_disk(str(folder / "arrow"))
    store = ActivationsStore(
        model=None, dataset=None, streaming=False, hook_name=HOOK, hook_head_index=None, context_size=context,
        d_in=dataset.activation_dim, n_batches_in_buffer=64, total_training_tokens=10**9, store_batch_size_prompts=32,
        train_batch_size_tokens=BATCH, prepend_bos=False, normalize_activations="none", device=torch.device("cpu"),
        dtype="float32", cached_activations_path=str(folder / "arrow"),
    )  # fmt: skip
    return iter(store)


class MapStyle(TorchDataset[Tensor]):
    """Rows of a memmap of one shard."""

    def __init__(self, dataset: Dataset) -> None:
        shape = (dataset.shards[0].rows, dataset.activation_dim)
        self.rows = np.memmap(dataset.path / dataset.shards[0].file, dataset.dtype, "r", HEADER, shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.rows[index].astype(np.float32))


class BatchedMapStyle(MapStyle):
    """The same, a whole batch at once."""

    def __getitems__(self, indices: list[int]) -> Tensor:
        return torch.from_numpy(self.rows[indices].astype(np.float32))


def endless(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def loader(rows: MapStyle) -> Iterator[Tensor]:
    return endless(DataLoader(rows, BATCH, shuffle=True, drop_last=True))


def batch_loader(rows: BatchedMapStyle) -> Iterator[Tensor]:
    return endless(DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=lambda batch: batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations, float16 or float32")
    parser.add_argument("--context", type=int, default=256, help="rows of a context in SAELens's cache")
    parser.add_argument("--most", type=int, default=500_000, help="rows that are copied into SAELens's cache")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-readers.csv"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="All samples in the training dataset have been exhausted")
    dataset = Dataset(options.dataset)
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        readers: dict[str, tuple[Iterator[Tensor], int]] = {
            "sparsecode, exact shuffle": (iter(ActivationStream(dataset, batch_size=BATCH, threads=cores())), 256),
            "torch DataLoader, whole batches": (batch_loader(BatchedMapStyle(dataset)), 16),
            "torch DataLoader, map-style": (loader(MapStyle(dataset)), 4),
            "SAELens ActivationsStore": (saelens(dataset, folder, options.context, options.most), 4),
        }
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(options.rounds + 1):
            for name, (batches, count) in readers.items():
                started = time.perf_counter()
                for batch in itertools.islice(batches, count):
                    assert batch.shape == (BATCH, dataset.activation_dim) and batch.dtype == torch.float32
                if number:  # the first round warms up
                    rates[name].append(count * BATCH / (time.perf_counter() - started))
    finally:
        shutil.rmtree(folder)
    own = statistics.median(rates["sparsecode, exact shuffle"])
    rows = []
    for name, found in rates.items():
        middle = statistics.median(found)
        rows.append({"reader": name, "median_rows_per_s": round(middle), "max_rows_per_s": round(max(found)),
                     "times_slower": round(own / middle, 1)})  # fmt: skip
        print(
            f"{name:34} {middle / 1e6:8.3f} M rows/s (best {max(found) / 1e6:.3f})  {own / middle:7.1f} x", flush=True
        )
    write_rows(options.csv, rows, activation_dim=dataset.activation_dim, rows=dataset.rows)


if __name__ == "__main__":
    main()
