"""How dictionaries were started, and what the other starts give: sweeps beside the run's own, RUN/science/start-KIND.

All see the same rows in the same order, as many of them, with the sizes, seeds, rate and L1 of the run; they differ in
the start, in what belongs to it, and in nothing else. Claims about modes and growth are judged on each of them too:
an atom that hardly moved is as far from any other as chance has it, whatever the data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsecode.science import bimodality, growth
from sparsecode.science.evidence import Family
from sparsecode.science.verdicts import HARDLY_MOVED


@dataclass(frozen=True)
class Other:
    """A start as a whole recipe has it: its words, and the settings of train-dicts that belong to it."""

    words: str
    settings: dict[str, Any]


STARTS = {
    "calibrated": Other("short encoder, calibrated biases, mean off, L1 warmed up", {
        "start": "calibrated", "encoder_norm": "auto", "initial_density": "auto", "normalize": "center",
        "l1_warmup": 0.3, "lr_scaling": "sqrt"}),
    "atoms": Other("encoder = atoms, biases 0, full L1 from the first step (version 0.1)", {
        "start": "atoms", "normalize": "rms", "l1_warmup": 0.0, "lr_scaling": "none"}),
    "linear": Other("encoder and biases as torch.nn.Linear draws them, atoms orthogonal, full L1 (the seed)", {
        "start": "linear", "normalize": "rms", "l1_warmup": 0.0, "lr_scaling": "none"}),
}  # fmt: skip
# The slowest is trained first where minutes decide, the others then on as many rows: with biases of zero half of all
# codes are active at first.
ORDER = ("atoms", "linear", "calibrated")
SHARE = 0.4  # of the minutes, for the first


def summary(families: dict[str, Family], samples: int, draws: int) -> dict[str, Any]:
    """What claims.json says of them: a row per dictionary, and claims 2 and 5 judged on each start."""
    return {
        "samples": samples,
        "hardly_moved": HARDLY_MOVED,
        "starts": {kind: _judged(kind, family, draws) for kind, family in families.items()},
    }


def _judged(kind: str, family: Family, draws: int) -> dict[str, Any]:
    curve = growth.judged_curve(family, draws)
    return {
        "words": STARTS[kind].words,
        "settings": STARTS[kind].settings,
        "dictionaries": [_row(family, entry) for entry in family.entries],
        "modes": bimodality.judge_rows(bimodality.rows_of(family)).as_json(),
        "growth": growth.judge_curve(family, curve).as_json(),
        "curve": curve,
    }


def _row(family: Family, entry: dict[str, Any]) -> dict[str, Any]:
    live = family.live(entry["name"])
    cosine = family.dictionaries[entry["name"]].features.get("initial_cosine")
    moved = None if cosine is None or not bool(live.any()) else float((cosine[live] < HARDLY_MOVED).double().mean())
    metrics = entry.get("metrics") or {}
    return {
        "dictionary": entry["name"],
        "size": entry["dict_size"],
        "l1": entry.get("l1"),
        "seed": entry.get("seed"),
        "fvu": metrics.get("fvu"),
        "l0": metrics.get("l0"),
        "dead": int((~live).sum()),
        "moved": moved,
        "near_duplicates": entry["near_duplicates"]["features"],
        "other_seed": entry["other_seed"]["mutual"] if entry["other_seed"] else None,
        "mmcs_next": entry["next"]["mcs"]["all"]["mean"] if entry["next"] else None,
    }
