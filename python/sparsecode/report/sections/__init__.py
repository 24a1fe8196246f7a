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
    dictionaries,
    gpt,
    interpretation,
    provenance,
    recurrence,
    stability,
    starts,
    toy,
)

ORDER: tuple[Callable[[Facts], Section | None], ...] = (
    claim1.section,
    claim2.section,
    claim3.section,
    claim4.section,
    claim5.section,
    claim6.section,
    starts.section,
    toy.section,
    baselines.section,
    interpretation.section,
    recurrence.section,
    stability.section,
    dictionaries.section,
    gpt.section,
    provenance.section,
)

__all__ = ["ORDER"]
