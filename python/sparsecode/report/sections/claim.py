"""Code that the sections of all claims share."""

from __future__ import annotations

from typing import Any

from sparsecode.report.blocks import Block, Claim, Section
from sparsecode.report.facts import Facts


def claim_section(
    facts: Facts,
    number: str,
    id: str,
    title: str,
    text: str,
    summary: str,
    blocks: list[Block | None],
    how: str,
    lead: list[str] | None = None,
) -> Section:
    """A section with a row in the table of claims; blocks that are None are left out."""
    found = facts.finding(number)
    claim = Claim(text, found["verdict"], found["number"], found["reason"])
    shown = [block for block in blocks if block is not None]
    return Section(id, title, summary, lead or [], shown, how, small(found["numbers"]), claim)


def small(numbers: dict[str, Any]) -> dict[str, Any]:
    """A claim's numbers without the contexts, which have their own block."""
    return {key: value for key, value in numbers.items() if key != "examples"}


def between(interval: dict[str, float], form: str = ".2f") -> str:
    """`0.31 (0.28 to 0.33)`."""
    return f"{interval['value']:{form}} ({interval['low']:{form}} to {interval['high']:{form}})"
