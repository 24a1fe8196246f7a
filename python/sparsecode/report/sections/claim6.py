"""Claim 6: are features sparse in the basis of neurons?"""

from __future__ import annotations

import numpy as np

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Block, Column, Figure, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c6_basis import RANDOM_PERCENTILE, Numbers

BINS = 40
HOW = (
    "The participation ratio (Σx²)² / Σx⁴ is 1 for one neuron and near a third of the dimensions for a random "
    f"direction. A feature counts as not sparse where its ratio is above the {RANDOM_PERCENTILE:g} % quantile of "
    "random directions; the claim as reproduced where this holds for more than half of the features that come back "
    "(95 % bootstrap interval over features). Neurons do not vary equally, and what never varies cannot be in a "
    "direction of the data. So beside uniform random directions there are weighted ones, each component times its "
    "neuron's standard deviation: where features are as spread as these only, the claim is reproduced partly. "
    "Kurtosis is taken about zero: 3 for a random direction, the number of dimensions for a neuron."
)


def section(facts: Facts) -> Section:
    """Participation ratios beside random directions and neurons, and two further measures."""
    numbers: Numbers | None = facts.finding("6").numbers
    summary = _summary(numbers, facts.dimensions) if numbers else ""
    blocks: list[Block | None] = [_neuron_basis(numbers), _table(numbers)] if numbers else []
    return claim_section(facts, "6", "neuron-basis", "Features and neurons", summary, blocks, HOW)


def _ratios(numbers: Numbers) -> dict[str, list[float]]:
    """Quantiles of the participation ratio by group."""
    return {row.group: row.quantiles for row in numbers.groups if row.measure == "participation ratio"}


def _summary(numbers: Numbers, width: int) -> str:
    middle = {group: quantiles[2] for group, quantiles in _ratios(numbers).items()}
    if "found again" not in middle:
        return ""
    text = (
        f"The median feature that comes back effectively uses {middle['found again']:.1f} of {width} neurons; a random "
        f"direction {middle['random directions']:.1f}, a neuron 1"
    )
    if "random, weighted" in middle:
        text += f", a random direction weighted by how much each neuron varies {middle['random, weighted']:.1f}"
    return text + (f", an activation {middle['activations']:.1f}." if "activations" in middle else ".")


def _neuron_basis(numbers: Numbers) -> Figure:
    """Participation ratios of features, beside those of random directions and neurons."""
    groups = numbers.participation_ratios
    medians = _ratios(numbers)
    most = max((max(own) for own in groups.values() if own), default=1.0)
    edges = np.geomspace(1, max(most, medians["random directions"][-1]) * 1.05, BINS + 1)
    middles = np.sqrt(edges[1:] * edges[:-1])
    again, live = (np.histogram(groups[group], edges)[0] for group in ("found again", "live"))
    counts = {"found again": again.tolist(), "alive, not found again": (live - again).tolist()}
    data = [
        charts.bars(name, middles.tolist(), own, color, f"%{{y}} {name}: %{{x:.1f}} neurons")
        | {"width": (edges[1:] - edges[:-1]).tolist()}
        for (name, own), color in zip(counts.items(), ("@series2", "@series1"), strict=True)
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
        f"Features of {numbers.dictionary} by how many neurons they effectively use. Left end: one neuron. Grey "
        "bands: the middle 90 % of random directions, and of those weighted by how much each neuron varies.",
        "Histogram of participation ratios of features, with bands where random directions lie.",
        "Features by participation ratio; each bin from the value given.",
        {"from": ".2f"} | dict.fromkeys(counts, ",d"),
        [[float(edges[i]), *(own[i] for own in counts.values())] for i in range(BINS)],
        data,
        layout,
    )


def _table(numbers: Numbers) -> Table:
    columns = [
        Column("directions"),
        Column("count", ",d"),
        Column("measure"),
        *(Column(f"{q} %", ".2f", "quantile") for q in numbers.quantiles),
    ]
    rows = [[row.group, row.directions, row.measure, *row.quantiles] for row in numbers.groups]
    return Table("basis", "Three measures of sparsity in the basis of neurons.", columns, rows)
