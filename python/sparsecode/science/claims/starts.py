"""How dictionaries were started, and what the other starts give: sweeps beside the run's own, RUN/science/start-KIND.

All see the same rows in the same order, as many of them, with the sizes, seeds, rate and L1 of the run; they differ in
the start, in what belongs to it, and in nothing else. Claims about modes and growth are judged on each of them too:
an atom that hardly moved is as far from any other as chance has it, whatever the data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsecode.comparison import Entry
from sparsecode.science.claims import c2_bimodality, c5_growth
from sparsecode.science.claims.evidence import ComparedSweep
from sparsecode.science.claims.trained import HARDLY_MOVED
from sparsecode.science.claims.verdicts import Verdict


@dataclass(frozen=True)
class Other:
    """A start as a whole recipe has it: its words, and the settings of train-dicts that belong to it."""

    words: str
    settings: dict[str, Any]


STARTS = {
    "calibrated": Other("short, whitened encoder, calibrated biases, mean off, L1 warmed up", {
        "start": "calibrated", "encoder_norm": "auto", "initial_density": "auto", "whitening": "auto",
        "normalize": "center", "l1_warmup": 0.3, "lr_scaling": "sqrt"}),
    "atoms": Other("encoder = atoms, biases 0, full L1 from the first step (version 0.1)", {
        "start": "atoms", "normalize": "rms", "l1_warmup": 0.0, "lr_scaling": "none"}),
    "linear": Other("encoder and biases as torch.nn.Linear draws them, atoms orthogonal, full L1 (the seed)", {
        "start": "linear", "normalize": "rms", "l1_warmup": 0.0, "lr_scaling": "none"}),
}  # fmt: skip
# The slowest is trained first where minutes decide, the others then on as many rows: with biases of zero half of all
# codes are active at first.
ORDER = ("atoms", "linear", "calibrated")
SHARE = 0.4  # of the minutes, for the first


@dataclass(frozen=True)
class Started:
    """One dictionary of a sweep; `moved` is the share of its live features that left their start."""

    dictionary: str
    size: int
    l1: float | None
    seed: int | None
    fvu: float | None
    l0: float | None
    dead: int
    moved: float | None
    near_duplicates: int
    other_seed: int | None
    mmcs_next: float | None


@dataclass(frozen=True)
class Start:
    """A sweep from one start, with claims 2 (`modes`) and 5 (`growth`) judged on it."""

    words: str
    settings: dict[str, Any]
    dictionaries: list[Started]
    modes: Verdict
    growth: Verdict
    curve: c5_growth.Curve | None


@dataclass(frozen=True)
class Starts:
    """What claims.json says of the starts."""

    samples: int
    hardly_moved: float
    starts: dict[str, Start]


def summary(sweeps: dict[str, ComparedSweep], samples: int, draws: int) -> Starts:
    """A row per dictionary, and claims 2 and 5 judged on each start."""
    return Starts(samples, HARDLY_MOVED, {kind: _judged(kind, sweep, draws) for kind, sweep in sweeps.items()})


def _judged(kind: str, sweep: ComparedSweep, draws: int) -> Start:
    rows = [_row(sweep, entry) for entry in sweep.entries]
    modes = c2_bimodality.judge_rows(c2_bimodality.rows_of(sweep))
    curve, growth = c5_growth.judge_curves(sweep, c5_growth.curves_of(sweep, draws))
    return Start(STARTS[kind].words, STARTS[kind].settings, rows, modes, growth, curve)


def _row(sweep: ComparedSweep, entry: Entry) -> Started:
    live = sweep.live(entry.name)
    cosine = sweep.dictionaries[entry.name].features.get("initial_cosine")
    moved = None if cosine is None or not bool(live.any()) else float((cosine[live] < HARDLY_MOVED).double().mean())
    other = entry.other_seed.mutual if entry.other_seed else None
    mmcs = entry.next.mcs.all.mean if entry.next else None
    return Started(
        entry.name, entry.dict_size, entry.l1, entry.seed, entry.metrics.get("fvu"), entry.metrics.get("l0"),
        int((~live).sum()), moved, entry.near_duplicates.features, other, mmcs,
    )  # fmt: skip
