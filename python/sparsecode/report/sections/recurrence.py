"""All pairs of dictionaries: how much of one is in the other, how far atoms moved, which features are steadiest."""

from __future__ import annotations

from sparsecode.report import figures
from sparsecode.report.blocks import Block, Column, Section, Table
from sparsecode.report.facts import Facts

LISTED = 50  # of the steadiest features: a page that can be read


def section(facts: Facts) -> Section:
    """MMCS between all pairs, motion of atoms, and the list of the steadiest features."""
    listed = facts.comparison.record["steadiest"]
    others = len(facts.comparison.names) - 1
    summary = (
        f"{sum(entry['stability'] == 1 for entry in listed)} distinct features are found again in all {others} other "
        "dictionaries of the comparison."
        if others
        else "There is one dictionary only."
    )
    blocks: list[Block | None] = [
        figures.mmcs_heat_map(facts), figures.how_far_atoms_moved(facts), _steadiest(listed[:LISTED])
    ]  # fmt: skip
    return Section(
        "recurrence",
        "Every dictionary against every other",
        summary,
        [],
        [block for block in blocks if block is not None],
        how="Products are exact in float32. Live features are those that fired on the held-out rows. Features are "
        "ranked by the share of the other dictionaries in which they are found again, then by mean cosine; the same "
        "direction is listed once.",
        numbers={
            "mmcs": facts.comparison.record["mmcs"] | {"order": facts.comparison.names},
            "dictionaries": {
                entry["name"]: {key: entry[key] for key in figures.RELATIONS} for entry in facts.dictionaries
            },
            "steadiest": listed,
        },
    )


def _steadiest(listed: list[dict[str, object]]) -> Table | None:
    if not listed:
        return None
    columns = [
        Column("dictionary"),
        Column("feature", ",d"),
        Column("found again", ".0%", "share of the other dictionaries"),
        Column("mean cosine", ".3f"),
        Column("lowest", ".3f"),
        Column("density", ".2%", "share of held-out rows on which it fires"),
    ]
    keys = ("dictionary", "feature", "stability", "mean_cosine", "lowest_cosine", "density")
    rows = [[entry[key] for key in keys] for entry in listed]
    return Table("steadiest", f"The {len(rows)} steadiest features", columns, rows, folded=True)
