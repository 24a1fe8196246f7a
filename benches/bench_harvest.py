"""Harvest to disk beside the bare truncated forward: the aim is at least 90 % of its rows per second.

Paper shape (6 layers of 32, MLP 128, context 256), layer 2, float16 on disk, digests and fsync included.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsecode.config import HarvestConfig
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.harvest import activation_batches, write_batches
from sparsecode.harvest.windows import window_order, windows
from sparsecode.machine import keep_freed_memory
from sparsecode.progress import Progress
from sparsecode.store import DatasetWriter

HOOK = "blocks.2.mlp.hook_post"
ROWS = 2048 * 1024  # two seconds each, 537 MB of float16
CONFIG = HarvestConfig(rows=ROWS, device="cpu")


@pytest.fixture(scope="module")
def model() -> GPT:
    keep_freed_memory()  # as the stage does: it makes the bare forward faster too
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=4096, n_layer=6, n_head=4, d_model=32, d_mlp=128, context=256)).eval()


@pytest.fixture(scope="module")
def tokens() -> Any:
    return np.random.default_rng(0).integers(0, 4096, ROWS, dtype=np.uint16)


@pytest.mark.benchmark(group="harvest, rows of 128 float16")
def test_bare_truncated_forward(benchmark: Any, model: GPT, tokens: Any) -> None:
    order = window_order(len(tokens), 256, 0)

    def forward() -> None:
        with torch.inference_mode():
            for window in windows(tokens, order, 256, CONFIG.batch_size, 0):
                model.run_to(torch.from_numpy(window), HOOK)

    benchmark.extra_info["rows"] = ROWS
    benchmark.pedantic(forward, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="harvest, rows of 128 float16")
def test_harvest_to_disk(benchmark: Any, model: GPT, tokens: Any, tmp_path: Path) -> None:
    count = iter(range(100))

    def harvest() -> None:
        writer = DatasetWriter(
            tmp_path / f"{next(count)}",
            activation_dim=128,
            dtype="float16",
            provenance={},
            shard_bytes=CONFIG.shard_mb << 20,
        )
        with writer, Progress("harvest", ROWS, "rows", quiet=True) as progress:
            batches = activation_batches(model, tokens, HOOK, CONFIG, ROWS)
            write_batches(writer, batches, progress, behind=False)
            writer.finish()

    def clear() -> None:
        for old in tmp_path.iterdir():
            shutil.rmtree(old)

    benchmark.extra_info["rows"] = ROWS
    # Each round writes over what the last one freed: on a virtual machine the first touch of a page costs ten times
    # the copy into it, and would be measured instead.
    benchmark.pedantic(harvest, setup=clear, rounds=5, warmup_rounds=1)
