"""Starts and schedules beside each other, at equal L0: the tables and the figure of docs/recipe.md.

    python benches/starts.py measure CORPUS DATASET [--only NAME ...]    trains and puts rows into the CSV
    python benches/starts.py show                                        prints the tables and draws the figure

Every start trains the same sizes, three L1 coefficients and two seeds on as many rows; FVU at an L0 is interpolated
between the coefficients, in the logarithms of both.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benches.rows import write_rows
from torch import Tensor

from sparsecode import store
from sparsecode.comparison.cosine import best_both, mutual, nearest_own
from sparsecode.sweep import LossSettings, Start, Sweep, begin, grid, rates
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.metrics import Deviations
from sparsecode.sweep.schedule import Schedule
from sparsecode.sweep.start import SAMPLE_ROWS

CSV = Path("benches/results/starts.csv")
FIGURE = Path("docs/recipe.svg")
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
SEEDS = (0, 1)
SAMPLES = 4_096_000
EVAL_ROWS = 65_536
LEVELS = (10.0, 13.4, 18.0)  # L0 at which starts are compared; a start that reaches beyond has no figure there


@dataclass(frozen=True)
class Recipe:
    """One row of the table."""

    name: str
    start: Start
    normalize: str = "center"
    l1: tuple[float, ...] = (0.9e-2, 1.2e-2, 1.7e-2)
    l1_warmup: float = 0.3
    lr: float = 8e-3
    batch: int = 1024
    warmup: int = 200
    decay: float = 0.2
    project: bool = True
    sizes: tuple[int, ...] = SIZES
    scaling: str = "none"  # of the rate with the size
    power: float = 0.0  # encoder and biases times (D/F) to this power, which leaves who fires as it is


SOME = (256, 512, 1024)
RECIPES = (
    # What the seed describes: raw activations, its own rate and batch, nothing warmed up. Two sizes: it takes four
    # times the steps of the others.
    Recipe("linear (the seed's)", Start("linear"), "none", (1e-3, 2e-3, 3.2e-3), 0.0, 1e-3, 256, 0, 0.0, False,
           (256, 1024)),
    # At 4,096 features and the smallest L1 its steps stay dense for so long that a quarter of an hour is not enough.
    Recipe("atoms (the default of 0.1)", Start("atoms"), "rms", (1.3e-2, 2.3e-2, 3.5e-2), 0.0, 3e-3,
           sizes=(256, 512, 1024, 2048)),
    Recipe("atoms, mean off", Start("atoms"), l1=(1.3e-2, 2.3e-2, 3.5e-2), l1_warmup=0.0, lr=3e-3, sizes=SOME),
    Recipe("calibrated, norm 1, no L1 warm-up", Start(encoder_norm=1.0, whitening=0), l1_warmup=0.0, sizes=SOME),
    Recipe("calibrated, norm 1", Start(encoder_norm=1.0, whitening=0), sizes=SOME),
    Recipe("calibrated, norm D/F", Start(encoder_norm=1.0, whitening=0), power=1.0, sizes=SOME),
    Recipe("calibrated, rate 3e-3", Start(whitening=0), lr=3e-3, sizes=SOME),
    Recipe("calibrated, one rate", Start(whitening=0)),
    Recipe("calibrated, sqrt", Start(whitening=0), l1=(1e-2, 1.4e-2, 2e-2), scaling="sqrt"),
    Recipe("calibrated (the default)", Start(), l1=(1.1e-2, 1.5e-2, 2.1e-2), scaling="sqrt"),
)  # fmt: skip


def train(recipe: Recipe, dataset: store.Dataset, threads: int, samples: int) -> list[dict[str, Any]]:
    """Rows of one recipe."""
    statistics, dim = dataset.statistics, dataset.activation_dim
    mean = torch.as_tensor(statistics["mean"], dtype=torch.float32) if recipe.normalize == "center" else None
    scale = {"none": 1.0, "rms": statistics["rms"], "center": math.sqrt(statistics["variance"])}[recipe.normalize]
    sizes, l1, seeds = zip(*grid(list(recipe.sizes), list(recipe.l1), list(SEEDS)), strict=True)
    loss = LossSettings(project_gradient=recipe.project)
    sweep = Sweep(
        dim, sizes, l1, seeds, rates(recipe.lr, sizes, recipe.scaling), loss, orthogonal=recipe.start.orthogonal
    )
    engine, steps = CpuEngine(threads=threads), samples // recipe.batch

    def stream(batch: int) -> store.ActivationStream:
        return store.ActivationStream(
            dataset, batch_size=batch, stop_row=dataset.rows - EVAL_ROWS, mean=mean, scale=scale, threads=1
        )

    started = time.perf_counter()
    with stream(SAMPLE_ROWS) as first:
        begin(sweep, recipe.start, next(first).clone(), threads)
    for k, size in enumerate(sizes if recipe.power else ()):
        for values in (sweep.W_enc, sweep.b_enc):
            values[sweep.rows(k)] *= min(1.0, dim / size) ** recipe.power
    schedule = Schedule(recipe.warmup, recipe.decay, recipe.l1_warmup, total=steps)
    with stream(recipe.batch) as batches:
        engine.train(sweep, batches, [schedule.factors(step) for step in range(steps)])
    seconds = time.perf_counter() - started
    return list(measured(recipe, sweep, engine, dataset, mean, scale, seconds, samples))


def measured(
    recipe: Recipe, sweep: Sweep, engine: CpuEngine, dataset: store.Dataset, mean: Tensor | None, scale: float,
    seconds: float, samples: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row per dictionary, over the held-out rows."""
    sweep.fired.zero_()
    sums, spread = StepStats.zeros(len(sweep)), None
    for first in range(dataset.rows - EVAL_ROWS, dataset.rows, 4096):
        x = (dataset.read(first, first + 4096) - (0 if mean is None else mean)) / scale
        sums += engine.evaluate(sweep, x)
        own = Deviations.of(x)
        spread = own if spread is None else spread + own
    assert spread is not None
    live = [fired > 0 for fired in sweep.per_dictionary(sweep.fired)]
    atoms = [sweep.W_dec[sweep.rows(k)].clone() for k in range(len(sweep))]
    place = {key: k for k, key in enumerate(zip(sweep.sizes, sweep.l1, sweep.seeds, strict=True))}

    def again(k: int, j: int) -> tuple[int, int]:
        there, back = best_both(atoms[k], atoms[j])
        above = there.values > 0.9
        return int(above.sum()), int((above & mutual(there.indices, back.indices)).sum())

    for (size, l1, seed), k in place.items():
        moved = sweep.initial_cosine(k)[live[k]] < 0.5**0.5
        row = {
            "start": recipe.name, "size": size, "l1": l1, "seed": seed, "samples": samples,
            "fvu": float(sums.sse[k]) / spread.total, "l0": float(sums.l0[k]) / sums.rows,
            "dead": int((~live[k]).sum()), "moved": float(moved.float().mean()) if len(moved) else 0.0,
            "near_duplicates": int(((nearest_own(atoms[k]) > 0.8) & live[k]).sum()),
            "again": "", "mutual": "", "next_mutual": "", "next_mmcs": "", "sweep_seconds": round(seconds, 1),
        }  # fmt: skip
        if seed == SEEDS[0]:
            row["again"], row["mutual"] = again(k, place[size, l1, SEEDS[1]])
            larger = min((other for other in recipe.sizes if other > size), default=None)
            if larger is not None:
                j = place[larger, l1, SEEDS[1]]
                row["next_mutual"] = again(k, j)[1]
                row["next_mmcs"] = float(best_both(atoms[k], atoms[j])[0].values.double().mean())
        yield row


def measure(options: argparse.Namespace) -> None:
    """Trains the recipes on a dataset and replaces their rows of the CSV."""
    dataset = store.Dataset(options.dataset)
    torch.set_num_threads(options.threads)  # which the rows tell
    for recipe in RECIPES:
        if options.only and recipe.name not in options.only:
            continue
        if options.sizes:
            recipe = replace(recipe, sizes=tuple(map(int, options.sizes.split(","))))
        if options.l1:
            recipe = replace(recipe, l1=tuple(map(float, options.l1.split(","))))
        rows = train(recipe, dataset, options.threads, options.samples)
        kept = [row for row in read() if (row["corpus"], row["start"]) != (options.corpus, recipe.name)]
        names = ["corpus", *rows[0]]
        rows = [{name: row[name] for name in names} for row in kept] + [
            {"corpus": options.corpus} | row for row in rows
        ]
        write_rows(CSV, rows)
        print(f"{options.corpus}: {recipe.name}: {rows[-1]['sweep_seconds']} s", flush=True)


def read() -> list[dict[str, Any]]:
    """Rows of the CSV, numbers as numbers."""
    if not CSV.exists():
        return []
    with CSV.open(newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def at_level(rows: Sequence[dict[str, Any]], level: float, name: str) -> float | None:
    """`name` at an L0, interpolated in the logarithm of L0 (and of FVU) between neighbouring L1; None outside."""
    points = sorted((math.log(row["l0"]), row[name]) for row in rows if row["l0"] > 0 and row[name] != "")
    for (low, a), (high, b) in pairwise(points):
        if low <= math.log(level) <= high:
            share = (math.log(level) - low) / (high - low)
            if name == "fvu":
                return math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
            return float(a + share * (b - a))
    return None


def show(options: argparse.Namespace) -> None:
    """Tables of every corpus, and the figure of the first."""
    rows = read()
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    for corpus in corpora:
        own = [row for row in rows if row["corpus"] == corpus and row["seed"] == SEEDS[0]]
        starts = [recipe.name for recipe in RECIPES if any(row["start"] == recipe.name for row in own)]
        for level in LEVELS:
            print(f"\n{corpus}, FVU at L0 {level:g}\n")
            print("| start | " + " | ".join(map(str, SIZES)) + " |\n|---|" + "---|" * len(SIZES))
            for start in starts:
                cells = (_at(own, start, size, level, "fvu", ".4f") for size in SIZES)
                print(f"| {start} | " + " | ".join(cells) + " |")
        print(f"\n{corpus}, at the middle L1: FVU / L0 / dead / found again, mutual nearest / near-duplicates\n")
        print("| start | L1 | " + " | ".join(map(str, SIZES)) + " |\n|---|---|" + "---|" * len(SIZES))
        for start in starts:
            values = sorted({row["l1"] for row in own if row["start"] == start})
            middle = values[len(values) // 2]
            cells = (_cell(own, start, size, middle) for size in SIZES)
            print(f"| {start} | {middle:g} | " + " | ".join(cells) + " |")
    FIGURE.write_text(drawn([row for row in rows if row["corpus"] == corpora[0] and row["size"] == options.size]))


def _at(rows: list[dict[str, Any]], start: str, size: int, level: float, name: str, form: str) -> str:
    found = at_level([row for row in rows if row["start"] == start and row["size"] == size], level, name)
    return "–" if found is None else format(found, form)


def _cell(rows: list[dict[str, Any]], start: str, size: int, l1: float) -> str:
    for row in rows:
        if (row["start"], row["size"], row["l1"]) == (start, size, l1):
            return f"{row['fvu']:.3f} / {row['l0']:.1f} / {row['dead']} / {row['mutual']} / {row['near_duplicates']}"
    return "–"


def drawn(rows: list[dict[str, Any]]) -> str:
    """FVU over L0 of one size, a curve per start, as SVG."""
    width, height, left, bottom = 720, 400, 60, 50
    xs, ys = [math.log(row["l0"]) for row in rows], [math.log(row["fvu"]) for row in rows]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)

    def point(l0: float, fvu: float) -> tuple[float, float]:
        x = left + (math.log(l0) - low_x) / (high_x - low_x) * (width - left - 240)
        y = 20 + (high_y - math.log(fvu)) / (high_y - low_y) * (height - bottom - 30)
        return round(x, 1), round(y, 1)

    colours = ("#7a7a7a", "#b3541e", "#d9a03f", "#4a7fb5", "#2f9e8f", "#7b3294")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for l0 in (5, 7, 10, 14, 20, 30, 40):
        if low_x <= math.log(l0) <= high_x:
            x, _ = point(l0, rows[0]["fvu"])
            parts.append(f'<path d="M{x} 20V{height - bottom + 6}" stroke="#ddd"/>'
                         f'<text x="{x}" y="{height - 28}" text-anchor="middle">{l0}</text>')  # fmt: skip
    for fvu in (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3):
        if low_y <= math.log(fvu) <= high_y:
            _, y = point(rows[0]["l0"], fvu)
            parts.append(f'<path d="M{left - 6} {y}H{width - 240}" stroke="#ddd"/>'
                         f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{fvu:g}</text>')  # fmt: skip
    starts = list(dict.fromkeys(row["start"] for row in rows))
    for number, start in enumerate(starts):
        colour = colours[number % len(colours)]
        line = sorted(point(row["l0"], row["fvu"]) for row in rows if row["start"] == start and row["seed"] == 0)
        path = "L".join(f"{x} {y}" for x, y in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in line]
        y = 34 + 20 * number
        parts.append(f'<rect x="{width - 225}" y="{y - 9}" width="12" height="12" fill="{colour}"/>'
                     f'<text x="{width - 207}" y="{y + 2}">{start}</text>')  # fmt: skip
    x, y = (width - 240 + left) / 2, height / 2
    parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">L0</text>'
                 f'<text x="14" y="{y}" transform="rotate(-90 14 {y})">FVU</text></svg>\n')  # fmt: skip
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("corpus", help="what to call it")
    one.add_argument("dataset", type=Path, help="harvested activations")
    one.add_argument("--only", nargs="*", default=[], help="names of recipes; all without it")
    one.add_argument("--threads", type=int, default=torch.get_num_threads())
    one.add_argument("--samples", type=int, default=SAMPLES, help="rows that each dictionary sees")
    one.add_argument("--sizes", default="", help="with commas, instead of the recipe's")
    one.add_argument("--l1", default="", help="with commas, instead of the recipe's")
    one.set_defaults(run=measure)
    other = commands.add_parser("show")
    other.add_argument("--size", type=int, default=1024, help="of the dictionaries in the figure")
    other.set_defaults(run=show)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
