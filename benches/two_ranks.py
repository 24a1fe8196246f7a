"""Two processes of one thread beside one process of two threads: the same sweep, in rows per second of training.

    PYTHONPATH=python:tests/support:. python benches/two_ranks.py DATASET

A run's rate is that of the rows by which a long training exceeds a short one, so that loading and measuring at the end
do not count. Rounds in turns; `ratio` is the median over rounds of two processes' rate by one's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benches.rows import write_rows

from ranks import Ranks

SHORT, LONG = 400_000, 1_600_000
SETTINGS = "--sizes 64-4096 --l1 1.5e-2 --seeds 2 --batch-size 4096 --warmup-steps 10 --eval-rows 4096 --device cpu -q"


def seconds(dataset: Path, processes: int, rows: int) -> float:
    """A whole training."""
    with tempfile.TemporaryDirectory() as folder:
        run = ["--run", f"{folder}/run", "--dataset", str(dataset.resolve()), "--samples", str(rows)]
        began = time.perf_counter()
        ranks = Ranks(
            Path(folder), processes, ["train-dicts", *SETTINGS.split(), *run, "--threads", str(2 // processes)]
        )
        codes = ranks.codes(600)
        took = time.perf_counter() - began
        if codes != [0] * processes:
            raise SystemExit(ranks.said())
        return took


def main() -> None:
    """Measures, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path("benches/results/ranks.csv"))
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for processes, found in rates.items():
            short, long = (seconds(options.dataset, processes, rows) for rows in (SHORT, LONG))
            found.append((LONG - SHORT) / (long - short))
            print(f"{processes} of {2 // processes} threads: {found[-1]:,.0f} rows/s", flush=True)
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    write_rows(options.csv, [
        {"processes": processes, "threads_each": 2 // processes, "rows_per_second": round(statistics.median(found)),
         "ratio": round(ratio, 3) if processes == 2 else 1.0, "rounds": options.rounds}
        for processes, found in rates.items()
    ])  # fmt: skip


if __name__ == "__main__":
    main()
