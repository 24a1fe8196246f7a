"""The charts of a report as data, each with its numbers as a table. Pure functions of `Facts`; `page` draws them."""

from __future__ import annotations

from typing import Any

import torch

from sparsecode.comparison import Entry, Relation
from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure
from sparsecode.report.facts import Facts
from sparsecode.science.statistics import bootstrap

POINTS = 400  # points of a curve: more than the pixels of a phone, few enough to read as a table
BINS = 30  # bars of the histogram of motion: a phone is 300 pixels wide
CELLS_WITH_NUMBERS = 14  # dictionaries up to which a heat map's cells hold their number


def gpt_loss(facts: Facts) -> Figure | None:
    """Training and validation loss over steps; None if nothing was logged."""
    kinds = {"training": "loss", "validation": "val_loss"}
    rows = {name: _thin([row for row in facts.gpt_metrics if row.get(key) is not None]) for name, key in kinds.items()}
    if not any(rows.values()):
        return None
    data: list[dict[str, Any]] = [
        charts.scatter(
            "lines+markers" if name == "validation" or len(own) < 3 else "lines",
            name,
            [row["step"] for row in own],
            [row[kinds[name]] for row in own],
            f"step %{{x}}: {name} loss %{{y:.3f}}",
            line={"color": palette.series(number), "width": 2},
            marker={"size": 7},
        )
        for number, (name, own) in enumerate(rows.items())
    ]
    by_step: dict[int, dict[str, float]] = {}
    for name, own in rows.items():
        for row in own:
            by_step.setdefault(row["step"], {})[name] = row[kinds[name]]
    return charts.figure(
        "gpt-loss",
        "Loss of the transformer while it trained: on the batches, and on held-out documents.",
        "Two falling curves: training and validation loss over steps.",
        "Loss by step, in nats per token.",
        {"step": ",d", "training": ".4f", "validation": ".4f"},
        [[step, *(by_step[step].get(name) for name in kinds)] for step in sorted(by_step)],
        data,
        palette.layout(xaxis=palette.axis("step"), yaxis=palette.axis("loss (nats per token)")),
    )


def fvu_against_l0(facts: Facts) -> Figure | None:
    """FVU over L0: a point per dictionary, joined by size within an L1 and a seed; None if nothing was measured."""
    entries = facts.comparison.entries
    if all(entry.metrics.get("fvu") is None for entry in entries):
        return None
    data, rows = [], []
    first_seed = entries[0].seed  # its points carry the sizes; labels of others would overlap them
    for family in facts.comparison.families:
        measured = [entry for entry in family if entry.metrics.get("fvu") is not None]
        rows += [[entry.name, entry.metrics["l0"], entry.metrics["fvu"]] for entry in measured]
        data.append(
            charts.scatter(
                "lines+markers+text" if family[0].seed == first_seed else "lines+markers",
                facts.label(family[0], size=False) or "dictionaries",
                [entry.metrics["l0"] for entry in measured],
                [entry.metrics["fvu"] for entry in measured],
                "%{text} features: L0 %{x:.2f}, FVU %{y:.3f}",
                text=[str(entry.dict_size) for entry in measured],
                textposition="top center",
                cliponaxis=False,
                **_style(facts, family[0]),
            )
        )
    return charts.figure(
        "fvu-l0",
        "What each dictionary costs and what it leaves out. Labels are sizes. Lower left is better: "
        "few active features, little left unexplained.",
        "Scatter of unexplained variance against active features per token, one point per dictionary.",
        "FVU and L0 on held-out rows.",
        {"dictionary": "", "L0": ".2f", "FVU": ".4f"},
        rows,
        data,
        palette.layout(
            xaxis=palette.axis("L0: active features per token"),
            yaxis=palette.axis("FVU: share of variance not explained"),
            showlegend=len(data) > 1,
        ),
    )


def found_again(facts: Facts) -> Figure | None:
    """Features of each size that are found again, by relative, beside the number of dimensions."""
    family = facts.family
    if not family:
        return None
    largest = [entries[-1].name for entries in facts.comparison.families]
    data: list[dict[str, Any]] = []
    for number, relation in enumerate(Relation):
        points: list[charts.Point] = []
        for entry in family:
            if (count := entry.found_again(relation)) is not None:
                interval = bootstrap.count(count, entry.dict_size)
                points.append((entry.dict_size, count, interval.low, interval.high))
        if points:
            hover = f"%{{y}} of %{{x}} features: {relation.long}"
            data.append(charts.whiskered(relation.long, points, number, hover, dash=palette.DASHES[number], size=9))
    sizes = [entry.dict_size for entry in family]
    which = facts.label(family[0], size=False)
    return charts.figure(
        "found-again",
        f"Features with cosine above {facts.threshold:g} to an atom of another dictionary, each the other's nearest"
        f"{f' ({which})' if which else ''}, by what the other is. The dashed line is the width of the space: "
        "above it, more directions are found again than the space has dimensions. Whiskers: 95 % intervals of counts.",
        "Curves of the number of features found again over dictionary size, with a line at the number of dimensions.",
        f"Features above {facts.threshold:g}, each the other's nearest, by where they are found again; in every "
        "larger dictionary: above it in all. Near-duplicates: live features near another of their own dictionary.",
        {"dictionary": ""} | {relation.long: ",d" for relation in Relation} | {"near-duplicates": ",d"},
        [
            [entry.name, *(entry.found_again(relation) for relation in Relation), entry.near_duplicates.features]
            for entry in facts.comparison.entries
            if entry.name not in largest or entry.other_seed
        ],
        data,
        palette.layout(
            xaxis=palette.size_axis(sizes) | {"ticktext": [str(size) for size in sizes]},
            yaxis=palette.axis("features found again", rangemode="tozero"),
            **palette.line_at(facts.dimensions, f"{facts.dimensions} dimensions"),
        ),
        height=420,
    )


def mmcs_heat_map(facts: Facts) -> Figure:
    """MMCS from every dictionary (rows) to every other (columns)."""
    matrix, names = facts.comparison.contents.mmcs.all, facts.comparison.names
    order = [names.index(entry.name) for entry in facts.comparison.entries]
    values = [[matrix[i][j] for j in order] for i in order]
    labels = [facts.label(entry) for entry in facts.comparison.entries]
    numbered = {"texttemplate": "%{z:.2f}", "textfont": {"size": 10}} if len(labels) <= CELLS_WITH_NUMBERS else {}
    step, small = max(1, len(labels) // 16), {"size": 11}
    return charts.similarities(
        "mmcs",
        "Mean max cosine similarity from the row's dictionary to the column's: 1 where every feature of the row is in "
        "the column. It is directional, so the map is not symmetric.",
        "Heat map of MMCS between all pairs of dictionaries.",
        labels,
        labels,
        values,
        palette.layout(
            xaxis=charts.cell_axis("to", labels, step=step, tickangle=-60, tickfont=small),
            yaxis=charts.cell_axis("from", labels, step=step, autorange="reversed", tickfont=small),
        ),
        height=520,
        **numbered,
    )


def mcs_histograms(facts: Facts) -> Figure | None:
    """Per size, the distribution of MCS with the next larger dictionary, with live and dead features stacked."""
    strips = {
        entry.dict_size: charts.Strip(
            f"<b>{entry.dict_size}</b> features",
            str(entry.dict_size),
            {part: own.histogram for part, own in ({"all": entry.next.mcs.all} | entry.next.mcs.parts).items()},
        )
        for entry in facts.family
        if entry.next
    }
    if not strips:
        return None
    return charts.cosine_strips(
        "mcs-histograms",
        "How similar each feature's nearest atom in the next larger dictionary is, one strip per size. Two humps mean "
        "two kinds of features: those that are learned again, and those that are not. Dead features stay near their "
        "random start, and form a hump of their own.",
        "Stacked histograms of max cosine similarity, one strip per dictionary size.",
        "Features by max cosine similarity; each bin from the value given.",
        ("size", "d"),
        strips,
    )


def how_far_atoms_moved(facts: Facts) -> Figure | None:
    """Cosine of atoms with their start, by whether the feature is found again; None if no start is recorded."""
    comparison, best = facts.comparison, facts.comparison.best()
    if best is None:
        return None
    relation, edges = best[1], torch.linspace(-0.5, 1, BINS + 1)
    kinds = {"found again": "@series2", "alive, not found": "@series1", "dead": "@dead"}
    counts = {kind: torch.zeros(BINS) for kind in kinds}
    for entry in comparison.entries:
        start, other = comparison.tensors.get(f"{entry.name}.initial_cosine"), entry.relative(relation)
        if start is None or other is None:
            continue
        found = comparison.cosine(entry.name, other.dictionary) > facts.threshold
        alive = comparison.live_or_all(entry.name)
        for kind, mask in zip(kinds, (found & alive, ~found & alive, ~alive), strict=True):
            counts[kind] += torch.histogram(start[mask].clamp(-0.5, 1), edges).hist
    if not any(float(values.sum()) for values in counts.values()):
        return None
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    return charts.figure(
        "motion",
        "How far training moved each atom from its random start: 1 has not moved, 0 is as far as a random direction. "
        f"Found again: cosine above {facts.threshold:g} in the {relation.long}.",
        "Histogram of cosines between atoms and their starts, for features found again, others that are alive, and "
        "dead ones.",
        "Features by cosine with their start; each bin from the value given.",
        {"from": ".3f"} | dict.fromkeys(kinds, ",d"),
        [[float(edges[i]), *(int(own[i]) for own in counts.values())] for i in range(BINS)],
        [
            charts.bars(kind, middles, counts[kind].tolist(), color, f"%{{y}} {kind} at cosine %{{x:.2f}}")
            for kind, color in kinds.items()
        ],
        palette.layout(
            barmode="stack",
            bargap=0.04,
            xaxis=palette.axis("cosine with the start"),
            yaxis=palette.axis("features"),
        ),
    )


def _style(facts: Facts, entry: Entry) -> dict[str, Any]:
    """A colour for each kind and L1, a dash and a symbol for each seed."""
    kinds = list(dict.fromkeys((other.kind, other.l1) for other in facts.comparison.entries))
    seed = sorted({other.seed or 0 for other in facts.comparison.entries}).index(entry.seed or 0)
    color = palette.series(kinds.index((entry.kind, entry.l1)))
    return {
        "line": {"color": color, "width": 1.5, "dash": palette.DASHES[seed % len(palette.DASHES)]},
        "marker": {"color": color, "size": 9, "symbol": palette.symbol(seed)},
    }


def _thin(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(rows) <= POINTS:
        return rows
    step = -(-len(rows) // POINTS)
    return rows[::step] + ([] if (len(rows) - 1) % step == 0 else rows[-1:])
