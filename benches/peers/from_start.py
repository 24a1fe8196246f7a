"""2,000 steps from the start beside dictionary_learning: time in all, and whether both arrive at the same place.

Both begin with the same weights, see the same batches in turns of 50 steps, and minimise the same loss with the same
warm-up: `sparsecode` as `StandardTrainer` has it, with a pre-bias, and as its own default is, without. FVU and L0 are
measured by one and the same code at the end, on batches after the last.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import contenders
import prepare
import torch
from benches.rows import write_rows

from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import KindSpec
from sparsecode.sweep.start import SAMPLE_ROWS

TURN = 50
EVAL = 8


def ours(dim: int, sizes: list[int], l1: float, pre_bias: bool, start: str, sample: torch.Tensor) -> Sweep:
    loss = LossSettings(mse="sum", pre_bias=pre_bias)
    # The same initial atoms as of the other: they depend on the coefficient, so it is set afterwards.
    sweep = Sweep(dim, sizes, [l1] * len(sizes), [0] * len(sizes), prepare.LR, loss)
    sweep.kinds = [KindSpec("relu", l1=l1 * dim)] * len(sizes)
    begin(sweep, Start(start), sample)
    return sweep


def measured(sweep: Sweep, batches: list[torch.Tensor]) -> list[tuple[float, float]]:
    """FVU and L0 of each dictionary."""
    stats = ReferenceEngine().evaluate(sweep, torch.cat(batches))
    x = torch.cat(batches).double()
    spread = (x - x.mean(0)).square().sum()
    return [(float(sse / spread), float(l0 / len(x))) for sse, l0 in zip(stats.sse, stats.l0, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="harvested activations")
    parser.add_argument("--l1", type=float, default=2.3e-2)
    parser.add_argument("--sizes", default="64,128,256,512,1024,2048,4096")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--start", default="atoms", choices=("atoms", "calibrated"), help="of both alike")
    parser.add_argument("--csv", type=Path, default=Path("benches/results/peers-from-start.csv"))
    options = parser.parse_args()
    sizes, stream = prepare.sizes(options.sizes), prepare.stream_of(options.dataset)
    dim = stream.dataset.activation_dim
    with prepare.stream_of(options.dataset, SAMPLE_ROWS) as first:
        sample = next(first).clone()
    with_bias, without = (ours(dim, sizes, options.l1, bias, options.start, sample) for bias in (True, False))
    theirs = contenders.DictionaryLearning(with_bias, prepare.LR, prepare.WARMUP)
    steps: dict[str, contenders.Step] = {
        "sparsecode, with pre-bias": contenders.sparsecode_from_start(with_bias, prepare.WARMUP),
        "sparsecode, without": contenders.sparsecode_from_start(without, prepare.WARMUP),
        "dictionary_learning StandardTrainer": theirs.step,
    }
    seconds = dict.fromkeys(steps, 0.0)
    done = 0
    while done < options.steps:
        batches = [next(stream).clone() for _ in range(min(TURN, options.steps - done))]
        for name, step in steps.items():
            started = time.perf_counter()
            for x in batches:
                step(x)
            seconds[name] += time.perf_counter() - started
        done += len(batches)
        if done % (4 * TURN) == 0:
            print(f"{done} steps: {', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())}", flush=True)
    held = [next(stream).clone() for _ in range(EVAL)]
    end = ours(dim, sizes, options.l1, True, "atoms", sample)
    ends = {name: measured(sweep, held) for name, sweep in
            zip(steps, (with_bias, without, theirs.into(end)), strict=True)}  # fmt: skip
    base = seconds["dictionary_learning StandardTrainer"]
    rows: list[dict[str, Any]] = []
    for name, found in ends.items():
        print(f"{name:38}{seconds[name]:9.1f} s  {base / seconds[name]:6.2f} x")
        for size, (fvu, l0) in zip(sizes, found, strict=True):
            print(f"    {size:5}  FVU {fvu:.4f}  L0 {l0:.2f}")
            rows.append({"contender": name, "steps": done, "seconds": round(seconds[name], 1),
                         "times faster": round(base / seconds[name], 2), "size": size, "fvu": round(fvu, 5),
                         "l0": round(l0, 3)})  # fmt: skip
    write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
