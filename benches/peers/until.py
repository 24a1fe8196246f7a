"""Seconds until sparsecode's own recipe is where another library's own recipe ends after 2,000 steps.

Every library starts and schedules as it recommends; all see rows of the same dataset, in batches of 4,096 (sparsecode:
1,024, its preset's). sparsecode's sweep of the same sizes takes as few rows as let every dictionary end at the other's
FVU or below and at its L0 or below. Its L1 coefficients, one per size, are searched for beforehand, as the other's one
was chosen beforehand; searching is not timed. FVU and L0 are measured by one and the same code on rows after the last.

sparsecode starts as docs/recipe.md says of short runs, with the encoder a copy of the atoms.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contenders
import prepare
import torch
from benches.rows import write_rows
from from_start import measured
from torch import Tensor

from sparsecode.store import ActivationStream, Dataset
from sparsecode.sweep import LossSettings, Start, Sweep, begin, rates
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.schedule import Schedule
from sparsecode.sweep.start import SAMPLE_ROWS

HELD = 32_768  # the last rows, which nobody trains on
BATCH, LR, WARMUP, DECAY, L1_WARMUP = 1024, 8e-3, 200, 0.2, 0.3  # as `train-dicts` of the default preset has them
SHORT = Start(encoder_norm=1.0, whitening=0.0)
TRIES = 6  # of L1 coefficients, per number of rows


def stream(dataset: Dataset, batch: int, scale: float, mean: Tensor | None = None) -> ActivationStream:
    return ActivationStream(dataset, batch_size=batch, stop_row=dataset.rows - HELD, mean=mean, scale=scale)


def held(dataset: Dataset, scale: float, mean: Tensor | None = None) -> list[Tensor]:
    rows = dataset.read(dataset.rows - HELD, dataset.rows)
    return [(rows if mean is None else rows - mean) / scale]


def told(sizes: list[int], found: list[tuple[float, float]]) -> str:
    return ", ".join(f"{size}: FVU {fvu:.4f} at L0 {l0:.1f}" for size, (fvu, l0) in zip(sizes, found, strict=True))


def theirs(
    peer: contenders.OwnRecipe, dataset: Dataset, sizes: list[int], steps: int
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of training steps, and FVU and L0 of each size."""
    scale = dataset.statistics["rms"] * math.sqrt(dataset.activation_dim / peer.mean_square)
    seconds = 0.0
    with stream(dataset, prepare.BATCH, scale) as batches:
        for step in range(steps):
            x = next(batches).clone()
            started = time.perf_counter()
            peer.step(x)
            seconds += time.perf_counter() - started
            if (step + 1) % 200 == 0:
                print(f"{peer.name}: {step + 1} steps, {seconds:.0f} s", flush=True)
    count = len(sizes)
    end = Sweep(dataset.activation_dim, sizes, [0.0] * count, [0] * count, LR, LossSettings(pre_bias=True))
    return seconds, measured(peer.into(end), held(dataset, scale))


def ours(dataset: Dataset, sizes: list[int], l1: Sequence[float], rows: int) -> tuple[float, list[tuple[float, float]]]:
    """The same of sparsecode's default recipe over `rows` rows; the start and reading of rows are timed too."""
    statistics = dataset.statistics
    mean, scale = torch.as_tensor(statistics["mean"], dtype=torch.float32), math.sqrt(statistics["variance"])
    sweep = Sweep(dataset.activation_dim, sizes, l1, [0] * len(sizes), rates(LR, sizes))
    steps = rows // BATCH
    schedule = Schedule(min(WARMUP, steps // 5), DECAY, L1_WARMUP, total=steps)
    engine: Any = choose_engine("cpu", "cpu")
    started = time.perf_counter()
    with stream(dataset, SAMPLE_ROWS, scale, mean) as first:
        begin(sweep, SHORT, next(first).clone())
    with stream(dataset, BATCH, scale, mean) as batches:
        engine.train(sweep, batches, [schedule.factors(step) for step in range(steps)])
    seconds = time.perf_counter() - started
    return seconds, measured(sweep, held(dataset, scale, mean))


def until(
    dataset: Dataset, sizes: list[int], goal: list[tuple[float, float]], first: int
) -> tuple[float, int, list[float], list[tuple[float, float]]]:
    """Seconds, rows, L1 coefficients, FVU and L0 of the shortest run found that ends at the goal in every size."""
    rows, l1 = first, [1.4e-2] * len(sizes)
    while rows <= 64 * first:
        for _ in range(TRIES):
            seconds, found = ours(dataset, sizes, l1, rows)
            good = [fvu <= most and l0 <= cap for (fvu, l0), (most, cap) in zip(found, goal, strict=True)]
            reached = f"{sum(good)} of {len(good)} there"
            print(f"sparsecode: {rows} rows, {seconds:.1f} s, {reached}; {told(sizes, found)}", flush=True)
            if all(good):
                return seconds, rows, l1, found
            # L0 falls about as L1 rises: aim a little below theirs, as FVU is lowest there.
            l1 = [
                value if there else value * min(2.0, max(0.5, l0 / (0.97 * cap)))
                for value, there, (_, l0), (_, cap) in zip(l1, good, found, goal, strict=True)
            ]
        rows = round(1.5 * rows)
    raise SystemExit(f"not there after {rows} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--sizes", default="256,1024")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=200_000, help="that sparsecode is tried with first")
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-until.csv"))
    options = parser.parse_args()
    sizes, dataset = prepare.sizes(options.sizes), Dataset(options.dataset)
    dim = dataset.activation_dim
    peers: list[contenders.OwnRecipe] = [
        contenders.DictionaryLearningRecipe("StandardTrainer", dim, sizes, 0.1),
        contenders.DictionaryLearningRecipe("StandardTrainerAprilUpdate", dim, sizes, 0.1),
        contenders.SaelensRecipe(dim, sizes, 2.0, options.steps, prepare.BATCH),
    ]
    rows: list[dict[str, Any]] = []
    for peer in peers:
        base, goal = theirs(peer, dataset, sizes, options.steps)
        print(f"{peer.name}: {base:.1f} s; {told(sizes, goal)}", flush=True)
        seconds, taken, l1, found = until(dataset, sizes, goal, options.rows)
        print(f"until {peer.name}: {seconds:.1f} s, {base / seconds:.1f} times", flush=True)
        for size, own, (fvu, l0), (their_fvu, their_l0) in zip(sizes, l1, found, goal, strict=True):
            rows.append({"peer": peer.name, "steps": options.steps, "peer_seconds": round(base, 1),
                         "seconds": round(seconds, 2), "times faster": round(base / seconds, 1), "rows": taken,
                         "size": size, "l1": round(own, 5), "peer_fvu": round(their_fvu, 5),
                         "peer_l0": round(their_l0, 2), "fvu": round(fvu, 5), "l0": round(l0, 2)})  # fmt: skip
        write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
