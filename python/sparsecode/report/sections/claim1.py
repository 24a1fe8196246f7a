"""Claim 1: more features than dimensions come back."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures, figures_claims
from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c1_recurrence import CLAIM, RELATIONS

ID, TITLE = "more-than-dimensions", "More features than dimensions"


def section(facts: Facts) -> Section:
    """Counts per size and L1, beside chance."""
    lead, summary = [], ""
    best = facts.best()
    if best is not None:
        entry, relation = best
        found = entry[relation]["mcs"]["all"]
        width = facts.dimensions
        count, own = entry[relation]["mutual"], entry["near_duplicates"]
        judged = "more than" if count > width else "as many as" if count == width else "fewer than"
        summary = (
            f"{count:,} of the {entry['dict_size']:,} features of {entry['name']} are found again in "
            f"{entry[relation]['dictionary']}, {judged} the {width} dimensions of the space."
        )
        lead.append(
            f"Found again: cosine above {facts.threshold:g} with an atom of the other dictionary, here "
            f"{RELATIONS[relation]}, and each the other's nearest; {found['above']:,} features are above it in all. "
            f"{own['features']:,} features have a near-duplicate in their own dictionary (cosine above "
            f"{own['threshold']:g}). The features of {entry['name']} reach a mean of {found['mean']:.2f}; random "
            f"directions would reach {entry[relation]['chance_mmcs']:.2f}."
        )
    rows = facts.finding("1")["numbers"].get("dictionaries", [])
    return claim_section(
        facts,
        "1",
        ID,
        TITLE,
        CLAIM,
        summary,
        [figures.found_again(facts), figures_claims.counts_by_l1(facts, rows), _table(rows)],
        how="Each atom of a dictionary is compared with all atoms of another; its largest cosine is its max cosine "
        "similarity (MCS), their mean the MMCS. The verdict counts pairs that are each other's nearest, so that "
        "two copies of a feature count once, in the dictionary with most of them; the interval is that of a binomial "
        "count "
        "over features. By chance: closed form for random directions of the same numbers.",
        lead=lead,
    )


def _table(rows: list[dict[str, Any]]) -> Table | None:
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
        [row["dictionary"], RELATIONS[row["relation"]], row["l1"], row["above"], row["distinct"],
         row["mutual"], row["near_duplicates"], row["low"], row["high"], row["mmcs"],
         row["mmcs_by_chance"], row["above_by_chance"]]
        for row in rows
    ]  # fmt: skip
    return Table("counts", "Every dictionary of every sweep: features found again", columns, values, folded=True)
