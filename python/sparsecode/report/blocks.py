"""What a report is made of: sections of figures, tables and examples, as data for `page` and `report.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

VERDICTS = ("reproduced", "partly", "not reproduced", "not tested")


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and how its values are written (a format specification of Python)."""

    title: str
    format: str = ""
    help: str = ""

    def text(self, value: Any) -> str:
        """One value as the page shows it."""
        if value is None:
            return "–"
        return format(value, self.format) if self.format else str(value)


@dataclass(frozen=True)
class Table:
    """Named columns and rows of JSON values; `folded` ones show their caption only, until they are opened."""

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
    """A chart: a plotly description, its numbers as a table, and words for those who do not see it.

    In `data` and `layout` a string `@name` stands for the page's colour of that name, which differs by theme.
    """

    id: str
    caption: str
    alt: str
    table: Table
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 380

    def as_json(self) -> dict[str, Any]:
        """The numbers, without the drawing."""
        return self.table.as_json() | {"caption": self.caption}


@dataclass(frozen=True)
class Examples:
    """Directions with the contexts in which they are most active.

    Each has `name`, `facts` (a line of text) and `examples` as `science.examples.Example` describes them.
    """

    id: str
    caption: str
    features: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """As it is."""
        return {"caption": self.caption, "features": self.features}


@dataclass(frozen=True)
class Claim:
    """A claim of the seed experiment with a verdict (one of VERDICTS), the number it rests on, and why so."""

    text: str
    verdict: str
    number: str
    reason: str = ""


Block = Table | Figure | Examples


@dataclass(frozen=True)
class Section:
    """One part of the report.

    `summary` is its one sentence on top of the page; `lead` says in sentences what was found, `how` how it was made,
    `numbers` what a program would want to know.
    A section with a `claim` gets a row in the table of claims on top of the page, and its summary stands in itself.
    """

    id: str
    title: str
    summary: str = ""
    lead: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    how: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    claim: Claim | None = None

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        found: dict[str, Any] = {
            "title": self.title,
            "summary": self.summary,
            "lead": self.lead,
            "numbers": self.numbers,
        }
        if self.claim is not None:
            found["claim"] = asdict(self.claim)
        return found | {block.id: block.as_json() for block in self.blocks}
