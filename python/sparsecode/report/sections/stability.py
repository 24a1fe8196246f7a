"""The stability of features: the share of other dictionaries in which each is found again, and the steadiest ones."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecode.comparison.records import Steady
from sparsecode.records import as_json
from sparsecode.report import figures_stability
from sparsecode.report.blocks import Column, Section, Table, shown
from sparsecode.report.facts import Facts

LISTED = 50  # number of steadiest features: few enough to read


def section(facts: Facts) -> Section | None:
    """Distribution of stability by size, its ends by dictionary, and the list of the steadiest features."""
    others = len(facts.comparison.names) - 1
    if others < 1:
        return None
    listed = facts.comparison.contents.steadiest
    table = figures_stability.stability_table(facts)
    return Section(
        "stability",
        "Which features are steady",
        f"{sum(one.stability == 1 for one in listed)} distinct features are found again in all {others} other "
        "dictionaries of the comparison.",
        _lead(table, others),
        shown(figures_stability.stability_histograms(facts), table, _steadiest(listed[:LISTED])),
        how="Stability of a feature is the share of the other dictionaries, of all sizes, seeds and L1, that have an "
        f"atom with a cosine above {facts.threshold:g} to its own; every dictionary's file carries it as "
        "features.stability. Dead features never fired on the held-out rows, and are kept apart. The steadiest are "
        "ranked by stability, then by mean cosine; the same direction is listed once, in the dictionary where it is "
        "steadiest.",
        numbers={"dictionaries": others, "threshold": facts.threshold, "steadiest": as_json(listed)},
    )


def _lead(table: Table | None, others: int) -> list[str]:
    """The stability of features in the dictionary with most live ones."""
    rows = table.as_json()["rows"] if table is not None else []
    largest = max(rows, key=lambda row: row["live"], default=None)
    if largest is None or not largest["live"]:
        return []
    in_all, in_none = largest["in all"] / largest["live"], largest["in none"] / largest["live"]
    return [
        f"The {largest['live']:,} live features of {largest['dictionary']} are found again in "
        f"{largest['mean stability']:.0%} of the {others} other dictionaries on average (95 % interval "
        f"{largest['from']:.0%} to {largest['to']:.0%}): {in_all:.0%} of them in every one, {in_none:.0%} in none."
    ]


def _steadiest(listed: Sequence[Steady]) -> Table | None:
    if not listed:
        return None
    columns = [
        Column("dictionary"),
        Column("feature", ",d"),
        Column("found again", ".0%", "stability: share of the other dictionaries"),
        Column("mean cosine", ".3f"),
        Column("lowest", ".3f"),
        Column("density", ".2%", "share of held-out rows on which it fires"),
    ]
    rows = [
        [one.dictionary, one.feature, one.stability, one.mean_cosine, one.lowest_cosine, one.density] for one in listed
    ]
    return Table("steadiest", f"The {len(rows)} steadiest features", columns, rows, folded=True)
