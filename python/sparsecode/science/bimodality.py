"""Claim 2: the distribution of MCS between dictionaries of different sizes has two modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sparsecode.comparison.cosine import histogram
from sparsecode.science import trained
from sparsecode.science.dip import p_value
from sparsecode.science.evidence import Evidence, Family, Finding
from sparsecode.science.modes import two_modes as fit_two_modes
from sparsecode.science.verdicts import LEAST_FEATURES, Verdict, bimodal, two_modes

CLAIM = (
    "The distribution of MCS between dictionaries of different sizes is highly bimodal: one set of features is found "
    "across sizes."
)
BINS = 50
Array = npt.NDArray[np.float64]


def judge(evidence: Evidence) -> Finding:
    """Dip test and a fit of two normals for every dictionary with a larger relative: of live features, and of all."""
    rows = [row for family in evidence.families for row in rows_of(family)]
    verdict = judge_rows([row for row in rows if row["sweep"] == evidence.main.label])
    return Finding(CLAIM, verdict, {"bins": BINS, "dictionaries": rows})


def judge_rows(rows: list[dict[str, Any]]) -> Verdict:
    """The verdict on one sweep, from what `rows_of` says of it."""
    fits = [row for row in rows if row["overcomplete"]]
    judged = [row for row in fits if not row["untrained"]]
    if fits and not judged:
        return trained.too_thin(trained.listed(fits[0]["untrained"]))
    starts = [row["modes"].get("initial_cosine") for row in judged if row["bimodal"]]
    return two_modes(
        [row["bimodal"] for row in judged],
        [row["everything"]["bimodal"] for row in judged],
        [start[0] for start in starts if start is not None],
    )


def rows_of(family: Family) -> list[dict[str, Any]]:
    """Every dictionary with a larger relative: its histograms, the dip test and the fit of two modes."""
    rows: list[dict[str, Any]] = []
    for entry in family.entries:
        if not entry["next"]:
            continue
        name = entry["name"]
        values, live = family.comparison.cosine(name, entry["next"]["dictionary"]), family.live(name)
        row: dict[str, Any] = {
            "sweep": family.label,
            "dictionary": name,
            "size": entry["dict_size"],
            "l1": entry.get("l1"),
            "seed": entry.get("seed"),
            "overcomplete": entry["dict_size"] > family.dimensions,
            "untrained": family.below(entry, "next"),
            "features": int(live.sum()),
            "dead": int((~live).sum()),
            "live_histogram": histogram(values[live], BINS),
            "dead_histogram": histogram(values[~live], BINS),
        }
        tested, upper = _tested(values[live])
        if upper is not None:
            tested["modes"] |= _members(family, name, upper, live.numpy())
        row |= tested
        row["everything"] = _tested(values)[0] | {"features": len(values)}
        rows.append(row)
    return rows


def _tested(values: Tensor) -> tuple[dict[str, Any], Array | None]:
    """The dip test and the fit of two modes of MCS [n], and each value's share of the upper mode; None if too few."""
    if len(values) < LEAST_FEATURES:
        return {"dip": None, "p": None, "modes": None, "bimodal": None}, None
    own = values.double().numpy()
    (found, p), fit = p_value(own), fit_two_modes(own)
    judged = bimodal(p, fit.ashman, fit.weights, len(own))
    return {"dip": found, "p": p, "modes": fit.as_json(), "bimodal": judged}, fit.upper


def _members(family: Family, name: str, upper: Array, live: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Density and cosine with the start of the live features in each mode, the lower one first."""
    found = {}
    density, start = family.density(name), family.dictionaries[name].features.get("initial_cosine")
    shares = (1 - upper, upper)
    if density is not None:
        log = np.log(density.double().numpy()[live])
        found["density"] = [float(np.exp(np.average(log, weights=share))) for share in shares]
    if start is not None:
        moved = start.double().numpy()[live]
        found["initial_cosine"] = [float(np.average(moved, weights=share)) for share in shares]
    return found
