"""The data for the sections of a report, read once from a run's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsecode.comparison import Comparison, Entry
from sparsecode.consensus.records import ConsensusRecord
from sparsecode.science.claims.judge import CLAIMS, Findings
from sparsecode.science.claims.verdicts import Finding, not_tested


@dataclass(frozen=True)
class Facts:
    """The data of a run for its report."""

    features: int  # most features whose contexts are shown
    tokens: int  # most contexts of a feature
    stages: dict[str, Any]  # config.json's record of every stage
    gpt_metrics: list[dict[str, Any]]
    comparison: Comparison
    claims: Findings | None = None  # None where the claims were not tested
    consensus: ConsensusRecord | None = None  # None where there is none
    baselines: dict[str, Any] | None = None  # baselines.json; None where there are none
    interpretations: dict[str, Any] | None = None  # interpretations.json; None where there are none
    browser: str = ""  # where a page with every feature is, from the report; empty where there is none
    toy: dict[str, Any] | None = None  # toy.json; None where there are none
    untested: str = "The claims were not tested yet"

    @property
    def threshold(self) -> float:
        """Cosine above which a feature counts as found again."""
        return self.comparison.threshold

    @property
    def dimensions(self) -> int:
        """Width of the activations."""
        return self.comparison.dimensions

    @property
    def family(self) -> list[Entry]:
        """Dictionaries that differ from the best one in size only, by size; none where the best has no relative."""
        best = self.comparison.best()
        return next(one for one in self.comparison.families if best[0] in one) if best else []

    def finding(self, number: str) -> Finding[Any]:
        """The finding on a claim; without numbers if it was not tested."""
        if self.claims is not None:
            return self.claims.claims[number]
        return Finding(CLAIMS[number].CLAIM, not_tested(self.untested))

    def result(self, key: str) -> dict[str, Any]:
        """The result that a stage recorded; empty if it did not run here."""
        return dict(self.stages.get(key, {}).get("result") or {})

    def label(self, entry: Entry, *, size: bool = True) -> str:
        """A short label of a dictionary: its size, and kind or L1 and seed only if they vary."""
        parts = [str(entry.dict_size)] if size else []
        entries = self.comparison.entries
        if entry.kind is not None and len({other.kind for other in entries}) > 1:
            parts.append(entry.kind)
        elif entry.l1 is not None and len({other.l1 for other in entries}) > 1:
            parts.append(f"L1 {entry.l1:.3g}")
        if entry.seed is not None and len({other.seed for other in entries}) > 1:
            parts.append(f"seed {entry.seed}")
        return " · ".join(parts)
