"""Claims 1 to 6: each judged on the evidence, and what claims.json says of them. Claim 7 is judged on toy models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from sparsecode.machine import versions
from sparsecode.records import as_json, from_json
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
from sparsecode.science.claims.evidence import ComparedSweep, Evidence
from sparsecode.science.claims.verdicts import Finding

FORMAT = 3

# Each with its words CLAIM, its `judge`, and the type `Numbers` of what it measures.
CLAIMS: dict[str, ModuleType] = {
    "1": c1_recurrence,
    "2": c2_bimodality,
    "3": c3_interpretability,
    "4": c4_normalisation,
    "5": c5_growth,
    "6": c6_basis,
}


@dataclass(frozen=True)
class Findings:
    """What was found on a run.

    Attributes:
        thin: by the stage that made it, what is below the bounds of `trained`; stages without anything are left out.
        claims: by number.
        starts: None where they were not compared.
    """

    thin: dict[str, list[str]]
    claims: dict[str, Finding[Any]]
    starts: starts.Starts | None

    def as_json(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What claims.json holds; `settings` are those that it was made with, as JSON values."""
        return {
            "format": FORMAT,
            "sparsecode_version": versions().get("sparsecode"),
            "settings": settings,
            "thin": self.thin,
            "claims": {number: finding.as_json() for number, finding in self.claims.items()},
            "starts": as_json(self.starts),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Findings:
        """What `as_json` gave.

        Raises:
            KeyError, TypeError, AttributeError: the record is another.
        """
        claims = {number: Finding.from_json(own.Numbers, record["claims"][number]) for number, own in CLAIMS.items()}
        return cls(record["thin"], claims, from_json(starts.Starts | None, record["starts"]))


def judged(evidence: Evidence) -> Findings:
    """The findings on every claim; no verdict on any where the model was not trained."""
    found = {number: own.judge(evidence) for number, own in CLAIMS.items()}
    if evidence.untrained_model:
        verdict = trained.too_thin(evidence.untrained_model)
        found = {number: replace(finding, verdict=verdict) for number, finding in found.items()}
    begun = starts.summary(evidence.starts, evidence.start_samples, evidence.config.draws) if evidence.starts else None
    return Findings(_thin(evidence), found, begun)


def _thin(evidence: Evidence) -> dict[str, list[str]]:
    def lines(one: ComparedSweep) -> list[str]:
        return trained.counted(one.untrained, len(one.entries))

    beside = [one for one in (evidence.plain, evidence.divided) if one is not None]
    found = {
        "train-gpt": [evidence.untrained_model] if evidence.untrained_model else [],
        "train-dicts": lines(evidence.main),
        "claims": [f"{one.label} sweep: {line}" for one in beside for line in lines(one)],
    }
    return {stage: own for stage, own in found.items() if own}
