"""sparsify: SAEs and transcoders, with and without a skip connection, and both ways to state the size."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernel needs a GPU

import torch
from make_fixtures import D, N, randomize
from sparsify import SparseCoder, SparseCoderConfig

CASES = {
    "topk": {"num_latents": N},
    "num-latents-0": {"expansion_factor": N // D},
    "groupmax": {"num_latents": N, "activation": "groupmax", "k": 4},
    "skip": {"num_latents": N, "skip_connection": True},
    "transcoder": {"num_latents": N, "transcode": True},
    "skip-transcoder": {"num_latents": N, "transcode": True, "skip_connection": True},
}


def make(case: str, folder: Path, x: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the case's files and returns (codes, output) of x."""
    coder = SparseCoder(D, SparseCoderConfig(**{"k": 3} | CASES[case]))
    randomize(coder, generator)
    coder.save_to_disk(folder)
    return use(load(folder), x)


def load(folder: Path) -> SparseCoder:
    """Loads it as users of the library do."""
    return SparseCoder.load_from_disk(folder)


def use(coder: SparseCoder, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, output) of x, from a loaded coder; it gives the codes that fire, and their places."""
    with torch.no_grad():
        acts, places, _ = coder.encode(x)
        codes = torch.zeros(len(x), coder.num_latents).scatter_(-1, places, acts)
        return codes, coder(x).sae_out
