"""How commands print: JSON for programs, aligned columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from sparsecode.checkpoint import json_text
from sparsecode.errors import SomeLeftOut


def print_json(value: Any) -> None:
    """Indented JSON on stdout; NaN and infinities become null."""
    click.echo(json_text(value), nl=False)


def tell_left_out(left_out: Sequence[tuple[str, str]], total: int, what: str = "dictionaries") -> None:
    """Lists on stderr what could not be used, each with its reason, and ends with its exit code; or does nothing.

    Args:
        left_out: place and reason of each.
        total: how many there were, those that were done included.
        what: what they are.

    Raises:
        SomeLeftOut: something was left out.
    """
    for place, reason in left_out:
        text = " ".join((reason if place in reason else f"{place}: {reason}").split())
        click.echo(f"left out: {text}", err=True)
    if left_out:
        raise SomeLeftOut(f"{len(left_out)} of {total} {what} left out for the reasons above; the others are done")


def columns(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> list[str]:
    """Rows as aligned lines: numbers to the right, everything else to the left; None and NaN as a dash."""
    table = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in table]
    if header is not None:
        cells.insert(0, list(header))
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    right = [all(isinstance(row[i], int | float | None) for row in table) for i in range(len(widths))]
    return [
        "  ".join(f"{cell:{'>' if right[i] else '<'}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]


def size(count: float) -> str:
    """Bytes in the unit that fits: 1536 -> '1.5 kB' (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
