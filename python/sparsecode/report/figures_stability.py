"""Charts of what pairs of dictionaries have in common, and of how steady each feature is over all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Table
from sparsecode.report.facts import Facts
from sparsecode.science.statistics import bootstrap

MARKS = 20  # most bars of a histogram of stability
RELATIONS = {"next": "next larger", "other_seed": "another seed"}  # short labels, so that a legend fits on a phone
MEASURES = {"pw_mcc": "PW-MCC", "pw_mcc_live": "PW-MCC of live pairs", "share_shared": "share shared"}


def matched_pairs(facts: Facts) -> list[dict[str, Any]]:
    """The consistency of every pair matched one-to-one, with 95 % intervals over the matched pairs of atoms.

    The interval of PW-MCC is that of the matched cosines: signed ones, unless the comparison took absolute ones.
    `pw_mcc_live` is their mean over pairs in which both features are alive, None if that was not counted.
    """
    record, found = facts.comparison.record, []
    relations = _relations(facts)
    for key, matched in record["matched"].items():
        a, b = key.split(" -> ")
        one_to_one = facts.comparison.matched(a, b)
        assert one_to_one is not None
        has = one_to_one.indices >= 0
        cosines, partners = one_to_one.values[has].double(), one_to_one.indices[has]
        consistency = dict(matched["consistency"])
        interval = bootstrap.interval(cosines.numpy())
        alive_a, alive_b = alive(facts, a), alive(facts, b)
        living = None if alive_a is None or alive_b is None else cosines[alive_a[has] & alive_b[partners]]
        both = consistency["shared"]
        share = None if both is None else bootstrap.count(both, consistency["pairs"])
        found.append(
            {"from": a, "to": b, "relation": relations.get((a, b))}
            | consistency
            | {
                "low": interval.low,
                "high": interval.high,
                "live_pairs": None if living is None else len(living),
                "pw_mcc_live": None if living is None or not len(living) else float(living.mean()),
                "shared_low": share and share.low / consistency["pairs"],
                "shared_high": share and share.high / consistency["pairs"],
            }
        )
    return found


def agreement(facts: Facts, pairs: list[dict[str, Any]]) -> Figure | None:
    """PW-MCC and the share of shared features over dictionary size; None if no pair was matched."""
    best = facts.best()
    if best is None or not pairs:
        return None
    family = next(f for f in facts.families() if best[0] in f)
    sizes = {entry["name"]: int(entry["dict_size"]) for entry in family}
    data: list[dict[str, Any]] = []
    for dash, (relation, where) in enumerate(RELATIONS.items()):
        own = _of_family(pairs, relation, sizes)
        for number, (measure, words) in enumerate(MEASURES.items()):
            points = [(size, pair) for size, pair in own if pair[measure] is not None]
            if points:
                data.append(_line(points, measure, f"{words}, {where}", number, dash))
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
    """Per size, the distribution of stability of live features. None for a single dictionary."""
    others = len(facts.comparison.names) - 1
    entries = _same_l1(facts)
    if others < 1 or not entries:
        return None
    marks = min(others, MARKS)
    sizes = sorted({int(entry["dict_size"]) for entry in entries})
    counts, strips = [_counts(facts, entries, size, marks) for size in sizes], []
    for size, found in zip(sizes, counts, strict=True):
        part = "live" if "live" in found else "all"
        words = f": {sum(found['live']):,} of {sum(map(sum, found.values())):,} alive" if part == "live" else ""
        strips.append(charts.Strip(f"<b>{size:,} features</b>{words}", f"{size:,}", {part: found[part]}))
    x = [mark / marks for mark in range(marks + 1)]
    edge = 0.5 / marks
    data, layout, height = charts.stacked_strips(
        strips, x, "stability", "in %{x:.0%} of the others", ends=(-edge, 1 + edge), above=True
    )
    layout["xaxis"] |= {"tickformat": ".0%"}
    names = [part for part in charts.PARTS if part in counts[0]]
    rows = [
        [size, x[mark], *(found[part][mark] for part in names)]
        for size, found in zip(sizes, counts, strict=True)
        for mark in range(marks + 1)
    ]
    return Figure(
        "stability-histograms",
        f"In which share of the other {others} dictionaries a feature is found again (cosine above "
        f"{facts.threshold:g}), one strip per size, all seeds together. On the right, features that every dictionary "
        "has; on the left, those that no other has. Dead features are in the numbers only.",
        "Histograms of the stability of features, one strip per dictionary size.",
        Table(
            "stability-histograms-numbers",
            "Features by stability" + ("." if marks == others else f", to the nearest {1 / marks:.0%}."),
            [Column("size", ",d"), Column("stability", ".3f"), *(Column(part, ",d") for part in names)],
            rows,
        ),
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
    for entry in facts.dictionaries:
        parts = _parts(facts, entry["name"])
        own = parts.get("live", parts.get("all"))
        assert own is not None
        interval = bootstrap.interval(own.double().numpy()) if len(own) else None
        dead = parts.get("dead")
        rows.append(
            [entry["name"], len(own), interval and interval.value, interval and interval.low,
             interval and interval.high, int((own == 1).sum()), int((own == 0).sum()),
             None if dead is None else int((dead > 0).sum())]
        )  # fmt: skip
    return Table("stability-by-dictionary", "Stability of the live features of every dictionary.", columns, rows)


def alive(facts: Facts, name: str) -> Tensor | None:
    """[n] which features of a dictionary fired on the held-out rows; None if that was not counted."""
    found = facts.comparison.tensors.get(f"{name}.live")
    return None if found is None else found.bool()


def _parts(facts: Facts, name: str) -> dict[str, Tensor]:
    """Stability of a dictionary's live and dead features; of all features, if that was not counted."""
    own, living = facts.comparison.tensors[f"{name}.stability"], alive(facts, name)
    return {"all": own} if living is None else {"live": own[living], "dead": own[~living]}


def _counts(facts: Facts, entries: list[dict[str, Any]], size: int, marks: int) -> dict[str, list[int]]:
    """Features of all dictionaries of a size by stability, in `marks` + 1 bins, live and dead ones separately."""
    found: dict[str, Tensor] = {}
    for entry in entries:
        if entry["dict_size"] == size:
            for part, own in _parts(facts, entry["name"]).items():
                added = torch.bincount((own * marks).round().long(), minlength=marks + 1)
                found[part] = found[part] + added if part in found else added
    return {part: [int(count) for count in values] for part, values in found.items()}


def _relations(facts: Facts) -> dict[tuple[str, str], str]:
    """The relation of two names, from either side: a key of RELATIONS."""
    found = {}
    for relation in RELATIONS:
        for entry in facts.dictionaries:
            if entry[relation]:
                a, b = entry["name"], entry[relation]["dictionary"]
                found[a, b] = relation
                found.setdefault((b, a), relation)
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


def _line(points: list[tuple[int, dict[str, Any]]], measure: str, name: str, number: int, dash: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [size for size, _ in points],
        "y": [pair[measure] for _, pair in points],
        "line": {"color": palette.series(number), "width": 2, "dash": palette.DASHES[dash]},
        "marker": {"size": 8, "symbol": palette.symbol(number)},
        "hovertemplate": f"%{{x}} features: %{{y:.3f}}<br>{name}<extra></extra>",
    }
    low, high = {"pw_mcc": ("low", "high"), "share_shared": ("shared_low", "shared_high")}.get(measure, (None, None))
    if low is not None and high is not None:
        ends = [[pair[end] for _, pair in points] for end in (low, high)]
        line["error_y"] = palette.whiskers(line["y"], ends[0], ends[1], number)
    return line


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


def _same_l1(facts: Facts) -> list[dict[str, Any]]:
    """The dictionaries with the best one's L1, of all sizes and seeds; all dictionaries if L1 is unknown."""
    best = facts.best()
    entries = facts.dictionaries
    return entries if best is None else [entry for entry in entries if entry.get("l1") == best[0].get("l1")]
