"""Dictionaries of several layers side by side: where their atoms lie."""

from __future__ import annotations

from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section | None:
    """A row per dictionary, with the share of its atoms in each layer; None for those of one layer."""
    entries = [entry for entry in facts.comparison.entries if entry.metrics.get("layers")]
    if not entries:
        return None
    hooks = list(dict.fromkeys(hook for entry in entries for hook in entry.metrics["layers"]))
    columns = [
        Column("dictionary"),
        *(Column(hook, ".1%", "mean share of an atom's squared norm") for hook in hooks),
        Column("layers", ".2f", "in how many layers an atom lies, on average: 1 where all of it is in one"),
    ]
    rows = [
        [entry.name, *(entry.metrics["layers"].get(hook) for hook in hooks), entry.metrics.get("effective_layers")]
        for entry in entries
    ]
    return Section(
        "layers",
        "Layers",
        "",
        [],
        [Table("layers", "Where the atoms of each dictionary lie.", columns, rows)],
        how="Layers stand side by side, each on its own scale, and an atom has norm 1 over all of them. In how many it "
        "lies is 1 over the sum of the squares of its shares. The norm of each atom in each layer is in the "
        "dictionary's file, as norm.HOOK.",
    )
