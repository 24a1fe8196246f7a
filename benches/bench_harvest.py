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
from typing import Any, cast

import numpy as np
import pytest
import torch
from benches.interleave import interleaved
from torch.nn.functional import gelu

from sparsecode.gpt import GPT, GPTConfig
from sparsecode.gpt.model import Block
from sparsecode.harvest.contexts import packed
from sparsecode.harvest.models import own_model
from sparsecode.harvest.models.language import NO_FRAME
from sparsecode.harvest.rows import RowSettings, Target, harvest_rows
from sparsecode.machine import keep_freed_memory
from sparsecode.pipeline.config import HarvestConfig

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
        self.contexts = packed(self.tokens, 256, NO_FRAME, frozenset())
        self.order = self.contexts.order(0)
        self.read = own_model(self.model, device="cpu")
        self.names = (folder / str(i) for i in itertools.count())

    def forward(self) -> Iterator[torch.Tensor]:
        rows = self.tokens.reshape(-1, 256)
        first, second, third = (cast(Block, block) for block in self.model.blocks[:3])
        with torch.inference_mode():
            for start in range(0, len(self.order), CONFIG.batch_size):
                window = torch.from_numpy(rows[self.order[start : start + CONFIG.batch_size]].astype(np.int64))
                x = second(first(self.model.embed(window)))
                x = x + third.attn(third.ln_1(x))
                yield gelu(third.mlp.c_fc(third.ln_2(x)))

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
        target = Target(HOOK, next(self.names), 128)
        most = CONFIG.batch_size * 256
        for _ in harvest_rows(self.read, self.contexts, [target], CONFIG.part(RowSettings), {}, batch_tokens=most):
            pass

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
