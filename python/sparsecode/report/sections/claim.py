"""What the sections of all claims share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Block, Figure, Section, shown
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
    return Section(id, title, summary, list(lead), shown(*blocks), how, numbers, found)


def curves_by_l1(
    id: str,
    caption: str,
    alt: str,
    numbers: str,
    columns: Mapping[str, str],
    curves: Mapping[float, Sequence[charts.Point]],
    hover: Callable[[str], str],
    yaxis: dict[str, Any],
    **layout: Any,
) -> Figure | None:
    """Curves over dictionary size, one per L1 of the claims' sweep; None where there is none.

    `numbers` is the caption of the table, `columns` are those after L1 and size, titles with their formats.
    """
    if not curves:
        return None
    named = [(f"L1 {l1:.3g}", points) for l1, points in curves.items()]
    data = [charts.whiskered(name, points, i, hover(name)) for i, (name, points) in enumerate(named)]
    rows = [[l1, *point] for l1, points in curves.items() for point in points]
    xaxis = palette.size_axis(sorted({int(point[0]) for points in curves.values() for point in points}))
    columns = {"L1": ".3g", "size": ",d"} | dict(columns)
    return charts.figure(
        id, caption, alt, numbers, columns, rows, data, palette.layout(xaxis=xaxis, yaxis=yaxis, **layout)
    )
