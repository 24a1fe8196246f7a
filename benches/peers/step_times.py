"""Time of one training step of seven dictionaries (64 to 4096 features), beside other libraries: `make bench-peers`.

The dictionaries are trained first: those of ReLU until the L0 of each is below 20, those of every `--kind` for some
steps. Then all contenders take over the same weights and are timed in turn, round after round, on the same batches.
Prints a table and writes it as CSV.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import contenders
import kinds
import prepare
from benches.rows import write_rows
from torch import Tensor

from sparsecode import _core
from sparsecode.sweep import Sweep
from sparsecode.sweep.engines.cpu import CpuEngine

PEERS = {
    "sparsecode reference": lambda sweep: contenders.sparsecode(sweep, "reference"),
    "torch autograd, fused Adam": contenders.torch_autograd,
    "dictionary_learning StandardTrainer": contenders.dictionary_learning,
    "SAELens MultiSAETrainer": contenders.saelens,
}
TURN = 3  # steps of a contender in a row; the last is timed, when nothing of the others is left in the caches
BASELINES = ("torch autograd, fused Adam", "dictionary_learning StandardTrainer", "SAELens MultiSAETrainer")


def timed(
    steps: Mapping[str, contenders.Step], stream: Iterator[Tensor], rounds: int, baselines: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each contender, after it how often it is as fast as each of the baselines."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        batches = [next(stream).clone() for _ in range(TURN)]
        for name, step in steps.items():
            for x in batches:
                started = time.perf_counter()
                step(x)
                taken = time.perf_counter() - started
            if number:  # the first round warms up
                times[name].append(taken)
    rows = []
    print(f"{'':38}{'median ms':>10}{'min ms':>10}  times as fast as {', '.join(baselines)}")
    for name, own in times.items():
        ratios = [statistics.median(a / b for a, b in zip(times[baseline], own, strict=True)) for baseline in baselines]
        row = {"contender": name, "median_ms": round(1e3 * statistics.median(own), 2),
               "min_ms": round(1e3 * min(own), 2)}  # fmt: skip
        rows.append(row | {f"times {b.split()[0]}": round(r, 2) for b, r in zip(baselines, ratios, strict=True)})
        print(f"{name:38}{row['median_ms']:10.2f}{row['min_ms']:10.2f}  {'  '.join(f'{r:6.2f}' for r in ratios)}")
    return rows


def paths(sweep: Sweep) -> dict[str, contenders.Step]:
    """The CPU engine with each of the sets of instructions that this machine has; the last is scalar."""
    return {f"sparsecode {path}": contenders.sparsecode(sweep, path) for path in _core.CpuEngine.paths()[:-1]}


def of_kind(options: argparse.Namespace, text: str) -> list[dict[str, Any]]:
    """Rows of a kind, beside the library that trains it."""
    sweep = prepare.kind_sweep(options.dataset, prepare.sizes(options.sizes), text, options.steps)
    peers = [kinds.peer_of(sweep, k) for k in range(len(sweep))]
    steps = paths(sweep) | {"sparsecode reference": contenders.sparsecode(sweep, "reference")}

    def theirs(x: Tensor) -> None:
        for peer in peers:
            peer.step(x, contenders.LR)

    steps[peers[0].name] = theirs
    engine = CpuEngine()
    with prepare.stream_of(options.dataset) as stream:
        rows = timed(steps, stream, options.rounds, [peers[0].name])
        stats = engine.step(contenders.copy_of(sweep), next(stream), 0.0)
    candidates = float((engine.candidates / stats.l0).mean())
    print(f"{text}: {candidates:.2f} candidates per code of {float(stats.l0.mean() / stats.rows):.1f}", flush=True)
    peer = f"times {peers[0].name.split()[0]}"
    return [
        {"kind": text} | {("times" if name == peer else name): value for name, value in row.items()}
        | {"candidates": round(candidates, 2), "l0_mean": round(float(stats.l0.mean() / stats.rows), 2)}
        for row in rows
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--l1", type=float, default=2.3e-2)
    parser.add_argument("--kind", action="append", help="time these instead, such as 'batchtopk k=16'")
    parser.add_argument("--steps", type=int, default=1000, help="that every --kind is trained for first")
    parser.add_argument("--sizes", default="64,128,256,512,1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--state", type=Path, help="keep the trained sweep here, and take it from here next time")
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-steps.csv"))
    options = parser.parse_args()
    if options.kind:
        rows: list[dict[str, Any]] = []
        for text in options.kind:
            rows += of_kind(options, text)
            write_rows(options.csv, rows, sizes=options.sizes, steps_before=options.steps)
        return
    sweep, l0 = prepare.sparse_sweep(options.dataset, prepare.sizes(options.sizes), options.l1, options.state)
    print(f"{sweep.step} steps from the start, the largest L0 is {l0:.1f}", flush=True)
    steps = paths(sweep) | {name: make(sweep) for name, make in PEERS.items()}
    with prepare.stream_of(options.dataset) as stream:
        rows = timed(steps, stream, options.rounds, BASELINES)
    write_rows(options.csv, rows, l0_max=round(l0, 2), steps_before=sweep.step)


if __name__ == "__main__":
    main()
