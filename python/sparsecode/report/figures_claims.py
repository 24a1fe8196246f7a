"""The charts of claims 1, 2, 3 and 6, from the numbers of claims.json. Each is None if its numbers are missing."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure
from sparsecode.report.facts import Facts

BINS = 40


def counts_by_l1(facts: Facts, rows: list[dict[str, Any]]) -> Figure | None:
    """Features found again in the next larger dictionary over size, with a curve per L1 of the claims' sweep."""
    beside = [row for row in rows if row["sweep"] != "run" and row["relation"] == "next"]
    if not beside:
        return None
    data = [
        charts.curve(
            f"L1 {l1:.3g}",
            [(row["size"], row["mutual"], row["low"], row["high"]) for row in beside if row["l1"] == l1],
            number,
            f"L1 {l1:.3g}: %{{y}} of %{{x}} features",
        )
        for number, l1 in enumerate(sorted({row["l1"] for row in beside}))
    ]
    return charts.figure(
        "counts-by-l1",
        "The same count for several L1, from the short sweep that the claims stage trains: fewer rows than above. "
        "Whiskers: 95 % intervals.",
        "Curves of the number of features found again over dictionary size, one per L1 coefficient.",
        "Features that are each other's nearest with an atom of the next larger dictionary, above the threshold.",
        {"L1": ".3g", "size": ",d", "mutual": ",d", "from": ",.0f", "to": ",.0f"},
        [[row["l1"], row["size"], row["mutual"], row["low"], row["high"]] for row in beside],
        data,
        palette.layout(
            xaxis=palette.size_axis(sorted({row["size"] for row in beside})),
            yaxis=palette.axis("features found again, mutual nearest", rangemode="tozero"),
            **palette.line_at(facts.dimensions, "@muted", f"{facts.dimensions} dimensions"),
        ),
    )


def histograms_by_l1(facts: Facts, rows: list[dict[str, Any]]) -> Figure | None:
    """Histograms of MCS of live features for the largest size that has a larger relative, a strip per L1."""
    beside = [row for row in rows if row["sweep"] != "run"]
    if not beside:
        return None
    size = max(row["size"] for row in beside)
    strips = {
        row["l1"]: charts.Strip(
            f"<b>L1 {row['l1']:.3g}</b>{_dip(row)}",
            f"L1 {row['l1']:.3g}",
            {part: row[f"{part}_histogram"] for part in ("live", "dead")},
        )
        for row in sorted(beside, key=lambda row: float(row["l1"]))
        if row["size"] == size
    }
    return charts.cosine_strips(
        "mcs-by-l1",
        f"The same for several L1, of dictionaries of {size:,} features from the short sweep.",
        "Stacked histograms of max cosine similarity, one strip per L1 coefficient.",
        "Features by max cosine similarity with the next larger dictionary; each bin from the value given.",
        ("L1", ".3g"),
        strips,
    )


def consistency(numbers: dict[str, Any]) -> Figure | None:
    """Consistency of each direction's strongest contexts: a point per direction, beside boxes."""
    shown = {"feature": "features found in every size", "neuron": "neurons", "random": "random directions"}
    told = numbers.get("consistency", {})
    values = {words: told[kind] for kind, words in shown.items() if told.get(kind)}
    if not values:
        return None
    data: list[dict[str, Any]] = [
        {
            "type": "box",
            "name": words,
            "x": own,
            "boxpoints": "all",
            "jitter": 0.5,
            "pointpos": 0,
            "fillcolor": "rgba(0,0,0,0)",
            "line": {"color": palette.series(number), "width": 1.5},
            "marker": {"color": palette.series(number), "size": 5, "opacity": 0.55},
            "orientation": "h",
            "hovertemplate": f"%{{x:.0%}}<extra>{words}</extra>",
        }
        for number, (words, own) in enumerate(values.items())
    ]
    rows = [[i, *row] for i, row in enumerate(zip_longest(*values.values()), 1)]
    return charts.figure(
        "consistency",
        "Each point is a direction: the share of its strongest contexts that agree on the token at the peak or the one "
        "before it.",
        "Box plots of the consistency of the strongest contexts of features, neurons and random directions.",
        "Consistency of each direction.",
        {"direction": ",d"} | dict.fromkeys(values, ".2f"),
        rows,
        data,
        palette.layout(
            xaxis=palette.axis("contexts that share a token", range=[0, 1.03], tickformat=".0%"),
            yaxis=palette.axis("", autorange="reversed", showticklabels=False, showgrid=False),
            showlegend=True,
        ),
        height=320,
    )


def neuron_basis(numbers: dict[str, Any]) -> Figure:
    """Participation ratios of features, beside those of random directions and neurons."""
    groups = numbers["participation_ratios"]
    medians = {row["group"]: row["quantiles"] for row in numbers["groups"] if row["measure"] == "participation ratio"}
    most = max((max(own) for own in groups.values() if own), default=1.0)
    edges = np.geomspace(1, max(most, medians["random directions"][-1]) * 1.05, BINS + 1)
    middles, widths = np.sqrt(edges[1:] * edges[:-1]).tolist(), (edges[1:] - edges[:-1]).tolist()
    again, live = (np.histogram(groups[group], edges)[0] for group in ("found again", "live"))
    counts = {"found again": again.tolist(), "alive, not found again": (live - again).tolist()}
    data = [
        charts.bars(name, middles, counts[name], color, f"%{{y}} {name}: %{{x:.1f}} neurons") | {"width": widths}
        for name, color in zip(counts, ("@series2", "@series1"), strict=True)
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
    return charts.figure(
        "participation",
        f"Features of {numbers['dictionary']} by how many neurons they effectively use. Left end: one neuron. Grey "
        "bands: the middle 90 % of random directions, and of those weighted by how much each neuron varies.",
        "Histogram of participation ratios of features, with bands where random directions lie.",
        "Features by participation ratio; each bin from the value given.",
        {"from": ".2f"} | dict.fromkeys(counts, ",d"),
        [[float(edges[i]), *(own[i] for own in counts.values())] for i in range(BINS)],
        data,
        layout,
    )


def _dip(row: dict[str, Any]) -> str:
    return "" if row["p"] is None else f", dip {row['dip']:.3f}, p {'≤' if row['p'] < 0.003 else '='} {row['p']:.3f}"
