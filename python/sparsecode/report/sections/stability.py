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
        shown(figures_stability.stability_histograms(facts), table, _by_seed(facts), _steadiest(listed[:LISTED])),
        how="Stability of a feature is the share of the other dictionaries, of all sizes, seeds and L1, that have an "
        f"atom with a cosine above {facts.threshold:g} to its own; every dictionary's file carries it as "
        "features.stability. Dead features never fired on the held-out rows, and are kept apart. The steadiest are "
        "ranked by stability, then by mean cosine; the same direction is listed once, in the dictionary where it is "
        "steadiest.",
        numbers={
            "dictionaries": others,
            "threshold": facts.threshold,
            "steadiest": as_json(listed),
            "by_seed": as_json(facts.comparison.contents.by_seed or []),
        },
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


def _by_seed(facts: Facts) -> Table | None:
    """What dictionaries have in common that differ in their seed alone, beside chance."""
    groups = facts.comparison.contents.by_seed
    if not groups:
        return None
    columns = [
        Column("dictionaries"),
        Column("seeds", ",d"),
        Column("live", ",d", "live features of all of them"),
        Column("in all", ".1%", "share found in every other seed"),
        Column("at least", ".1%", "share of all seeds that has a feature found in all of these, one-sided 95 % bound"),
        Column("in none", ".1%", "share found in no other seed"),
        Column("chance", ".2g", "share that random directions would find in one other"),
        Column("chance, used dimensions", ".2g", "the same in the dimensions that the atoms effectively use"),
        Column("used dimensions", ".1f", "the inverse of the mean squared cosine of two atoms"),
        Column("Brier", ".3f", "of predicting a seed that was left out by the others"),
        Column("alignment", ".2f", "mean product of encoder rows and atoms, live features"),
    ]
    aligned = {entry.name: entry.alignment for entry in facts.comparison.entries}
    rows = []
    for one in groups:
        live = [found.live for name in one.dictionaries if (found := aligned[name]) and found.live is not None]
        rows.append([
            f"{one.dictionaries[0]} and {len(one.seeds) - 1} more", len(one.seeds), one.features,
            one.found[-1] / max(one.features, 1), one.floors[-1], one.found[0] / max(one.features, 1),
            *(level.share for level in one.chance), one.chance[1].dimensions,
            one.calibration and one.calibration.brier, sum(live) / len(live) if live else None,
        ])  # fmt: skip
    return Table(
        "stability-by-seed", "Dictionaries that differ in their seed alone: live features found again.", columns, rows
    )


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
