"""Activations of a trained transformer for benchmarks: a small GPT, trained for seconds on the Python sources of this
machine and harvested, as `sparsecode replicate` does it on a larger scale.
"""

from __future__ import annotations

import functools
import tempfile

import torch
from torch import Tensor

from sparsecode.gpt import train_gpt
from sparsecode.harvest import harvest_activations
from sparsecode.run import Run
from sparsecode.store import Dataset

STEPS = 200
CONTEXT = 64


@functools.cache
def gpt_activations(width: int, rows: int) -> Tensor:
    """Hidden activations [rows, width] of the MLP of block 2 after the nonlinearity, in an order that mixes contexts.

    Less their mean and divided by the root mean square: after so short a training they are nearly constant.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        train_gpt(
            run, quiet=True, max_text_mb=2, val_fraction=0.1, vocab_size=512, n_layer=3, n_head=4,
            d_model=max(32, width // 4), d_mlp=width, context=CONTEXT, batch_size=16, steps=STEPS, warmup_steps=20,
            val_tokens=4096, device="cpu",
        )  # fmt: skip
        found = harvest_activations(run, quiet=True, layer=2, rows=rows, dtype="float32", device="cpu")
        x = Dataset(run.path / found["path"]).read(0, rows).clone()
    x = x[torch.randperm(rows, generator=torch.Generator().manual_seed(0))] - x.mean(0)
    return (x / x.square().mean().sqrt()).contiguous()
