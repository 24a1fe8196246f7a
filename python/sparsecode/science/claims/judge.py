"""All claims: each judged on the evidence, and what claims.json says of them.

The other claims of the seed (toy models, baselines) are judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparsecode.machine import versions
from sparsecode.science.claims import (
    c1_recurrence,
    c2_bimodality,
    c3_interpretability,
    c4_normalisation,
    c5_growth,
    c6_basis,
    starts,
    trained,
)
from sparsecode.science.claims.evidence import Evidence, Family, Finding

FORMAT = 3

CLAIMS: dict[str, Callable[[Evidence], Finding]] = {
    "1": c1_recurrence.judge,
    "2": c2_bimodality.judge,
    "3": c3_interpretability.judge,
    "4": c4_normalisation.judge,
    "5": c5_growth.judge,
    "6": c6_basis.judge,
}


def judged(evidence: Evidence) -> dict[str, Finding]:
    """What was found of every claim, by number; nothing of any where the model was not trained."""
    found = {number: judge(evidence) for number, judge in CLAIMS.items()}
    if evidence.untrained_model:
        verdict = trained.too_thin(evidence.untrained_model)
        found = {number: replace(finding, verdict=verdict) for number, finding in found.items()}
    return found


def as_json(evidence: Evidence, found: dict[str, Finding], settings: dict[str, Any]) -> dict[str, Any]:
    """What claims.json holds; `settings` are those that it was made with, as JSON values."""
    return {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": settings,
        "thin": thin_of(evidence),
        "claims": {number: finding.as_json() for number, finding in found.items()},
        "starts": starts_of(evidence),
    }


def starts_of(evidence: Evidence) -> dict[str, Any] | None:
    """What claims.json says of the starts; None where they were not compared."""
    if not evidence.starts:
        return None
    return starts.summary(evidence.starts, evidence.start_samples, evidence.config.draws)


def thin_of(evidence: Evidence) -> dict[str, list[str]]:
    """By the stage that made it: what is below the bounds of `trained`; stages without anything are left out."""
    found = {
        "train-gpt": [evidence.untrained_model] if evidence.untrained_model else [],
        "train-dicts": _thin_family(evidence.main),
        "claims": [
            f"{one.label} sweep: {line}"
            for one in (evidence.plain, evidence.divided)
            if one is not None
            for line in _thin_family(one)
        ],
    }
    return {stage: lines for stage, lines in found.items() if lines}


def _thin_family(one: Family) -> list[str]:
    if not one.untrained:
        return []
    return [f"{len(one.untrained)} of {len(one.entries)} dictionaries: {trained.listed(one.untrained)}"]
