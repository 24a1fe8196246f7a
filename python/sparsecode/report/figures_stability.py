"""Charts of what pairs of dictionaries have in common, and of how steady each feature is over all of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison import Relation
from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Table
from sparsecode.report.facts import Facts
from sparsecode.science.statistics import bootstrap

MARKS = 20  # most bars of a histogram of stability
RELATIONS = (Relation.NEXT, Relation.OTHER_SEED)
MEASURES = {  # with the ends of its interval
    "pw_mcc": ("PW-MCC", "low", "high"),
    "pw_mcc_live": ("PW-MCC of live pairs", None, None),
    "share_shared": ("share shared", "shared_low", "shared_high"),
}


def matched_pairs(facts: Facts) -> list[dict[str, Any]]:
    """The consistency of every pair matched one-to-one, with 95 % intervals over the matched pairs of atoms.

    The interval of PW-MCC is that of the matched cosines: signed ones, unless the comparison took absolute ones.
    `pw_mcc_live` is their mean over pairs in which both features are alive, None if that was not counted.
    """
    comparison, found = facts.comparison, []
    relations = _relations(facts)
    for key, matched in comparison.contents.matched.items():
        a, b = key.split(" -> ")
        one_to_one, told = comparison.matched(a, b), matched.consistency
        assert one_to_one is not None
        has = one_to_one.indices >= 0
        cosines, partners = one_to_one.values[has].double(), one_to_one.indices[has]
        interval = bootstrap.interval(cosines.numpy())
        alive_a, alive_b = comparison.live(a), comparison.live(b)
        living = None if alive_a is None or alive_b is None else cosines[alive_a[has] & alive_b[partners]]
        share = None if told.shared is None else bootstrap.count(told.shared, told.pairs)
        found.append(
            {"from": a, "to": b, "relation": relations.get((a, b))}
            | asdict(told)
            | {
                "low": interval.low,
                "high": interval.high,
                "live_pairs": None if living is None else len(living),
                "pw_mcc_live": None if living is None or not len(living) else float(living.mean()),
                "shared_low": share and share.low / told.pairs,
                "shared_high": share and share.high / told.pairs,
            }
        )
    return found


def agreement(facts: Facts, pairs: list[dict[str, Any]]) -> Figure | None:
    """PW-MCC and the share of shared features over dictionary size; None if no pair was matched."""
    family = facts.family
    sizes = {entry.name: entry.dict_size for entry in family}
    data: list[dict[str, Any]] = []
    for dash, relation in enumerate(RELATIONS):
        own = _of_family(pairs, relation, sizes)
        for number, (measure, (words, low, high)) in enumerate(MEASURES.items()):
            points: list[charts.Point] = [
                (size, pair[measure], pair[low] if low else None, pair[high] if high else None)
                for size, pair in own
                if pair[measure] is not None
            ]
            if points:
                name = f"{words}, {relation.short}"
                hover = f"%{{x}} features: %{{y:.3f}}<br>{name}"
                data.append(charts.whiskered(name, points, number, hover, dash=palette.DASHES[dash]))
    if not data:
        return None
    which = facts.label(family[0], size=False)
    return Figure(
        "agreement",
        "What two dictionaries share, by the size of the smaller one"
        f"{f' ({which})' if which else ''}. PW-MCC: mean cosine of the one-to-one matching of their features, of all "
        "and of those alive in both. Shared: matched pairs with cosine above "
        f"{pairs[0]['shared_threshold']:g} in encoder and decoder. Whiskers: 95 % intervals over pairs of features.",
        "Curves of PW-MCC and of the share of features that two dictionaries share, over dictionary size.",
        _pairs_table(pairs),
        data,
        palette.layout(
            xaxis=palette.size_axis(sorted(sizes.values())),
            yaxis=palette.axis("cosine, share", range=[0, 1.02]),
            legend=palette.tall_legend(),
        ),
        height=540,
    )


def stability_histograms(facts: Facts) -> Figure | None:
    """Per size, the distribution of stability of live features of the best one's kind. None for a single dictionary."""
    others, best = len(facts.comparison.names) - 1, facts.comparison.best()
    if others < 1:
        return None
    marks = min(others, MARKS)
    counts: dict[int, dict[str, Tensor]] = {}  # by size and part, in marks + 1 bins
    for entry in facts.comparison.entries:
        if best is None or (entry.kind, entry.l1) == (best[0].kind, best[0].l1):
            for part, own in _parts(facts, entry.name).items():
                added = torch.bincount((own * marks).round().long(), minlength=marks + 1)
                found = counts.setdefault(entry.dict_size, {})
                found[part] = found[part] + added if part in found else added
    strips = []
    for size, found in sorted(counts.items()):
        part = "live" if "live" in found else "all"
        total = sum(int(own.sum()) for own in found.values())
        words = f": {int(found['live'].sum()):,} of {total:,} alive" if part == "live" else ""
        strips.append(charts.Strip(f"<b>{size:,} features</b>{words}", f"{size:,}", {part: found[part].tolist()}))
    x = [mark / marks for mark in range(marks + 1)]
    edge = 0.5 / marks
    data, layout, height = charts.stacked_strips(
        strips, x, "stability", "in %{x:.0%} of the others", ends=(-edge, 1 + edge), above=True
    )
    layout["xaxis"] |= {"tickformat": ".0%"}
    names = [part for part in charts.PARTS if part in counts[min(counts)]]
    return charts.figure(
        "stability-histograms",
        f"In which share of the other {others} dictionaries a feature is found again (cosine above "
        f"{facts.threshold:g}), one strip per size, all seeds together. On the right, features that every dictionary "
        "has; on the left, those that no other has. Dead features are in the numbers only.",
        "Histograms of the stability of features, one strip per dictionary size.",
        "Features by stability" + ("." if marks == others else f", to the nearest {1 / marks:.0%}."),
        {"size": ",d", "stability": ".3f"} | dict.fromkeys(names, ",d"),
        [
            [size, x[mark], *(int(found[part][mark]) for part in names)]
            for size, found in sorted(counts.items())
            for mark in range(marks + 1)
        ],
        data,
        layout,
        height=height,
    )


def stability_table(facts: Facts) -> Table | None:
    """Every dictionary's features by stability: mean of the live ones with its interval, and both ends."""
    if len(facts.comparison.names) < 2:
        return None
    columns = [
        Column("dictionary"),
        Column("live", ",d"),
        Column("mean stability", ".3f", "of live features: share of the other dictionaries in which they are found"),
        Column("from", ".3f", "95 % interval over features"),
        Column("to", ".3f", "95 % interval over features"),
        Column("in all", ",d", "live features found again in every other dictionary"),
        Column("in none", ",d", "live features found again in no other dictionary"),
        Column("dead found again", ",d", "dead features found again in any other dictionary"),
    ]
    rows = []
    for entry in facts.comparison.entries:
        parts = _parts(facts, entry.name)
        own = parts.get("live", parts.get("all"))
        assert own is not None
        interval = bootstrap.interval(own.double().numpy()) if len(own) else None
        dead = parts.get("dead")
        rows.append(
            [entry.name, len(own), interval and interval.value, interval and interval.low,
             interval and interval.high, int((own == 1).sum()), int((own == 0).sum()),
             None if dead is None else int((dead > 0).sum())]
        )  # fmt: skip
    return Table("stability-by-dictionary", "Stability of the live features of every dictionary.", columns, rows)


def _parts(facts: Facts, name: str) -> dict[str, Tensor]:
    """Stability of a dictionary's live and dead features; of all features, if that was not counted."""
    own, living = facts.comparison.stability[name], facts.comparison.live(name)
    return {"all": own} if living is None else {"live": own[living], "dead": own[~living]}


def _relations(facts: Facts) -> dict[tuple[str, str], str]:
    """The relation of two names, from either side: one of RELATIONS."""
    found: dict[tuple[str, str], str] = {}
    for relation in RELATIONS:
        for entry in facts.comparison.entries:
            if other := entry.relative(relation):
                found[entry.name, other.dictionary] = relation.value
                found.setdefault((other.dictionary, entry.name), relation.value)
    return found


def _of_family(pairs: list[dict[str, Any]], relation: str, sizes: dict[str, int]) -> list[tuple[int, dict[str, Any]]]:
    """(size, pair) of each dictionary of a family with its relative, by size; a pair is named from its smaller one."""
    by_size: dict[int, dict[str, Any]] = {}
    for pair in pairs:
        if pair["relation"] == relation:
            for name in (pair["from"], pair["to"]):
                if name in sizes and (relation == "other_seed" or name == pair["from"]):
                    by_size.setdefault(sizes[name], pair)
    return sorted(by_size.items())


def _pairs_table(pairs: list[dict[str, Any]]) -> Table:
    columns = {
        "from": Column("dictionary"),
        "to": Column("with"),
        "pairs": Column("pairs", ",d", "matched one-to-one: as many as the smaller dictionary has features"),
        "pw_mcc": Column("PW-MCC", ".3f", "mean cosine of the one-to-one matching"),
        "low": Column("low", ".3f", "95 % interval over pairs"),
        "high": Column("high", ".3f", "95 % interval over pairs"),
        "pw_mcc_absolute": Column("absolute", ".3f", "PW-MCC of absolute cosines, matched by these"),
        "live_pairs": Column("live pairs", ",d", "pairs in which both features fired on the held-out rows"),
        "pw_mcc_live": Column("of live", ".3f", "mean cosine of these"),
        "shared": Column("shared", ",d", "pairs with cosine above 0.7 in encoder and decoder"),
        "share_shared": Column("share", ".1%"),
        "shared_low": Column("share from", ".1%", "95 % interval"),
        "shared_high": Column("share to", ".1%", "95 % interval"),
    }
    rows = [[pair[key] for key in columns] for pair in pairs]
    return Table("agreement-numbers", "Every pair that was matched one-to-one.", list(columns.values()), rows)
