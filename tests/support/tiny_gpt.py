"""Tokens and settings of a transformer that trains in a second."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

VOCAB = 40
TINY: dict[str, Any] = {
    "n_layer": 2, "n_head": 2, "d_model": 8, "context": 16, "batch_size": 4, "steps": 40, "warmup_steps": 5,
    "log_every": 7, "save_every": 10, "val_every": 15, "val_tokens": 320, "device": "cpu",
}  # fmt: skip


def walk(length: int, seed: int) -> npt.NDArray[np.uint16]:
    """A sequence with something to learn: the next token is the last one plus 1, 2 or 3."""
    steps = np.random.default_rng(seed).integers(1, 4, length)
    return (np.cumsum(steps) % VOCAB).astype(np.uint16)


@dataclass
class StubTokens:
    train: npt.NDArray[np.uint16] = field(default_factory=lambda: walk(3000, 0))
    val: npt.NDArray[np.uint16] = field(default_factory=lambda: walk(700, 1))
    vocab_size: int = VOCAB
    eot: int = 0
    fingerprint: str = "stub"
    val_bytes: int = 2100

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))
