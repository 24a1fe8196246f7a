"""Claim 1: more features than dimensions come back."""

from __future__ import annotations

from sparsecode.report import charts, figures, palette
from sparsecode.report.blocks import Column, Figure, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section, curves_by_l1
from sparsecode.science.claims.c1_recurrence import RELATIONS, Count, Numbers

HOW = (
    "Each atom of a dictionary is compared with all atoms of another; its largest cosine is its max cosine "
    "similarity (MCS), their mean the MMCS. The verdict counts pairs that are each other's nearest, so that two "
    "copies of a feature count once, in the dictionary with most of them; the interval is that of a binomial count "
    "over features. By chance: closed form for random directions of the same numbers."
)


def section(facts: Facts) -> Section:
    """Counts per size and L1, beside chance."""
    lead, summary = [], ""
    best = facts.comparison.best()
    found = best and best[0].relative(best[1])
    if best is not None and found is not None:
        (entry, relation), width, own = best, facts.dimensions, best[0].near_duplicates
        count = found.mutual
        judged = "more than" if count > width else "as many as" if count == width else "fewer than"
        summary = (
            f"{count:,} of the {entry.dict_size:,} features of {entry.name} are found again in "
            f"{found.dictionary}, {judged} the {width} dimensions of the space."
        )
        lead.append(
            f"Found again: cosine above {facts.threshold:g} with an atom of the other dictionary, here "
            f"{RELATIONS[relation]}, and each the other's nearest; {found.mcs.all.above:,} features are above it in "
            f"all. {own.features:,} features have a near-duplicate in their own dictionary (cosine above "
            f"{own.threshold:g}). The features of {entry.name} reach a mean of {found.mcs.all.mean:.2f}; random "
            f"directions would reach {found.chance_mmcs:.2f}."
        )
    numbers: Numbers | None = facts.finding("1").numbers
    rows = numbers.dictionaries if numbers else []
    blocks = [figures.found_again(facts), _counts_by_l1(facts, rows), _table(rows)]
    return claim_section(
        facts, "1", "more-than-dimensions", "More features than dimensions", summary, blocks, HOW, lead
    )


def _counts_by_l1(facts: Facts, rows: list[Count]) -> Figure | None:
    """Features found again in the next larger dictionary over size, with a curve per L1 of the claims' sweep."""
    curves: dict[float, list[charts.Point]] = {}
    for row in rows:
        if row.sweep != "run" and row.relation == "next" and row.l1 is not None:
            curves.setdefault(row.l1, []).append((row.size, row.mutual, row.low, row.high))
    return curves_by_l1(
        "counts-by-l1",
        "The same count for several L1, from the short sweep that the claims stage trains: fewer rows than above. "
        "Whiskers: 95 % intervals.",
        "Curves of the number of features found again over dictionary size, one per L1 coefficient.",
        "Features that are each other's nearest with an atom of the next larger dictionary, above the threshold.",
        {"mutual": ",d", "from": ",.0f", "to": ",.0f"},
        curves,
        lambda name: f"{name}: %{{y}} of %{{x}} features",
        palette.axis("features found again, mutual nearest", rangemode="tozero"),
        **palette.line_at(facts.dimensions, f"{facts.dimensions} dimensions"),
    )


def _table(rows: list[Count]) -> Table | None:
    if not rows:
        return None
    columns = [
        Column("dictionary"),
        Column("compared with"),
        Column("L1", ".3g"),
        Column("above", ",d", "features above the threshold"),
        Column("distinct", ",d", "distinct atoms of the other dictionary that they come back as"),
        Column("mutual", ",d", "features that are their nearest atom's nearest too: these are judged"),
        Column("near-duplicates", ",d", "live features with another atom of their own dictionary near them"),
        Column("from", ",.0f", "95 % interval"),
        Column("to", ",.0f", "95 % interval"),
        Column("MMCS", ".3f"),
        Column("by chance", ".3f", "MMCS of random directions, closed form"),
        Column("above by chance", ".2g", "features above the threshold if atoms were random directions"),
    ]
    values = [
        [row.dictionary, RELATIONS[row.relation], row.l1, row.above, row.distinct,
         row.mutual, row.near_duplicates, row.low, row.high, row.mmcs,
         row.mmcs_by_chance, row.above_by_chance]
        for row in rows
    ]  # fmt: skip
    return Table("counts", "Every dictionary of every sweep: features found again", columns, values, folded=True)
