"""Time of one training step of seven dictionaries (64 to 4096 features), beside other libraries: `make bench-peers`.

The dictionaries are trained first, until the L0 of each is below 20; then all contenders take over the same weights
and are timed in turn, round after round, on the same batches. Prints a table and writes it as CSV.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import contenders
import prepare
from benches.rows import write_rows

from sparsecode import _core

PEERS = {
    "sparsecode reference": lambda sweep: contenders.sparsecode(sweep, "reference"),
    "torch autograd, fused Adam": contenders.torch_autograd,
    "dictionary_learning StandardTrainer": contenders.dictionary_learning,
    "SAELens MultiSAETrainer": contenders.saelens,
}
TURN = 3  # steps of a contender in a row; the last is timed, when nothing of the others is left in the caches
BASELINES = ("torch autograd, fused Adam", "dictionary_learning StandardTrainer", "SAELens MultiSAETrainer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--l1", type=float, default=2.3e-2)
    parser.add_argument("--sizes", default="64,128,256,512,1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--state", type=Path, help="keep the trained sweep here, and take it from here next time")
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-steps.csv"))
    options = parser.parse_args()
    sweep, l0 = prepare.sparse_sweep(options.dataset, prepare.sizes(options.sizes), options.l1, options.state)
    print(f"{sweep.step} steps from the start, the largest L0 is {l0:.1f}", flush=True)
    steps: dict[str, contenders.Step] = {}
    for path in _core.CpuEngine.paths()[:-1]:  # the last is scalar
        steps[f"sparsecode {path}"] = contenders.sparsecode(sweep, path)
    steps |= {name: make(sweep) for name, make in PEERS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    stream = prepare.stream_of(options.dataset)
    for number in range(options.rounds + 1):
        batches = [next(stream).clone() for _ in range(TURN)]
        for name, step in steps.items():
            for x in batches:
                started = time.perf_counter()
                step(x)
                taken = time.perf_counter() - started
            if number:  # the first round warms up
                times[name].append(taken)
    rows = []
    print(f"{'':38}{'median ms':>10}{'min ms':>10}  times as fast as autograd, dictionary_learning, SAELens")
    for name, own in times.items():
        ratios = [statistics.median(a / b for a, b in zip(times[baseline], own, strict=True)) for baseline in BASELINES]
        row = {"contender": name, "median_ms": round(1e3 * statistics.median(own), 2),
               "min_ms": round(1e3 * min(own), 2)}  # fmt: skip
        rows.append(row | {f"times {b.split()[0]}": round(r, 2) for b, r in zip(BASELINES, ratios, strict=True)})
        print(f"{name:38}{row['median_ms']:10.2f}{row['min_ms']:10.2f}  {'  '.join(f'{r:6.2f}' for r in ratios)}")
    write_rows(options.csv, rows, l0_max=round(l0, 2), steps_before=sweep.step)


if __name__ == "__main__":
    main()
