"""The sweep: what was trained and how well it reconstructs."""

from __future__ import annotations

from typing import Any

from sparsecode.comparison import Entry
from sparsecode.report import figures
from sparsecode.report.blocks import Column, Section, Table, shown
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """A row per dictionary, and FVU against L0."""
    known = [entry.metrics for entry in facts.comparison.entries]
    measured = [found for found in known if found.get("fvu") is not None and found.get("l0") is not None]
    summary = ""
    if measured:
        explained = sorted(1 - found["fvu"] for found in measured)
        active = sorted(found["l0"] for found in measured)
        summary = (
            f"On {measured[0]['rows']:,} held-out rows the {len(measured)} dictionaries explain "
            f"{explained[0]:.0%} to {explained[-1]:.0%} of the variance with {active[0]:.1f} to {active[-1]:.1f} "
            "active features per token."
        )
    return Section(
        "dictionaries",
        "The dictionaries",
        summary,
        [],
        shown(_table(facts), figures.fvu_against_l0(facts)),
        how="FVU is the sum of squared residuals over the sum of squared deviations from the mean; L0 the mean number "
        "of active features per row; a feature is dead if it never fired on the held-out rows. Matched: mean cosine "
        "of the best one-to-one matching with the next larger dictionary.",
    )


def _table(facts: Facts) -> Table:
    kinds = any(entry.kind for entry in facts.comparison.entries)
    columns = [
        *([Column("kind")] if kinds else []),
        Column("size", ",d"),
        Column("L1", ".3g"),
        Column("seed", "d"),
        Column("FVU", ".3f", "share of variance not explained"),
        Column("L0", ".2f", "active features per token"),
        Column("dead", ",d", "features that never fired on the held-out rows"),
        Column("near-dup.", ",d", "live features with another atom of their own dictionary near them"),
        Column("MMCS next", ".3f", "mean max cosine similarity with the next larger dictionary"),
        Column("by chance", ".3f", "the same for random directions"),
        Column("matched", ".3f", "mean cosine of the one-to-one matching with the next larger dictionary"),
        Column(f"above {facts.threshold:g}", ".1%", "share of features above the threshold in the next larger one"),
        Column("of live", ".1%", "share of live features"),
        Column("other seed", ",d", "features above it in the same size from another seed, each the other's nearest"),
    ]
    rows = [[entry.kind or "relu", *_row(entry)] if kinds else _row(entry) for entry in facts.comparison.entries]
    return Table("sweep", "All dictionaries of the sweep.", columns, rows)


def _row(entry: Entry) -> list[Any]:
    metrics, nearest = entry.metrics, entry.next
    mcs, matched = nearest and nearest.mcs, nearest and nearest.matched
    return [
        entry.dict_size,
        entry.l1,
        entry.seed,
        metrics.get("fvu"),
        metrics.get("l0"),
        metrics.get("dead") if entry.live is None else entry.dict_size - entry.live,
        entry.near_duplicates.features,
        mcs and mcs.all.mean,
        nearest and nearest.chance_mmcs,
        matched and matched.all.mean,
        mcs and mcs.all.share_above,
        mcs and mcs.live and mcs.live.share_above,
        entry.other_seed and entry.other_seed.mutual,
    ]
