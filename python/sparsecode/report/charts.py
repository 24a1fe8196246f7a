"""Charts that several sections draw: curves, stacked strips of histograms, and heat maps with named cells.

They are plotly descriptions as plain dicts: colours are names (`@series1`) that the page replaces by those of its
theme, and plotly.graph_objects refuses such colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparsecode.report import palette
from sparsecode.report.blocks import Column, Figure, Table

PARTS = {"all": "@series1", "live": "@series1", "dead": "@dead"}  # which features a bar counts, and its colour

Point = tuple[int, float, float | None, float | None]  # a size, a value there, and the ends of its interval


def figure(
    id: str,
    caption: str,
    alt: str,
    numbers: str,
    columns: Mapping[str, str],
    rows: list[list[Any]],
    data: list[dict[str, Any]],
    layout: dict[str, Any],
    height: int = 380,
) -> Figure:
    """A figure with its table `ID-numbers`, captioned `numbers`, whose `columns` are titles with their formats."""
    table = Table(f"{id}-numbers", numbers, [Column(title, form) for title, form in columns.items()], rows)
    return Figure(id, caption, alt, table, data, layout, height)


def bars(name: str, x: Sequence[float], counts: Sequence[float], color: str, hover: str) -> dict[str, Any]:
    """Bars of one colour with their centres at `x`."""
    return {
        "type": "bar", "name": name, "x": list(x), "y": list(counts), "marker": {"color": color},
        "hovertemplate": f"{hover}<extra></extra>",
    }  # fmt: skip


def boxes(
    values: Mapping[str, Sequence[float]], title: str, low: float, form: str, **axis: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A horizontal box per name with its points beside it, on an axis from `low` to 1: plotly's data and layout."""
    data = [
        {
            "type": "box",
            "name": name,
            "x": own,
            "boxpoints": "all",
            "jitter": 0.5,
            "pointpos": 0,
            "fillcolor": "rgba(0,0,0,0)",
            "line": {"color": palette.series(number), "width": 1.5},
            "marker": {"color": palette.series(number), "size": 5, "opacity": 0.55},
            "orientation": "h",
            "hovertemplate": f"%{{x:{form}}}<extra>{name}</extra>",
        }
        for number, (name, own) in enumerate(values.items())
    ]
    layout = palette.layout(
        xaxis=palette.axis(title, range=[low, 1.03], **axis),
        yaxis=palette.axis("", autorange="reversed", showticklabels=False, showgrid=False),
        showlegend=True,
    )
    return data, layout


@dataclass(frozen=True)
class Strip:
    """One histogram of several: a text for its upper left corner, a hover name, and counts by part of PARTS."""

    words: str
    name: str
    counts: Mapping[str, Sequence[int]]


def stacked_strips(
    strips: Sequence[Strip],
    x: Sequence[float],
    title: str,
    at: str,
    *,
    ends: tuple[float, float] = (0, 1),
    above: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any], int]:
    """Histograms over a common axis, one below the other, with stacked parts.

    Args:
        strips: the histograms from the top, all with the same parts.
        x: centres of the bars, evenly spaced.
        title: of the common axis.
        at: how hovering names a position on it (`at cosine %{x:.2f}`).
        ends: of the axis.
        above: place texts above their strip, where bars would reach them.

    Returns:
        (data, layout, height) of a figure.
    """
    data: list[dict[str, Any]] = []
    layout, annotations = palette.layout(barmode="stack"), []
    width = x[1] - x[0] if len(x) > 1 else ends[1] - ends[0]
    place = {"yanchor": "bottom"} if above else {}
    if above:
        layout["margin"] = layout["margin"] | {"t": 26}
    domains = palette.strips(len(strips), gap=0.08 if above else 0.05)
    for number, (strip, (low, high)) in enumerate(zip(strips, domains, strict=True)):
        suffix = "" if number == 0 else str(number + 1)
        for part, counts in strip.counts.items():
            hover = f"{strip.name}: %{{y}} {part} {at}"
            data.append(
                bars(f"{part} features", x, counts, PARTS[part], hover)
                | {"width": [0.96 * width] * len(x), "xaxis": "x", "yaxis": f"y{suffix}", "legendgroup": part,
                   "showlegend": number == 0 and len(strip.counts) > 1}
            )  # fmt: skip
        layout[f"yaxis{suffix}"] = palette.axis("", domain=[low, high], nticks=3)
        annotations.append(palette.note(0.0 if above else 0.02, high, strip.words, **place))
    layout["xaxis"] = palette.axis(title, range=list(ends), anchor=f"y{'' if len(strips) == 1 else len(strips)}")
    layout["annotations"] = annotations
    return data, layout, max(280, 120 * len(strips) + 90)


def cosine_strips(
    id: str, caption: str, alt: str, numbers: str, key: tuple[str, str], strips: Mapping[Any, Strip]
) -> Figure:
    """Histograms of max cosine similarity over 0 to 1, with every count in the table and all features drawn by part.

    `strips` are by the value of the table's first column, of which `key` is title and format.
    """
    parts = list(next(iter(strips.values())).counts)
    drawn = [part for part in parts if part != "all"] or parts
    bins = len(next(iter(strips.values())).counts[parts[0]])
    data, layout, height = stacked_strips(
        [replace(strip, counts={part: strip.counts[part] for part in drawn}) for strip in strips.values()],
        [(i + 0.5) / bins for i in range(bins)],
        "max cosine similarity",
        "at cosine %{x:.2f}",
    )
    rows = [
        [value, i / bins, *(counts[i] for counts in strip.counts.values())]
        for value, strip in strips.items()
        for i in range(bins)
    ]
    columns = dict([key]) | {"from": ".3f"} | dict.fromkeys(parts, ",d")
    return figure(id, caption, alt, numbers, columns, rows, data, layout, height)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    top: float,
    hover: str,
    **more: Any,
) -> dict[str, Any]:
    """Values [rows][columns] from 0 to `top` as coloured cells.

    In `hover`, `%{customdata[0]}` and `%{customdata[1]}` name the cell's row and column. The axes are those of
    `cell_axis`.
    """
    return {
        "type": "heatmap", "x": list(range(len(columns))), "y": list(range(len(rows))), "z": values, "zmin": 0,
        "zmax": top, "colorscale": palette.HEAT, "customdata": [[[row, column] for column in columns] for row in rows],
        "hovertemplate": f"{hover}<extra></extra>", "hoverongaps": False,
        "colorbar": {"thickness": 10, "outlinewidth": 0}, "xgap": 1, "ygap": 1,
    } | more  # fmt: skip


def similarities(
    id: str,
    caption: str,
    alt: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    layout: dict[str, Any],
    height: int,
    **cells: Any,
) -> Figure:
    """A heat map of MMCS from the rows' dictionaries to the columns'; `cells` are further settings of the map."""
    hover = "from %{customdata[0]}<br>to %{customdata[1]}<br>MMCS %{z:.3f}"
    data = [heat_map(rows, columns, values, 1.0, hover, **cells)]
    numbers = [[row, *line] for row, line in zip(rows, values, strict=True)]
    titles = [Column("from"), *(Column(column, ".3f") for column in columns)]
    table = Table(f"{id}-numbers", "MMCS from row to column.", titles, numbers)
    return Figure(id, caption, alt, table, data, layout, height)


def cell_axis(title: str, labels: Sequence[str], *, step: int = 1, **more: Any) -> dict[str, Any]:
    """An axis of cells, with the name of every `step`-th."""
    return palette.axis(
        title, tickvals=list(range(len(labels)))[::step], ticktext=list(labels)[::step], showgrid=False, zeroline=False,
        **more,
    )  # fmt: skip


def scatter(mode: str, name: str, x: Sequence[Any], y: Sequence[Any], hover: str, **more: Any) -> dict[str, Any]:
    """Points, or a curve through them."""
    drawn = {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y} | more
    return drawn | {"hovertemplate": f"{hover}<extra></extra>"}


def numbered(number: int, *, size: int = 8, **line: Any) -> dict[str, Any]:
    """The line and the marker of the n-th curve, for `scatter`."""
    marker = {"size": size, "symbol": palette.symbol(number)}
    return {"line": {"color": palette.series(number), "width": 2} | line, "marker": marker}


def whiskered(name: str, points: Sequence[Point], number: int, hover: str, **line: Any) -> dict[str, Any]:
    """The n-th curve, through points, with whiskers where all have an interval."""
    x, y, low, high = (list(values) for values in zip(*points, strict=True))
    drawn = scatter("lines+markers", name, x, y, hover, **numbered(number, **line))
    ends = {} if None in low or None in high else {"error_y": palette.whiskers(y, low, high, number)}
    return drawn | ends
