"""The start of the dictionaries, and the results of other starts on the same rows."""

from __future__ import annotations

from sparsecode.records import as_json
from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.science.claims.starts import Start


def section(facts: Facts) -> Section | None:
    """A row per start and size, with claims 2 and 5 on each; None if the starts were not compared."""
    found = facts.claims.starts if facts.claims else None
    if not found:
        return None
    starts = found.starts
    return Section(
        "starts",
        "How these dictionaries were started",
        _summary(facts, starts),
        [
            f"{kind}: {start.words}. Claim 2 on it: {start.modes.verdict} ({start.modes.number}); "
            f"claim 5: {start.growth.verdict} ({start.growth.number})."
            for kind, start in starts.items()
        ],
        [_table(starts)],
        how=f"The run's sweep again from each start, on the same {found.samples:,} rows in the same order: fewer "
        "than the run's own dictionaries saw. Moved: live features whose atom has a cosine below "
        f"{found.hardly_moved:.2f} with the one it started from, so that more than half of its squared length was "
        "learned. Other seed: features of the first seed found again in the same size of the other, each the other's "
        "nearest. docs/recipe.md compares more starts at equal L0.",
        numbers=as_json(found),
    )


def _summary(facts: Facts, starts: dict[str, Start]) -> str:
    """A sentence on the largest size that all starts have."""
    own = facts.stages.get("train-dicts", {}).get("settings", {}).get("start")
    largest = {kind: max(start.dictionaries, key=lambda row: row.size) for kind, start in starts.items()}
    if own not in largest:
        return ""
    others = "; ".join(
        f"from {kind} {row.dead:,} and {_share(row.moved)}" for kind, row in largest.items() if kind != own
    )
    row = largest[own]
    return (
        f"Started as these were ({own}), {row.dead:,} of {row.size:,} features are dead and "
        f"{_share(row.moved)} of the live ones left their start; {others}."
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def _table(starts: dict[str, Start]) -> Table:
    columns = [
        Column("start"),
        Column("size", ",d"),
        Column("L1", ".3g"),
        Column("FVU", ".3f", "share of variance not explained, on held-out rows"),
        Column("L0", ".2f", "active features per token"),
        Column("dead", ",d", "features that never fired on the held-out rows"),
        Column("moved", ".0%", "share of live features that left their start"),
        Column("near-dup.", ",d", "live features with another atom of their own dictionary near them"),
        Column("other seed", ",d", "features found again in the same size from another seed, mutual nearest"),
        Column("MMCS next", ".3f", "mean max cosine similarity with the next larger dictionary"),
    ]
    values = [
        [kind, row.size, row.l1, row.fvu, row.l0, row.dead, row.moved, row.near_duplicates, row.other_seed,
         row.mmcs_next]
        for kind, start in starts.items()
        for row in start.dictionaries
        if row.seed == min((one.seed for one in start.dictionaries if one.seed is not None), default=row.seed)
    ]  # fmt: skip
    return Table("starts", "Every start and size, of the first seed.", columns, values)
