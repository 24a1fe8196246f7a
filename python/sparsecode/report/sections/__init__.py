"""The parts of a report: a file each, with a function `section(facts) -> Section | None`; None where it has nothing.

A new part is a file here and a line in `ORDER`. A section with a claim also gets a row in the table on top.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsecode.report.blocks import Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections import baselines, dictionaries, features, gpt, provenance, recurrence, toy

ORDER: tuple[Callable[[Facts], Section | None], ...] = (
    recurrence.section,
    features.section,
    dictionaries.section,
    baselines.section,
    toy.section,
    gpt.section,
    provenance.section,
)

__all__ = ["ORDER"]
