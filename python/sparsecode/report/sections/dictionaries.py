"""The sweep: what was trained and how well it reconstructs."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures
from sparsecode.report.blocks import Block, Column, Section, Table
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """A row per dictionary, and FVU against L0."""
    known = [entry.get("metrics") or {} for entry in facts.dictionaries]
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
    blocks: list[Block] = [_table(facts)]
    figure = figures.fvu_against_l0(facts)
    return Section(
        "dictionaries",
        "The dictionaries",
        summary,
        [],
        blocks + ([figure] if figure else []),
        how="FVU is the sum of squared residuals over the sum of squared deviations from the mean; L0 the mean number "
        "of active features per row; a feature is dead if it never fired on the held-out rows. Matched: mean cosine "
        "of the best one-to-one matching with the next larger dictionary.",
    )


def _table(facts: Facts) -> Table:
    kinds = any(entry.get("kind") for entry in facts.dictionaries)
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
    rows = [[entry.get("kind") or "relu", *_row(entry)] if kinds else _row(entry) for entry in facts.dictionaries]
    return Table("sweep", "All dictionaries of the sweep.", columns, rows)


def _row(entry: dict[str, Any]) -> list[Any]:
    metrics, nearest = entry.get("metrics") or {}, entry["next"]
    found = nearest["mcs"] if nearest else {}
    matched = nearest and nearest["matched"]
    dead = metrics.get("dead") if entry["live"] is None else entry["dict_size"] - entry["live"]
    return [
        entry["dict_size"],
        entry.get("l1"),
        entry.get("seed"),
        metrics.get("fvu"),
        metrics.get("l0"),
        dead,
        entry["near_duplicates"]["features"],
        found.get("all", {}).get("mean"),
        nearest["chance_mmcs"] if nearest else None,
        matched["all"]["mean"] if matched else None,
        found.get("all", {}).get("share_above"),
        found.get("live", {}).get("share_above"),
        entry["other_seed"]["mutual"] if entry["other_seed"] else None,
    ]
