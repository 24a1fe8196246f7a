"""Parts that all charts share. Colours are names (`@name`) whose values for light and dark the page defines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SERIES = ("@series1", "@series2", "@series3", "@series4", "@series5", "@series6", "@series7", "@series8")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "pentagon")
HEAT = [[0.0, "@heat0"], [0.5, "@heat1"], [1.0, "@heat2"]]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with thin lines and little space."""
    lines = dict.fromkeys(("gridcolor", "linecolor", "zerolinecolor"), "@grid")
    return {"title": {"text": title, "standoff": 8}, "automargin": True, **lines, "fixedrange": True} | more


def layout(**more: Any) -> dict[str, Any]:
    """The basic layout of all charts: transparent, the page's font, no dragging, so that a thumb scrolls the page."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "@text"},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "dragmode": False,
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@grid", "font": {"color": "@text"}},
        "legend": _legend("h", 1.02, "bottom"),
    } | more


def tall_legend() -> dict[str, Any]:
    """A legend below the chart with a line per entry, for names too long to fit side by side."""
    return _legend("v", -0.18, "top")


def _legend(orientation: str, y: float, anchor: str) -> dict[str, Any]:
    return {
        "orientation": orientation, "x": 0, "y": y, "xanchor": "left", "yanchor": anchor, "traceorder": "normal",
    }  # fmt: skip


def line_at(value: float, label: str) -> dict[str, Any]:
    """A horizontal dashed line at `value` over the whole width, with a label: shapes and annotations of a layout."""
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value,
            "line": {"color": "@muted", "dash": "dash", "width": 1.5}}  # fmt: skip
    label_font = {"color": "@muted", "size": 12}
    return {"shapes": [line], "annotations": [note(0, value, label, yref="y", yanchor="bottom", font=label_font)]}


def series(number: int) -> str:
    """Colour of the n-th line; they repeat after eight."""
    return SERIES[number % len(SERIES)]


def symbol(number: int) -> str:
    """Marker of the n-th line."""
    return SYMBOLS[number % len(SYMBOLS)]


def size_axis(sizes: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis of dictionary sizes, with a tick at each."""
    text = [f"{size:,}" for size in sizes]
    return axis("features in the dictionary", type="log", tickvals=list(sizes), ticktext=text)


def whiskers(
    values: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None], number: int
) -> dict[str, Any]:
    """Thin error bars from the ends of intervals."""
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": series(number),
        "array": [b - v for v, b in zip(values, high, strict=True) if v is not None and b is not None],
        "arrayminus": [v - a for v, a in zip(values, low, strict=True) if v is not None and a is not None],
    }  # fmt: skip


def strips(count: int, gap: float = 0.05) -> list[tuple[float, float]]:
    """Domains (bottom, top) of `count` charts, one below the other, the first on top."""
    gap = gap if count > 1 else 0.0
    height = (1 - gap * (count - 1)) / count
    tops = [1 - number * (height + gap) for number in range(count)]
    return [(max(0.0, top - height), top) for top in tops]


def note(x: float, y: float, text: str, **more: Any) -> dict[str, Any]:
    """A text inside a chart with its upper left corner at (x, y), by default shares of the whole chart."""
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": "left", "yanchor": "top", "showarrow": False,
        "font": {"size": 12}, "text": text,
    } | more  # fmt: skip


def band(low: float, high: float) -> dict[str, Any]:
    """A pale band between two values of x, over the whole height."""
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1, "line": {"width": 0},
        "fillcolor": "@dead", "opacity": 0.25, "layer": "below",
    }  # fmt: skip


def upright(x: float) -> dict[str, Any]:
    """A dotted line at a value of x, over the whole height."""
    return {
        "type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
        "line": {"color": "@muted", "dash": "dot", "width": 1.5},
    }  # fmt: skip
