"""Claim 6: are features sparse in the basis of neurons?"""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures_claims
from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c6_basis import CLAIM
from sparsecode.science.claims.verdicts import RANDOM_PERCENTILE

ID, TITLE = "neuron-basis", "Features and neurons"


def section(facts: Facts) -> Section:
    """Participation ratios beside random directions and neurons, and two further measures."""
    numbers = facts.finding("6")["numbers"]
    return claim_section(
        facts,
        "6",
        ID,
        TITLE,
        CLAIM,
        _summary(numbers, facts.dimensions),
        [figures_claims.neuron_basis(numbers), _table(numbers)] if numbers else [],
        how="The participation ratio (Σx²)² / Σx⁴ is 1 for one neuron and near a third of the dimensions for a random "
        "direction. A feature counts as not sparse where its ratio is above the "
        f"{RANDOM_PERCENTILE:g} % quantile of random directions; the claim as reproduced where this holds for more "
        "than half of the features that come back (95 % bootstrap interval over features). Neurons do not vary "
        "equally, and what never varies cannot be in a direction of the data. So beside uniform random directions "
        "there are weighted ones, each component times its neuron's standard deviation: where features are as spread "
        "as these only, the claim is reproduced partly. Kurtosis is taken about zero: 3 for a random direction, the "
        "number of dimensions for a neuron.",
    )


def _summary(numbers: dict[str, Any], width: int) -> str:
    if not numbers:
        return ""
    middle = {row["group"]: row["quantiles"][2] for row in numbers["groups"] if row["measure"] == "participation ratio"}
    if "found again" not in middle:
        return ""
    text = (
        f"The median feature that comes back effectively uses {middle['found again']:.1f} of {width} neurons; a random "
        f"direction {middle['random directions']:.1f}, a neuron 1"
    )
    if "random, weighted" in middle:
        text += f", a random direction weighted by how much each neuron varies {middle['random, weighted']:.1f}"
    return text + (f", an activation {middle['activations']:.1f}." if "activations" in middle else ".")


def _table(numbers: dict[str, Any]) -> Table:
    columns = [
        Column("directions"),
        Column("count", ",d"),
        Column("measure"),
        *(Column(f"{q} %", ".2f", "quantile") for q in numbers["quantiles"]),
    ]
    rows = [[row["group"], row["directions"], row["measure"], *row["quantiles"]] for row in numbers["groups"]]
    return Table("basis", "Three measures of sparsity in the basis of neurons.", columns, rows)
