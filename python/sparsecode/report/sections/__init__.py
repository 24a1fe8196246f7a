"""The sections of a report: one file each, with a function `section(facts)` that returns a Section or None.

A new section is a file here and a line in `ORDER`. A section with a claim also gets a row in the table on top.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsecode.report.blocks import Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections import (
    baselines,
    claim1,
    claim2,
    claim3,
    claim4,
    claim5,
    claim6,
    consensus,
    dictionaries,
    gpt,
    interpretation,
    kinds,
    layers,
    provenance,
    recurrence,
    stability,
    starts,
    toy,
)

ORDER: tuple[Callable[[Facts], Section | None], ...] = tuple(
    one.section
    for one in (
        *(claim1, claim2, claim3, claim4, claim5, claim6, kinds, layers, starts, toy),
        *(baselines, interpretation, recurrence, stability, consensus, dictionaries, gpt, provenance),
    )
)

__all__ = ["ORDER"]
