"""Time of one training step of seven dictionaries (64 to 4096 features), beside other libraries: `make bench-peers`.

The dictionaries are trained first, until they are sparse; then all contenders take over the same weights and are timed
in turn, round after round, on the same batches. Prints a table and writes it as CSV with machine and versions.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path

import contenders
import torch

from sparsecode.machine import describe, versions
from sparsecode.store import ActivationStream, Dataset
from sparsecode.sweep import Sweep
from sparsecode.sweep.engines import choose_engine

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]
BATCH = 4096


def trained(stream: ActivationStream, dim: int, l1: float, steps: int) -> tuple[Sweep, list[float]]:
    """A sweep trained for some steps, and the L0 of each dictionary over the last of them."""
    sweep = Sweep(dim, SIZES, [l1] * len(SIZES), [0] * len(SIZES), 3e-3)
    engine = choose_engine("cpu", "cpu")
    stats = None
    for step in range(steps):
        stats = engine.step(sweep, next(stream), min(1.0, (step + 1) / 200))
    assert stats is not None
    return sweep, (stats.l0 / stats.rows).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--l1", type=float, default=2.3e-2)
    parser.add_argument("--steps", type=int, default=2000, help="training before the measurement")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers.csv"))
    options = parser.parse_args()
    dataset = Dataset(options.dataset)
    stream = ActivationStream(dataset, batch_size=BATCH, scale=dataset.statistics["rms"])
    sweep, l0 = trained(stream, dataset.activation_dim, options.l1, options.steps)
    print(f"after {options.steps} steps, L0 of each: {', '.join(f'{value:.1f}' for value in l0)}", flush=True)
    steps = {
        "sparsecode cpu": contenders.sparsecode(sweep, "cpu"),
        "sparsecode reference": contenders.sparsecode(sweep, "reference"),
        "torch autograd, fused Adam": contenders.torch_autograd(sweep),
        "dictionary_learning StandardTrainer": contenders.dictionary_learning(sweep),
        "SAELens MultiSAETrainer": contenders.saelens(sweep),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        x = next(stream).clone()
        for name, step in steps.items():
            started = time.perf_counter()
            step(x)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    own = times["sparsecode cpu"]
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(other / mine for other, mine in zip(taken, own, strict=True))
        rows.append({"contender": name, "median_ms": round(1e3 * statistics.median(taken), 2),
                     "min_ms": round(1e3 * min(taken), 2), "times_slower": round(ratio, 2)})  # fmt: skip
        print(f"{name:38} {rows[-1]['median_ms']:9.2f} ms (min {rows[-1]['min_ms']:.2f})  {ratio:6.2f} x", flush=True)
    context = {"l0_max": round(max(l0), 2), "threads": torch.get_num_threads()} | describe() | versions()
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *context])
        writer.writeheader()
        writer.writerows(row | context for row in rows)


if __name__ == "__main__":
    main()
