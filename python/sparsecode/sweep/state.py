"""What a training leaves on disk between two steps: the sweep, the sums since the last line of metrics, the time.

A dictionary's part goes by its name. Where several processes train a sweep, each writes the parts of its own
dictionaries, and rank 0 last: its file names those of the others and takes the place of the one before, so what is
found is of one step. Whoever owns a dictionary then, among however many processes, reads its part. Of dictionaries that
are cut, each segment has a part of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import beside, load_tensors, part_of, remove, save_tensors
from sparsecode.errors import CheckpointCorrupt
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.sweep import Sweep
from sparsecode.world import ALONE, World


def save_state(
    path: Path, sweep: Sweep, interval: StepStats, elapsed: float, world: World = ALONE, **about: Any
) -> None:
    """Writes everything that the steps to come depend on, atomically; `elapsed` in seconds.

    Every process of `world` calls it after the same step.
    """
    sums = torch.stack([interval.sse, interval.l1, interval.l0])
    tensors = {f"{name}/interval": sums[:, k] for k, name in enumerate(sweep.names)} | dict(_parts(sweep))
    about |= {"step": sweep.step, "interval_rows": interval.rows, "elapsed": elapsed}
    name = None
    if world.rank:
        own = part_of(path, f"{sweep.step}-{world.rank}of{world.size}")
        save_tensors(own, tensors, about)
        name = own.name

    def commit(others: list[str]) -> None:
        save_tensors(path, tensors, about | {"others": others[1:]})
        remove(*(old for old in beside(path) if old.name not in others))

    world.agree(name, commit)


def load_state(path: Path, sweep: Sweep, interval: StepStats) -> tuple[StepStats, float]:
    """Sets `sweep` to what was saved; returns the sums, where those of `interval` lie, and the seconds elapsed.

    Raises:
        CheckpointCorrupt: not such a file, or of another sweep.
    """
    own = dict(_parts(sweep))
    wanted = own.keys() | {f"{name}/interval" for name in sweep.names}
    tensors, about = load_tensors(path, wanted)
    try:
        for other in about["others"]:
            tensors |= load_tensors(path.with_name(other), wanted)[0]
        sums = torch.stack([tensors.pop(f"{name}/interval") for name in sweep.names], 1).to(interval.sse.device)
        for name, mine in own.items():
            if tensors[name].shape != mine.shape or tensors[name].dtype != mine.dtype:
                raise ValueError(f"{name} that fits")
            mine.copy_(tensors[name])
        sweep.step = int(about["step"])
        return StepStats(about["interval_rows"], *sums), float(about["elapsed"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(f"{path}: no {error}; delete it to start this stage anew") from error


def _parts(sweep: Sweep) -> Iterator[tuple[str, Tensor]]:
    for k, name in enumerate(sweep.names):
        for tensor, value in sweep.part(k).items():
            if sweep.split is None or tensor.split(".")[-1] == "b_dec":
                yield f"{name}/{tensor}", value
                continue
            for number, at in sweep.split.pieces(sweep.sizes[k]):
                yield f"{name}/{tensor}@{number}", value[at]
