"""The parts of a report: sections of figures, tables and examples, as data for `page` and `report.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparsecode.science.claims.verdicts import Finding


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and the format specification of its values."""

    title: str
    format: str = ""
    help: str = ""

    def text(self, value: Any) -> str:
        """A value as text on the page."""
        if value is None:
            return "–"
        return format(value, self.format) if self.format else str(value)


@dataclass(frozen=True)
class Table:
    """Named columns and rows of JSON values; a `folded` table shows only its caption until it is opened."""

    id: str
    caption: str
    columns: list[Column]
    rows: list[list[Any]]
    folded: bool = False

    def as_json(self) -> dict[str, Any]:
        """Rows as objects, keyed by the columns' titles."""
        titles = [column.title for column in self.columns]
        return {"caption": self.caption, "rows": [dict(zip(titles, row, strict=True)) for row in self.rows]}


@dataclass(frozen=True)
class Figure:
    """A chart: a plotly description, its numbers as a table, and a text alternative.

    In `data` and `layout` a string `@name` means the page's colour of that name, which depends on the theme.
    """

    id: str
    caption: str
    alt: str
    table: Table
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 380

    def as_json(self) -> dict[str, Any]:
        """The numbers without the drawing."""
        return self.table.as_json() | {"caption": self.caption}


@dataclass(frozen=True)
class Examples:
    """Directions with the contexts in which they are most active.

    Each has `name`, `facts` (a line of text) and `examples` (see `science.top_contexts.Example`).
    """

    id: str
    caption: str
    features: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The directions with their examples, for report.json."""
        return {"caption": self.caption, "features": self.features}


Block = Table | Figure | Examples


def shown(*blocks: Block | None) -> list[Block]:
    """Those that there are."""
    return [block for block in blocks if block is not None]


@dataclass(frozen=True)
class Section:
    """One part of the report.

    `summary` is a sentence for the top of the page, `lead` says what was found, `how` how it was made, and `numbers`
    holds data for programs. A section with the finding on a `claim` gets a row in the table of claims on top of the
    page; its summary is shown in the section instead.
    """

    id: str
    title: str
    summary: str = ""
    lead: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    how: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    claim: Finding[Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        found: dict[str, Any] = {key: getattr(self, key) for key in ("title", "summary", "lead", "numbers")}
        if self.claim is not None:
            own = vars(self.claim.verdict)
            found["claim"] = {"text": self.claim.claim} | {key: own[key] for key in ("verdict", "number", "reason")}
        return found | {block.id: block.as_json() for block in self.blocks}
