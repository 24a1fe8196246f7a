"""Claim 2: the distribution of MCS between dictionaries of different sizes has two modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecode.compare.statistics import histogram
from sparsecode.science.dip import p_value
from sparsecode.science.evidence import Evidence, Family, Finding
from sparsecode.science.modes import two_modes as fit_two_modes
from sparsecode.science.verdicts import LEAST_FEATURES, bimodal, two_modes

CLAIM = (
    "The distribution of MCS between dictionaries of different sizes is highly bimodal: one set of features is found "
    "across sizes."
)
BINS = 50


def judge(evidence: Evidence) -> Finding:
    """Dip test and a fit of two normals for the live features of every dictionary with a larger relative."""
    rows = [row for family in evidence.families for row in _rows(family)]
    judged = [row for row in rows if row["sweep"] == evidence.main.label and row["overcomplete"]]
    for row in rows:
        fit = row["modes"]
        row["bimodal"] = fit and bimodal(row["p"], fit["ashman"], fit["weights"], row["features"])
    numbers = {"bins": BINS, "dictionaries": rows}
    return Finding(CLAIM, two_modes([row["bimodal"] for row in judged]), numbers)


def _rows(family: Family) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in family.entries:
        if not entry["next"]:
            continue
        name = entry["name"]
        values, live = family.comparison.cosine(name, entry["next"]["dictionary"]), family.live(name)
        alive = values[live].double().numpy()
        row: dict[str, Any] = {
            "sweep": family.label,
            "dictionary": name,
            "size": entry["dict_size"],
            "l1": entry.get("l1"),
            "seed": entry.get("seed"),
            "overcomplete": entry["dict_size"] > family.dimensions,
            "features": len(alive),
            "dead": int((~live).sum()),
            "live_histogram": histogram(values[live], BINS),
            "dead_histogram": histogram(values[~live], BINS),
            "dip": None,
            "p": None,
            "modes": None,
        }
        if len(alive) >= LEAST_FEATURES:
            row["dip"], row["p"] = p_value(alive)
            row["modes"] = _modes(family, name, alive, live.numpy())
        rows.append(row)
    return rows


def _modes(family: Family, name: str, alive: npt.NDArray[np.float64], live: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """The fit, with the density and the motion of the features in each mode."""
    fit = fit_two_modes(alive)
    found = fit.as_json()
    density, start = family.density(name), family.dictionaries[name].features.get("initial_cosine")
    shares = (1 - fit.upper, fit.upper)
    if density is not None:
        log = np.log(density.double().numpy()[live])
        found["density"] = [float(np.exp(np.average(log, weights=share))) for share in shares]
    if start is not None:
        moved = start.double().numpy()[live]
        found["initial_cosine"] = [float(np.average(moved, weights=share)) for share in shares]
    return found
