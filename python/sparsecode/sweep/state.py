"""What a training leaves on disk between two steps: the sweep, the sums since the last line of metrics, the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsecode.checkpoint import load_tensors, save_tensors
from sparsecode.errors import CheckpointCorrupt
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.sweep import Sweep


def save_state(path: Path, sweep: Sweep, interval: StepStats, elapsed: float, **about: Any) -> None:
    """Writes everything that the steps to come depend on, atomically; `elapsed` in seconds."""
    sums = torch.stack([interval.sse, interval.l1, interval.l0])
    about |= {"interval_rows": interval.rows, "elapsed": elapsed}
    save_tensors(path, sweep.state_dict() | {"interval": sums}, about)


def load_state(path: Path, sweep: Sweep, interval: StepStats) -> tuple[StepStats, float]:
    """Sets `sweep` to what was saved; returns the sums, where those of `interval` lie, and the seconds elapsed.

    Raises:
        CheckpointCorrupt: not such a file, or of another sweep.
    """
    tensors, about = load_tensors(path)
    sweep.load_state_dict(tensors)
    try:
        sums = tensors["interval"].to(interval.sse.device)
        return StepStats(about["interval_rows"], *sums), float(about["elapsed"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"{path}: no {error}; delete it to start this stage anew") from error
