"""Kinds of dictionaries beside each other, at about the same number of active features."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sparsecode.comparison import Entry
from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section | None:
    """A row per size and kind, each at the L0 that all kinds of that size come nearest to; None for a single kind."""
    entries = [entry for entry in facts.comparison.entries if _l0(entry) is not None]
    if len({entry.kind_name for entry in entries}) < 2:
        return None
    rows = []
    for size in sorted({entry.dict_size for entry in entries}):
        own = [entry for entry in entries if entry.dict_size == size]
        seeds = [entry.seed for entry in own if entry.seed is not None]
        rows += at_equal_l0(entry for entry in own if entry.seed == min(seeds, default=None))
    columns = [
        Column("kind"),
        Column("size", ",d"),
        Column("L0", ".2f", "active features per row"),
        Column("FVU", ".3f", "share of variance not explained, on held-out rows"),
        Column("dead", ",d", "features that never fired on the held-out rows"),
        Column("found again", ",d", "features found in the same size from another seed, each the other's nearest"),
        Column("of live", ".0%", "the same as a share of live features"),
    ]
    table = Table(
        "kinds", "Kinds of one size at about equal L0, of the first seed.", columns, [_row(one) for one in rows]
    )
    return Section(
        "kinds",
        "Kinds of dictionaries",
        "",
        [],
        [table],
        how="Of every kind the dictionary whose L0 is nearest, as a ratio, to the one that all kinds of that size come "
        f"nearest to. Found again: with a cosine above {facts.threshold:g}. The loss recovered takes the model, and is "
        "in no file of the run.",
    )


def at_equal_l0(entries: Iterable[Entry]) -> list[Entry]:
    """One of each kind: those whose L0 are nearest to each other, as ratios; of dictionaries with an L0."""
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        if _l0(entry) is not None:
            kinds.setdefault(entry.kind_name, []).append(entry)

    def chosen(target: float) -> list[tuple[float, Entry]]:
        """The nearest of each kind with its distance."""
        return [
            min(((abs(math.log(l0 / target)), one) for one in own if (l0 := _l0(one))), key=lambda pair: pair[0])
            for own in kinds.values()
        ]

    targets = sorted({l0 for own in kinds.values() for one in own if (l0 := _l0(one))})
    found = min((chosen(target) for target in targets), key=lambda pairs: max(gap for gap, _ in pairs), default=[])
    return [one for _, one in found]


def _l0(entry: Entry) -> float | None:
    """Its L0, where that was measured and any feature fired."""
    return entry.metrics.get("l0") or None


def _row(entry: Entry) -> list[object]:
    found = entry.other_seed.mutual if entry.other_seed else None
    return [
        entry.kind or (f"relu l1={entry.l1:.3g}" if entry.l1 is not None else "relu"), entry.dict_size,
        entry.metrics.get("l0"), entry.metrics.get("fvu"), entry.metrics.get("dead"), found,
        found / entry.live if found is not None and entry.live else None,
    ]  # fmt: skip
