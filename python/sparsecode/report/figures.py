"""The charts of a report as data, each with its numbers as a table. Pure functions of `Facts`; `page` draws them."""

from __future__ import annotations

from typing import Any

import torch

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Table
from sparsecode.report.facts import Facts
from sparsecode.science.statistics import bootstrap

POINTS = 400  # points of a curve: more than the pixels of a phone, few enough to read as a table
BINS = 30  # bars of the histogram of motion: a phone is 300 pixels wide
CELLS_WITH_NUMBERS = 14  # dictionaries up to which a heat map's cells hold their number

RELATIONS = {
    "next": "next larger size",
    "other_seed": "same size, another seed",
    "next_other_seed": "next larger size, another seed",
    "every_larger": "every larger dictionary",
}


def gpt_loss(facts: Facts) -> Figure | None:
    """Training and validation loss over steps; None if nothing was logged."""
    train = _thin([row for row in facts.gpt_metrics if row.get("loss") is not None])
    held_out = _thin([row for row in facts.gpt_metrics if row.get("val_loss") is not None])
    if not train and not held_out:
        return None
    data: list[dict[str, Any]] = []
    for name, key, rows, color in (
        ("training", "loss", train, palette.SERIES[0]),
        ("validation", "val_loss", held_out, palette.SERIES[1]),
    ):
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if key == "val_loss" or len(rows) < 3 else "lines",
                "name": name,
                "x": [row["step"] for row in rows],
                "y": [row[key] for row in rows],
                "line": {"color": color, "width": 2},
                "marker": {"size": 7},
                "hovertemplate": f"step %{{x}}: {name} loss %{{y:.3f}}<extra></extra>",
            }
        )
    by_step: dict[int, list[Any]] = {}
    for position, rows, key in ((1, train, "loss"), (2, held_out, "val_loss")):
        for row in rows:
            by_step.setdefault(row["step"], [row["step"], None, None])[position] = row[key]
    table = Table(
        "gpt-loss-numbers",
        "Loss by step, in nats per token.",
        [Column("step", ",d"), Column("training", ".4f"), Column("validation", ".4f")],
        [by_step[step] for step in sorted(by_step)],
    )
    layout = palette.layout(xaxis=palette.axis("step"), yaxis=palette.axis("loss (nats per token)"))
    return Figure(
        "gpt-loss",
        "Loss of the transformer while it trained: on the batches, and on held-out documents.",
        "Two falling curves: training and validation loss over steps.",
        table,
        data,
        layout,
    )


def fvu_against_l0(facts: Facts) -> Figure | None:
    """FVU over L0: a point per dictionary, joined by size within an L1 and a seed; None if nothing was measured."""
    entries = [entry for entry in facts.dictionaries if (entry.get("metrics") or {}).get("fvu") is not None]
    if not entries:
        return None
    data = []
    first_seed = facts.dictionaries[0].get("seed")  # its points carry the sizes; labels of others would overlap them
    for family in facts.families():
        measured = [entry for entry in family if entry in entries]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text" if family[0].get("seed") == first_seed else "lines+markers",
                "name": facts.label(family[0], size=False) or "dictionaries",
                "x": [entry["metrics"]["l0"] for entry in measured],
                "y": [entry["metrics"]["fvu"] for entry in measured],
                "text": [str(entry["dict_size"]) for entry in measured],
                "textposition": "top center",
                "cliponaxis": False,
                "hovertemplate": "%{text} features: L0 %{x:.2f}, FVU %{y:.3f}<extra></extra>",
            }
            | _style(facts, family[0])
        )
    columns = [Column("dictionary"), Column("L0", ".2f"), Column("FVU", ".4f")]
    rows = [[entry["name"], entry["metrics"]["l0"], entry["metrics"]["fvu"]] for entry in entries]
    layout = palette.layout(
        xaxis=palette.axis("L0: active features per token"),
        yaxis=palette.axis("FVU: share of variance not explained"),
        showlegend=len(data) > 1,
    )
    return Figure(
        "fvu-l0",
        "What each dictionary costs and what it leaves out. Labels are sizes. Lower left is better: "
        "few active features, little left unexplained.",
        "Scatter of unexplained variance against active features per token, one point per dictionary.",
        Table("fvu-l0-numbers", "FVU and L0 on held-out rows.", columns, rows),
        data,
        layout,
    )


def found_again(facts: Facts) -> Figure | None:
    """Features of each size that are found again, by relative, beside the number of dimensions."""
    largest = [max(entries, key=lambda e: e["dict_size"])["name"] for entries in facts.families()]
    shown = [entry for entry in facts.dictionaries if entry["name"] not in largest or entry["other_seed"]]
    data: list[dict[str, Any]] = []
    best = facts.best()
    if best is None:
        return None
    family = next(f for f in facts.families() if best[0] in f)
    for number, (relation, words) in enumerate(RELATIONS.items()):
        points = [(entry["dict_size"], count) for entry in family if (count := _count(entry, relation)) is not None]
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": words,
                    "x": [size for size, _ in points],
                    "y": [count for _, count in points],
                    "error_y": palette.whiskers(
                        [count for _, count in points],
                        [bootstrap.count(count, size).low for size, count in points],
                        [bootstrap.count(count, size).high for size, count in points],
                        number,
                    ),
                    "line": {"color": palette.SERIES[number], "width": 2, "dash": palette.DASHES[number]},
                    "marker": {"size": 9, "symbol": palette.SYMBOLS[number]},
                    "hovertemplate": f"%{{y}} of %{{x}} features: {words}<extra></extra>",
                }
            )
    rows = [
        [entry["name"], *(_count(entry, relation) for relation in RELATIONS), entry["near_duplicates"]["features"]]
        for entry in shown
    ]
    layout = palette.layout(
        xaxis=palette.axis("features in the dictionary", type="log", tickvals=[e["dict_size"] for e in family],
                           ticktext=[str(e["dict_size"]) for e in family]),
        yaxis=palette.axis("features found again", rangemode="tozero"),
        **palette.line_at(facts.dimensions, "@muted", f"{facts.dimensions} dimensions"),
    )  # fmt: skip
    which = facts.label(family[0], size=False)
    return Figure(
        "found-again",
        f"Features with cosine above {facts.threshold:g} to an atom of another dictionary, each the other's nearest"
        f"{f' ({which})' if which else ''}, by what the other is. The dashed line is the width of the space: "
        "above it, more directions are found again than the space has dimensions. Whiskers: 95 % intervals of counts.",
        "Curves of the number of features found again over dictionary size, with a line at the number of dimensions.",
        Table(
            "found-again-numbers",
            f"Features above {facts.threshold:g}, each the other's nearest, by where they are found again; in every "
            "larger dictionary: above it in all. Near-duplicates: live features near another of their own dictionary.",
            [
                Column("dictionary"),
                *(Column(words, ",d") for words in RELATIONS.values()),
                Column("near-duplicates", ",d"),
            ],
            rows,
        ),
        data,
        layout,
        height=420,
    )


def mmcs_heat_map(facts: Facts) -> Figure:
    """MMCS from every dictionary (rows) to every other (columns)."""
    matrix, names = facts.comparison.record["mmcs"]["all"], facts.comparison.names
    order = [names.index(entry["name"]) for entry in facts.dictionaries]
    values = [[matrix[i][j] for j in order] for i in order]
    labels = [facts.label(entry) for entry in facts.dictionaries]
    numbered = {"texttemplate": "%{z:.2f}", "textfont": {"size": 10}} if len(labels) <= CELLS_WITH_NUMBERS else {}
    hover = "from %{customdata[0]}<br>to %{customdata[1]}<br>MMCS %{z:.3f}"
    data = [charts.heat_map(labels, labels, values, 1.0, hover, **numbered)]
    step, small = max(1, len(labels) // 16), {"size": 11}
    layout = palette.layout(
        xaxis=charts.cell_axis("to", labels, step=step, tickangle=-60, tickfont=small),
        yaxis=charts.cell_axis("from", labels, step=step, autorange="reversed", tickfont=small),
    )
    return Figure(
        "mmcs",
        "Mean max cosine similarity from the row's dictionary to the column's: 1 where every feature of the row is in "
        "the column. It is directional, so the map is not symmetric.",
        "Heat map of MMCS between all pairs of dictionaries.",
        Table(
            "mmcs-numbers",
            "MMCS from row to column.",
            [Column("from"), *(Column(label, ".3f") for label in labels)],
            [[label, *row] for label, row in zip(labels, values, strict=True)],
        ),
        data,
        layout,
        height=520,
    )


def mcs_histograms(facts: Facts) -> Figure | None:
    """Per size, the distribution of MCS with the next larger dictionary, with live and dead features stacked."""
    best = facts.best()
    if best is None:
        return None
    family = [entry for entry in next(f for f in facts.families() if best[0] in f) if entry["next"]]
    if not family:
        return None
    bins = int(facts.comparison.record["settings"]["bins"])
    kinds = [part for part in ("live", "dead") if part in family[0]["next"]["mcs"]]
    strips = [
        charts.Strip(
            f"<b>{entry['dict_size']}</b> features",
            str(entry["dict_size"]),
            {part: entry["next"]["mcs"][part]["histogram"] for part in kinds or ["all"]},
        )
        for entry in family
    ]
    middles = [(i + 0.5) / bins for i in range(bins)]
    data, layout, height = charts.stacked_strips(strips, middles, "max cosine similarity", "at cosine %{x:.2f}")
    rows = [
        [entry["dict_size"], i / bins, *(entry["next"]["mcs"][part]["histogram"][i] for part in ("all", *kinds))]
        for entry in family
        for i in range(bins)
    ]
    return Figure(
        "mcs-histograms",
        "How similar each feature's nearest atom in the next larger dictionary is, one strip per size. Two humps mean "
        "two kinds of features: those that are learned again, and those that are not. Dead features stay near their "
        "random start, and form a hump of their own.",
        "Stacked histograms of max cosine similarity, one strip per dictionary size.",
        Table(
            "mcs-histograms-numbers",
            "Features by max cosine similarity; each bin from the value given.",
            [Column("size", "d"), Column("from", ".3f"), *(Column(kind, ",d") for kind in ("all", *kinds))],
            rows,
        ),
        data,
        layout,
        height=height,
    )


def how_far_atoms_moved(facts: Facts) -> Figure | None:
    """Cosine of atoms with their start, by whether the feature is found again; None if no start is recorded."""
    best = facts.best()
    if best is None:
        return None
    relation, edges = best[1], torch.linspace(-0.5, 1, BINS + 1)
    kinds = {"found again": "@series2", "alive, not found": "@series1", "dead": "@dead"}
    counts = {kind: torch.zeros(BINS) for kind in kinds}
    for entry in facts.dictionaries:
        start = facts.comparison.tensors.get(f"{entry['name']}.initial_cosine")
        if start is None or not entry[relation]:
            continue
        found = facts.comparison.cosine(entry["name"], entry[relation]["dictionary"]) > facts.threshold
        live = facts.comparison.tensors.get(f"{entry['name']}.live")
        alive = torch.ones_like(found) if live is None else live.bool()
        for kind, mask in {"found again": found & alive, "alive, not found": ~found & alive, "dead": ~alive}.items():
            counts[kind] += torch.histogram(start[mask].clamp(-0.5, 1), edges).hist
    if not any(float(values.sum()) for values in counts.values()):
        return None
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    data = [
        {
            "type": "bar",
            "name": kind,
            "x": middles,
            "y": counts[kind].tolist(),
            "marker": {"color": color},
            "hovertemplate": f"%{{y}} {kind} at cosine %{{x:.2f}}<extra></extra>",
        }
        for kind, color in kinds.items()
    ]
    rows = [[float(edges[i]), *(int(counts[kind][i]) for kind in kinds)] for i in range(BINS)]
    layout = palette.layout(
        barmode="stack",
        bargap=0.04,
        xaxis=palette.axis("cosine with the start"),
        yaxis=palette.axis("features"),
    )
    return Figure(
        "motion",
        "How far training moved each atom from its random start: 1 has not moved, 0 is as far as a random direction. "
        f"Found again: cosine above {facts.threshold:g} in the {RELATIONS[relation]}.",
        "Histogram of cosines between atoms and their starts, for features found again, others that are alive, and "
        "dead ones.",
        Table(
            "motion-numbers",
            "Features by cosine with their start; each bin from the value given.",
            [Column("from", ".3f"), *(Column(kind, ",d") for kind in kinds)],
            rows,
        ),
        data,
        layout,
    )


def _count(entry: dict[str, Any], relation: str) -> int | None:
    found = entry[relation]
    if not found:
        return None
    return int(found["features"] if relation == "every_larger" else found["mutual"])


def _style(facts: Facts, entry: dict[str, Any]) -> dict[str, Any]:
    """A colour for each L1, a dash and a symbol for each seed."""
    l1 = sorted({other.get("l1") or 0.0 for other in facts.dictionaries}).index(entry.get("l1") or 0.0)
    seed = sorted({other.get("seed") or 0 for other in facts.dictionaries}).index(entry.get("seed") or 0)
    color = palette.SERIES[l1 % len(palette.SERIES)]
    return {
        "line": {"color": color, "width": 1.5, "dash": palette.DASHES[seed % len(palette.DASHES)]},
        "marker": {"color": color, "size": 9, "symbol": palette.SYMBOLS[seed % len(palette.SYMBOLS)]},
    }


def _thin(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(rows) <= POINTS:
        return rows
    step = -(-len(rows) // POINTS)
    return rows[::step] + ([] if (len(rows) - 1) % step == 0 else rows[-1:])
