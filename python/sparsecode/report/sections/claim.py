"""What the sections of all claims share."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecode.report.blocks import Block, Section
from sparsecode.report.facts import Facts


def claim_section(
    facts: Facts,
    number: str,
    id: str,
    title: str,
    summary: str,
    blocks: Sequence[Block | None],
    how: str,
    lead: Sequence[str] = (),
) -> Section:
    """A section with a row in the table of claims; blocks that are None are left out.

    Its numbers leave out the contexts, which have their own block.
    """
    found = facts.finding(number)
    numbers = {key: value for key, value in found.as_json()["numbers"].items() if key != "examples"}
    shown = [block for block in blocks if block is not None]
    return Section(id, title, summary, list(lead), shown, how, numbers, found)
