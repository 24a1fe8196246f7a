"""The data for the sections of a report, read once from a run's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsecode.comparison import Comparison
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
    baselines: dict[str, Any] | None = None  # baselines.json; None where there are none
    toy: dict[str, Any] | None = None  # toy.json; None where there are none
    untested: str = "The claims were not tested yet"

    @property
    def dictionaries(self) -> list[dict[str, Any]]:
        """The comparison's entries, one per dictionary, ordered by L1, seed and size."""
        return sorted(self.comparison.record["dictionaries"], key=_order)

    @property
    def threshold(self) -> float:
        """Cosine above which a feature counts as found again."""
        return float(self.comparison.record["settings"]["threshold"])

    @property
    def dimensions(self) -> int:
        """Width of the activations."""
        return int(self.comparison.record["dictionaries"][0]["activation_dim"])

    def finding(self, number: str) -> Finding[Any]:
        """The finding on a claim; without numbers if it was not tested."""
        if self.claims is not None:
            return self.claims.claims[number]
        return Finding(CLAIMS[number].CLAIM, not_tested(self.untested))

    def result(self, key: str) -> dict[str, Any]:
        """The result that a stage recorded; empty if it did not run here."""
        return dict(self.stages.get(key, {}).get("result") or {})

    def label(self, entry: dict[str, Any], *, size: bool = True) -> str:
        """A short label of a dictionary: its size, and L1 and seed only if they vary."""
        parts = [str(entry["dict_size"])] if size else []
        for key, shown in (("l1", "L1 {:.3g}"), ("seed", "seed {}")):
            if len({other.get(key) for other in self.dictionaries}) > 1 and entry.get(key) is not None:
                parts.append(shown.format(entry[key]))
        return " · ".join(parts)

    def best(self) -> tuple[dict[str, Any], str] | None:
        """The dictionary with most features found again, and the relative: of another seed if there is one."""
        for relation in ("next_other_seed", "next", "other_seed"):
            fits = [entry for entry in self.dictionaries if entry[relation]]
            if fits:
                return max(fits, key=lambda entry: entry[relation]["mutual"]), relation
        return None

    def families(self) -> list[list[dict[str, Any]]]:
        """Lists of dictionaries that differ only in size, sorted by size."""
        found: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
        for entry in self.dictionaries:
            found.setdefault((entry.get("l1"), entry.get("seed")), []).append(entry)
        return list(found.values())


def _order(entry: dict[str, Any]) -> tuple[float, int, int, str]:
    return (entry.get("l1") or 0.0, entry.get("seed") or 0, entry["dict_size"], entry["name"])
