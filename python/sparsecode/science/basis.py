"""Claim 6: learned features are not sparse in the basis of neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecode.science import bootstrap
from sparsecode.science.evidence import Evidence, Finding
from sparsecode.science.recurrence import best_dictionary
from sparsecode.science.sparsity import MEASURES, participation_ratio
from sparsecode.science.verdicts import LEAST_DIRECTIONS, RANDOM_PERCENTILE, not_sparse_in_neurons

CLAIM = "Learned features, including those that come back, are not at all sparse in the basis of neurons."
RANDOM = 5000
ROWS = 2000  # activations beside them: what the features are made of
QUANTILES = (5, 25, 50, 75, 95)


def judge(evidence: Evidence) -> Finding:
    """Participation ratio, L1/L2 and kurtosis of atoms beside random directions, neurons and activations."""
    family = evidence.main
    entry = best_dictionary(family) or max(family.entries, key=lambda one: int(family.found_again(one).sum()))
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
        rows = evidence.dataset.read(0, min(ROWS, evidence.dataset.rows)).double().numpy()
        groups["activations"] = rows[(rows != 0).any(axis=1)]
    table = [
        {"group": group, "directions": len(rows), "measure": measure, "quantiles": _quantiles(compute(rows))}
        for group, rows in groups.items()
        for measure, compute in MEASURES.items()
        if len(rows)
    ]
    spread, ratios = None, {}
    bound = float(np.percentile(participation_ratio(random), RANDOM_PERCENTILE))
    if again.sum() >= LEAST_DIRECTIONS:
        values = participation_ratio(groups["found again"])
        spread = bootstrap.interval((values >= bound).astype(float), draws=evidence.config.draws)
        ratios = {
            "features": float(np.median(values)),
            "random": float(np.median(participation_ratio(random))),
        }
    numbers = {
        "dictionary": entry["name"],
        "quantiles": list(QUANTILES),
        "groups": table,
        "random_percentile": {"percentile": RANDOM_PERCENTILE, "participation ratio": bound},
        "as_spread_as_random": spread and spread.as_json(),
        "participation_ratios": {
            group: np.round(participation_ratio(groups[group]), 3).tolist() for group in ("found again", "live")
        },
    }
    return Finding(CLAIM, not_sparse_in_neurons(spread, ratios), numbers)


def _quantiles(values: Any) -> list[float]:
    return [float(value) for value in np.percentile(values, QUANTILES)]
