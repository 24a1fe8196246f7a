"""Claim 1: more features than dimensions come back in other, larger dictionaries.

A feature comes back where it and an atom of the other dictionary are each other's nearest: two copies of one feature
count once. How many near-duplicates the dictionary has itself stands beside it.
"""

from __future__ import annotations

from typing import Any

from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import Evidence, Family, Finding
from sparsecode.science.claims.verdicts import more_features_than_dimensions
from sparsecode.science.statistics import bootstrap, chance
from sparsecode.science.statistics.bootstrap import Interval

CLAIM = (
    "Many more features than the space has dimensions are recovered, with high cosine similarity to features of other, "
    "larger dictionaries."
)
RELATIONS = {
    "next": "next larger size",
    "next_other_seed": "next larger size from another seed",
    "other_seed": "same size from another seed",
}
_LARGER = ("next", "next_other_seed")


def judge(evidence: Evidence) -> Finding:
    """Counts of features above the threshold per dictionary, beside random directions; the best one is judged."""
    rows = [row for family in evidence.families for row in _rows(family)]
    best = best_dictionary(evidence.main)
    counts: dict[str, Interval] = {}
    by_chance, size = 0.0, 0
    candidates = [entry for entry in evidence.main.entries if entry["next"]]
    chosen = best or max(candidates, key=lambda entry: entry["dict_size"], default=None)
    if chosen is not None:
        size = chosen["dict_size"]
        own = [row for row in rows if row["dictionary"] == chosen["name"] and row["relation"] in _LARGER]
        own = [row for row in own if row["sweep"] == evidence.main.label]
        counts = {RELATIONS[row["relation"]]: Interval(row["mutual"], row["low"], row["high"]) for row in own}
        by_chance = max(row["above_by_chance"] for row in own)
    verdict = more_features_than_dimensions(counts, by_chance, size, evidence.main.dimensions)
    if chosen is not None and size > evidence.main.dimensions:
        if below := evidence.main.below(chosen, *_LARGER):
            verdict = trained.too_thin(trained.listed(below))
        elif few := trained.live_above(chosen["name"], int(evidence.main.live(chosen["name"]).sum()),
                                       evidence.main.dimensions):  # fmt: skip
            verdict = trained.too_thin(few)
    numbers = {
        "dimensions": evidence.main.dimensions,
        "threshold": evidence.main.threshold,
        "judged": best["name"] if best else None,
        "dictionaries": rows,
    }
    return Finding(CLAIM, verdict, numbers)


def best_dictionary(family: Family) -> dict[str, Any] | None:
    """The dictionary with most features found again in every larger relative, among those with more features than
    dimensions; untrained ones, and those with untrained relatives, count only if there are no others.
    """
    fits = [entry for entry in family.entries if entry["next"] and entry["dict_size"] > family.dimensions]
    fits = [entry for entry in fits if not family.below(entry, *_LARGER)] or fits

    def least(entry: dict[str, Any]) -> int:
        return min(int(entry[relation]["mutual"]) for relation in _LARGER if entry[relation])

    return max(fits, key=least, default=None)


def _rows(family: Family) -> list[dict[str, Any]]:
    rows = []
    for entry in family.entries:
        for relation in RELATIONS:
            if not entry[relation]:
                continue
            other = entry[relation]["dictionary"]
            values = family.comparison.cosine(entry["name"], other)
            others = len(family.comparison.tensors[f"{other}.cosine"])
            found = int(entry[relation]["mutual"])
            interval = bootstrap.count(found, len(values))
            rows.append(
                {
                    "sweep": family.label,
                    "dictionary": entry["name"],
                    "size": entry["dict_size"],
                    "l1": entry.get("l1"),
                    "seed": entry.get("seed"),
                    "relation": relation,
                    "other": other,
                    "above": int((values > family.threshold).sum()),
                    "distinct": _distinct(family, entry, relation),
                    "mutual": found,
                    "near_duplicates": entry["near_duplicates"]["features"],
                    "low": interval.low,
                    "high": interval.high,
                    "mmcs": float(values.double().mean()),
                    "mmcs_by_chance": chance.expected_mmcs(others, family.dimensions),
                    "above_by_chance": len(values) * chance.share_above(family.threshold, others, family.dimensions),
                }
            )
    return rows


def _distinct(family: Family, entry: dict[str, Any], relation: str) -> int:
    """Atoms of the other dictionary that features above the threshold point at."""
    other = entry[relation]["dictionary"]
    above = family.comparison.cosine(entry["name"], other) > family.threshold
    return len(set(family.comparison.index(entry["name"], other)[above].tolist()))
