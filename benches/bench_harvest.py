"""Harvest to disk beside the bare truncated forward: the aim is at least 90 % of its rows per second.

Paper shape (6 layers of 32, MLP 128, context 256), layer 2, float16 on disk, digests and fsync included. `ratio` in a
row's extra info is the median over rounds, in which every contender ran once, of the bare forward's time by its own.
The third contender does the least that any harvest must: a cast and one plain `write` of every batch.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benches.interleave import interleaved

from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.harvest import activation_batches, write_batches
from sparsecode.harvest.windows import window_order, windows
from sparsecode.machine import keep_freed_memory
from sparsecode.pipeline.config import HarvestConfig
from sparsecode.store import DatasetWriter
from sparsecode.watch import UNWATCHED

HOOK = "blocks.2.mlp.hook_post"
ROWS = 2048 * 1024  # two seconds each, 537 MB of float16
CONFIG = HarvestConfig(rows=ROWS, device="cpu")
NAMES = ["bare forward", "forward, cast, plain write", "harvest"]


class Contenders:
    def __init__(self, folder: Path) -> None:
        keep_freed_memory()  # as the stage does: it makes the bare forward faster too
        torch.manual_seed(0)
        self.folder = folder
        self.model = GPT(GPTConfig(vocab_size=4096, n_layer=6, n_head=4, d_model=32, d_mlp=128, context=256)).eval()
        self.tokens = np.random.default_rng(0).integers(0, 4096, ROWS, dtype=np.uint16)
        self.order = window_order(len(self.tokens), 256, 0)
        self.names = (folder / str(i) for i in itertools.count())

    def forward(self) -> Iterator[torch.Tensor]:
        with torch.inference_mode():
            for window in windows(self.tokens, self.order, 256, CONFIG.batch_size, 0):
                yield self.model.run_to(torch.from_numpy(window), HOOK)

    def bare(self) -> None:
        for activations in self.forward():
            del activations

    def plain(self) -> None:
        with next(self.names).open("wb", buffering=0) as file:
            for activations in self.forward():
                file.write(memoryview(activations.half().numpy()).cast("B"))  # type: ignore[arg-type]
                del activations
            os.fsync(file.fileno())

    def harvest(self) -> None:
        writer = DatasetWriter(
            next(self.names),
            activation_dim=128,
            dtype="float16",
            provenance={},
            shard_bytes=CONFIG.shard_mb << 20,
            direct=True,
        )
        with writer, UNWATCHED.task("harvest", ROWS, "rows") as progress:
            batches = activation_batches(
                self.model, self.tokens, HOOK, ROWS, batch_size=CONFIG.batch_size, device=CONFIG.device
            )
            write_batches(writer, batches, progress, behind=False)
            writer.finish()

    def clear(self, name: str) -> None:
        """Each round writes over what the last one freed: on a virtual machine the first touch of a page costs ten
        times the copy into it, and would be measured instead."""
        if name == NAMES[0]:
            return
        for old in self.folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()


@functools.cache
def measured(folder: Path) -> tuple[Contenders, dict[str, Callable[[], None]], dict[str, float]]:
    own = Contenders(folder)
    steps = dict(zip(NAMES, (own.bare, own.plain, own.harvest), strict=True))
    interleaved(steps, NAMES[0], 1, own.clear)  # warm
    return own, steps, interleaved(steps, NAMES[0], 5, own.clear)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harvest")


@pytest.mark.benchmark(group="harvest, rows of 128 float16")
@pytest.mark.parametrize("name", NAMES)
def test_harvest(benchmark: Any, folder: Path, name: str) -> None:
    own, steps, ratios = measured(folder)
    benchmark.extra_info |= {"rows": ROWS, "ratio": round(ratios[name], 3)}
    benchmark.pedantic(steps[name], setup=functools.partial(own.clear, name), rounds=2)
