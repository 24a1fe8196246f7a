"""The charts of claims 1, 2, 3 and 6, from the numbers of claims.json. Each is None if its numbers are missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Table
from sparsecode.report.facts import Facts

BINS = 40


def counts_by_l1(facts: Facts, rows: list[dict[str, Any]]) -> Figure | None:
    """Features found again in the next larger dictionary over size, with a curve per L1 of the claims' sweep."""
    beside = [row for row in rows if row["sweep"] != "run" and row["relation"] == "next"]
    if not beside:
        return None
    data = []
    values = sorted({row["l1"] for row in beside})
    for number, l1 in enumerate(values):
        own = [row for row in beside if row["l1"] == l1]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"L1 {l1:.3g}",
                "x": [row["size"] for row in own],
                "y": [row["mutual"] for row in own],
                "error_y": _whiskers([(row["mutual"], row["low"], row["high"]) for row in own], number),
                "line": {"color": palette.series(number), "width": 2},
                "marker": {"size": 8, "symbol": palette.symbol(number)},
                "hovertemplate": f"L1 {l1:.3g}: %{{y}} of %{{x}} features<extra></extra>",
            }
        )
    sizes = sorted({row["size"] for row in beside})
    layout = palette.layout(
        xaxis=palette.size_axis(sizes),
        yaxis=palette.axis("features found again, mutual nearest", rangemode="tozero"),
        **palette.line_at(facts.dimensions, "@muted", f"{facts.dimensions} dimensions"),
    )
    table = Table(
        "counts-by-l1-numbers",
        "Features that are each other's nearest with an atom of the next larger dictionary, above the threshold.",
        [
            Column("L1", ".3g"),
            Column("size", ",d"),
            Column("mutual", ",d"),
            Column("from", ",.0f"),
            Column("to", ",.0f"),
        ],
        [[row["l1"], row["size"], row["mutual"], row["low"], row["high"]] for row in beside],
    )
    return Figure(
        "counts-by-l1",
        "The same count for several L1, from the short sweep that the claims stage trains: fewer rows than above. "
        "Whiskers: 95 % intervals.",
        "Curves of the number of features found again over dictionary size, one per L1 coefficient.",
        table,
        data,
        layout,
    )


def histograms_by_l1(facts: Facts, rows: list[dict[str, Any]]) -> Figure | None:
    """Histograms of MCS of live features for the largest size that has a larger relative, a strip per L1."""
    beside = [row for row in rows if row["sweep"] != "run"]
    if not beside:
        return None
    size = max(row["size"] for row in beside)
    own = sorted((row for row in beside if row["size"] == size), key=lambda row: float(row["l1"]))
    bins = len(own[0]["live_histogram"])
    middles = [(i + 0.5) / bins for i in range(bins)]
    strips = [
        charts.Strip(
            f"<b>L1 {row['l1']:.3g}</b>{_dip(row)}",
            f"L1 {row['l1']:.3g}",
            {part: row[f"{part}_histogram"] for part in ("live", "dead")},
        )
        for row in own
    ]
    data, layout, height = charts.stacked_strips(strips, middles, "max cosine similarity", "at cosine %{x:.2f}")
    table_rows = [
        [row["l1"], i / bins, row["live_histogram"][i], row["dead_histogram"][i]] for row in own for i in range(bins)
    ]
    return Figure(
        "mcs-by-l1",
        f"The same for several L1, of dictionaries of {size:,} features from the short sweep.",
        "Stacked histograms of max cosine similarity, one strip per L1 coefficient.",
        Table(
            "mcs-by-l1-numbers",
            "Features by max cosine similarity with the next larger dictionary; each bin from the value given.",
            [Column("L1", ".3g"), Column("from", ".3f"), Column("live", ",d"), Column("dead", ",d")],
            table_rows,
        ),
        data,
        layout,
        height=height,
    )


def consistency(numbers: dict[str, Any]) -> Figure | None:
    """Consistency of each direction's strongest contexts: a point per direction, beside boxes."""
    shown = {
        "feature": "features found in every size",
        "neuron": "neurons",
        "random": "random directions",
    }
    values = {kind: numbers["consistency"][kind] for kind in shown if numbers.get("consistency", {}).get(kind)}
    if not values:
        return None
    data = [
        {
            "type": "box",
            "name": shown[kind],
            "x": own,
            "boxpoints": "all",
            "jitter": 0.5,
            "pointpos": 0,
            "fillcolor": "rgba(0,0,0,0)",
            "line": {"color": palette.series(number), "width": 1.5},
            "marker": {"color": palette.series(number), "size": 5, "opacity": 0.55},
            "orientation": "h",
            "hovertemplate": "%{x:.0%}<extra>" + shown[kind] + "</extra>",
        }
        for number, (kind, own) in enumerate(values.items())
    ]
    layout = palette.layout(
        xaxis=palette.axis("contexts that share a token", range=[0, 1.03], tickformat=".0%"),
        yaxis=palette.axis("", autorange="reversed", showticklabels=False, showgrid=False),
        showlegend=True,
    )
    longest = max(len(own) for own in values.values())
    rows = [[i + 1, *(own[i] if i < len(own) else None for own in values.values())] for i in range(longest)]
    return Figure(
        "consistency",
        "Each point is a direction: the share of its strongest contexts that agree on the token at the peak or the one "
        "before it.",
        "Box plots of the consistency of the strongest contexts of features, neurons and random directions.",
        Table(
            "consistency-numbers",
            "Consistency of each direction.",
            [Column("direction", ",d"), *(Column(shown[kind], ".2f") for kind in values)],
            rows,
        ),
        data,
        layout,
        height=320,
    )


def neuron_basis(numbers: dict[str, Any]) -> Figure:
    """Participation ratios of features, beside those of random directions and neurons."""
    groups = numbers["participation_ratios"]
    medians = {row["group"]: row["quantiles"] for row in numbers["groups"] if row["measure"] == "participation ratio"}
    most = max((max(own) for own in groups.values() if own), default=1.0)
    edges = np.geomspace(1, max(most, medians["random directions"][-1]) * 1.05, BINS + 1)
    middles = np.sqrt(edges[1:] * edges[:-1])
    kinds = {"found again": "@series2", "live": "@series1"}
    again = np.histogram(groups["found again"], edges)[0]
    counts = {"found again": again, "live": np.histogram(groups["live"], edges)[0] - again}
    names = {"found again": "found again", "live": "alive, not found again"}
    data = [
        {
            "type": "bar",
            "name": names[kind],
            "x": middles.tolist(),
            "y": counts[kind].tolist(),
            "width": (edges[1:] - edges[:-1]).tolist(),
            "marker": {"color": color},
            "hovertemplate": f"%{{y}} {names[kind]}: %{{x:.1f}} neurons<extra></extra>",
        }
        for kind, color in kinds.items()
    ]
    random = {"random directions": "random<br>directions", "random, weighted": "weighted<br>random"}
    bands, notes = [], [palette.note(0.0, 1, "neuron", xref="x")]
    for group, words in random.items():
        if group in medians:
            low, high = medians[group][0], medians[group][-1]
            bands.append(palette.band(low, high))
            notes.append(palette.note(float(np.log10(np.sqrt(low * high))), 1, words, xref="x", xanchor="center"))
    layout = palette.layout(
        barmode="stack",
        bargap=0.04,
        xaxis=palette.axis("participation ratio, in neurons", type="log",
                           tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500], range=[0, float(np.log10(edges[-1]))]),
        yaxis=palette.axis("features"),
        shapes=bands,
        annotations=notes,
    )  # fmt: skip
    return Figure(
        "participation",
        f"Features of {numbers['dictionary']} by how many neurons they effectively use. Left end: one neuron. Grey "
        "bands: the middle 90 % of random directions, and of those weighted by how much each neuron varies.",
        "Histogram of participation ratios of features, with bands where random directions lie.",
        Table(
            "participation-numbers",
            "Features by participation ratio; each bin from the value given.",
            [Column("from", ".2f"), *(Column(names[kind], ",d") for kind in kinds)],
            [[float(edges[i]), *(int(counts[kind][i]) for kind in kinds)] for i in range(BINS)],
        ),
        data,
        layout,
    )


def _whiskers(values: list[tuple[float, float, float]], number: int) -> dict[str, Any]:
    return palette.whiskers([v for v, _, _ in values], [a for _, a, _ in values], [b for _, _, b in values], number)


def _dip(row: dict[str, Any]) -> str:
    return "" if row["p"] is None else f", dip {row['dip']:.3f}, p {'≤' if row['p'] < 0.003 else '='} {row['p']:.3f}"
