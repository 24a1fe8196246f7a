"""Claim 1: more features than dimensions come back in other, larger dictionaries.

A feature comes back where it and an atom of the other dictionary are each other's nearest: two copies of one feature
count once. How many near-duplicates the dictionary has itself stands beside it.

Needs: the model; a dictionary and its larger relatives, all trained; more live features than dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecode.comparison import Entry, Relation, chance
from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence, Row
from sparsecode.science.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval

CLAIM = (
    "Many more features than the space has dimensions are recovered, with high cosine similarity to features of other, "
    "larger dictionaries."
)
RELATIONS: dict[str, str] = {
    Relation.NEXT: "next larger size",
    Relation.NEXT_OTHER_SEED: "next larger size from another seed",
    Relation.OTHER_SEED: "same size from another seed",
}
_LARGER = (Relation.NEXT, Relation.NEXT_OTHER_SEED)


@dataclass(frozen=True)
class Count(Row):
    """How many features of a dictionary come back in another."""

    relation: str
    other: str
    above: int  # features above the threshold
    distinct: int  # atoms of the other dictionary that these point at
    mutual: int
    near_duplicates: int
    low: float
    high: float
    mmcs: float
    mmcs_by_chance: float
    above_by_chance: float


@dataclass(frozen=True)
class Numbers:
    """Every dictionary beside its relatives; `judged` is the one with most features that come back."""

    dimensions: int
    threshold: float
    judged: str | None
    dictionaries: list[Count]


def judge(evidence: Evidence) -> Finding[Numbers]:
    """Counts of features above the threshold per dictionary, beside random directions; the best one is judged."""
    main, dimensions = evidence.main, evidence.main.comparison.dimensions
    rows = [row for sweep in evidence.sweeps for row in _rows(sweep)]
    best = best_dictionary(main)
    verdict = rule({}, 0.0, 0, dimensions)
    candidates = [entry for entry in main.entries if entry.next]
    chosen = best or max(candidates, key=lambda entry: entry.dict_size, default=None)
    if chosen is not None:
        name, size = chosen.name, chosen.dict_size
        own = [row for row in rows if (row.sweep, row.dictionary) == (main.label, name) and row.relation in _LARGER]
        counts = {RELATIONS[row.relation]: Interval(row.mutual, row.low, row.high) for row in own}
        verdict = rule(counts, max(row.above_by_chance for row in own), size, dimensions)
        if size > dimensions:
            live = int(main.live(name).sum())
            why = f"{name} has {live} live features, not more than the {dimensions} dimensions"
            if thin := trained.listed(main.below(chosen, *_LARGER)) or ("" if live > dimensions else why):
                verdict = trained.too_thin(thin)
    return Finding(CLAIM, verdict, Numbers(dimensions, main.comparison.threshold, best.name if best else None, rows))


def rule(counts: Mapping[str, Interval], by_chance: float, features: int, dimensions: int) -> Verdict:
    """The verdict on one dictionary.

    Reproduced where in every kind of larger dictionary it was compared with (same seed, another seed), the number of
    its features that come back, as pairs that are each other's nearest, is above the dimensions of the space, and ten
    times what random directions reach.

    Args:
        counts: by what the other dictionary is; empty where there is none.
        by_chance: features that would be found again if atoms were random directions.
        features: size of the dictionary.
        dimensions: of the space.
    """
    if not counts:
        return not_tested("No dictionary was compared with a larger one.")
    if features <= dimensions:
        return not_tested(
            f"The largest dictionary that has a larger relative holds {features} features, not more than the "
            f"{dimensions} dimensions; train larger ones."
        )
    kind, worst = min(counts.items(), key=lambda item: item[1].low)
    number = f"{worst.value:.0f} of {features} features ({worst.low:.0f} to {worst.high:.0f}), {dimensions} dimensions"
    bar = max(float(dimensions), 10 * by_chance)
    if worst.low > bar:
        return Verdict(REPRODUCED, f"Also in the {kind} the count is above the width of the space.", number)
    if worst.value > bar:
        return Verdict(NOT_REPRODUCED, f"In the {kind} the count is not clearly above the width.", number).doubted(True)
    below = Verdict(NOT_REPRODUCED, f"In the {kind} the count is not above the width of the space.", number)
    return below.doubted(worst.holds(bar))


def best_dictionary(sweep: ComparedSweep) -> Entry | None:
    """The dictionary with most features found again in every larger relative, among those with more features than
    dimensions; untrained ones, and those with untrained relatives, count only if there are no others.
    """
    fits = [entry for entry in sweep.entries if entry.next and entry.dict_size > sweep.comparison.dimensions]
    fits = [entry for entry in fits if not sweep.below(entry, *_LARGER)] or fits

    def least(entry: Entry) -> int:
        return min(found.mutual for relation in _LARGER if (found := entry.relative(relation)))

    return max(fits, key=least, default=None)


def _rows(sweep: ComparedSweep) -> list[Count]:
    rows, comparison = [], sweep.comparison
    for entry in sweep.entries:
        for relation in (*_LARGER, Relation.OTHER_SEED):
            found = entry.relative(relation)
            if found is None:
                continue
            values = comparison.cosine(entry.name, found.dictionary)
            others = len(comparison.tensors[f"{found.dictionary}.cosine"])
            interval = bootstrap.count(found.mutual, len(values))
            above = values > comparison.threshold
            row = Count(
                **sweep.named(entry),
                relation=relation.value,
                other=found.dictionary,
                above=int(above.sum()),
                distinct=len(set(comparison.index(entry.name, found.dictionary)[above].tolist())),
                mutual=int(interval.value),
                near_duplicates=entry.near_duplicates.features,
                low=interval.low,
                high=interval.high,
                mmcs=float(values.double().mean()),
                mmcs_by_chance=chance.expected_mmcs(others, comparison.dimensions),
                above_by_chance=len(values) * chance.share_above(comparison.threshold, others, comparison.dimensions),
            )
            rows.append(row)
    return rows
