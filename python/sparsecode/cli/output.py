"""How commands print: JSON for programs, aligned columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from sparsecode.checkpoint import json_text


def print_json(value: Any) -> None:
    """Indented JSON on stdout; NaN and infinities become null."""
    click.echo(json_text(value), nl=False)


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
