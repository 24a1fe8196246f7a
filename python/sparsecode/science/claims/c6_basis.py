"""Claim 6: learned features are not sparse in the basis of neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecode.science.claims import trained
from sparsecode.science.claims.c1_recurrence import best_dictionary
from sparsecode.science.claims.evidence import Evidence, Finding
from sparsecode.science.claims.verdicts import LEAST_DIRECTIONS, RANDOM_PERCENTILE, not_sparse_in_neurons
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.sparsity import MEASURES, Array, participation_ratio
from sparsecode.science.top_contexts import Rows

CLAIM = "Learned features, including those that come back, are not at all sparse in the basis of neurons."
RANDOM = 5000
ROWS, PARTS = 4000, 16  # activations beside them, from all over the dataset: what the features are made of
QUANTILES = (5, 25, 50, 75, 95)


def judge(evidence: Evidence) -> Finding:
    """Participation ratio, L1/L2 and kurtosis of atoms beside random directions, neurons and activations.

    Random directions are uniform ones, and weighted ones: each component times its neuron's standard deviation.
    """
    family = evidence.main
    fits = [one for one in family.entries if one["name"] not in family.untrained] or family.entries
    entry = best_dictionary(family)
    if entry is None or entry["name"] in family.untrained:
        entry = max(fits, key=lambda one: int(family.found_again(one).sum()))
    atoms = family.dictionaries[entry["name"]].W_dec.double().numpy()
    again, live = family.found_again(entry).numpy(), family.live(entry["name"]).numpy()
    random = np.random.default_rng(evidence.config.seed).standard_normal((RANDOM, family.dimensions))
    groups: dict[str, Any] = {
        "found again": atoms[again],
        "live": atoms[live],
        "random directions": random,
        "neurons": np.eye(family.dimensions),
    }
    if evidence.dataset is not None:
        rows = _spread(evidence.dataset)
        groups["random, weighted"] = random * rows.std(axis=0)
        groups["activations"] = rows[(rows != 0).any(axis=1)]
    table = [
        {"group": group, "directions": len(rows), "measure": measure, "quantiles": _quantiles(compute(rows))}
        for group, rows in groups.items()
        for measure, compute in MEASURES.items()
        if len(rows)
    ]
    bounds = {
        group: float(np.percentile(participation_ratio(groups[group]), RANDOM_PERCENTILE))
        for group in ("random directions", "random, weighted")
        if group in groups
    }
    shares: dict[str, Interval] = {}
    ratios: dict[str, float] = {}
    if again.sum() >= LEAST_DIRECTIONS:
        values = participation_ratio(groups["found again"])
        for group, bound in bounds.items():
            shares[group] = bootstrap.interval((values >= bound).astype(float), draws=evidence.config.draws)
        names = {"features": "found again", "random": "random directions", "weighted": "random, weighted"}
        ratios = {
            name: float(np.median(participation_ratio(groups[group])))
            for name, group in names.items()
            if group in groups
        }
    numbers = {
        "dictionary": entry["name"],
        "quantiles": list(QUANTILES),
        "groups": table,
        "random_percentile": {"percentile": RANDOM_PERCENTILE, "participation ratio": bounds},
        "as_spread_as": {group: share.as_json() for group, share in shares.items()},
        "participation_ratios": {
            group: np.round(participation_ratio(groups[group]), 3).tolist() for group in ("found again", "live")
        },
    }
    verdict = not_sparse_in_neurons(shares.get("random directions"), shares.get("random, weighted"), ratios)
    if entry["name"] in family.untrained:
        verdict = trained.too_thin(trained.listed(family.below(entry)))
    return Finding(CLAIM, verdict, numbers)


def _spread(dataset: Rows) -> Array:
    """[R, D] of up to ROWS rows in PARTS stretches over the whole dataset: neighbouring rows are of one text."""
    own = min(ROWS, dataset.rows) // PARTS or 1
    starts = np.linspace(0, dataset.rows - own, PARTS).astype(int)
    parts: Array = np.concatenate([dataset.read(int(start), int(start) + own).double().numpy() for start in starts])
    return parts


def _quantiles(values: Any) -> list[float]:
    return [float(value) for value in np.percentile(values, QUANTILES)]
