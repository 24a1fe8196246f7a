"""Parts that every chart shares. Colours are names (`@name`): the page knows their values for light and dark."""

from __future__ import annotations

from typing import Any

SERIES = ("@series1", "@series2", "@series3", "@series4", "@series5", "@series6", "@series7", "@series8")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "pentagon")
HEAT = [[0.0, "@heat0"], [0.5, "@heat1"], [1.0, "@heat2"]]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with thin lines and no room wasted."""
    return {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "gridcolor": "@grid",
        "linecolor": "@grid",
        "zerolinecolor": "@grid",
        "fixedrange": True,
    } | more


def layout(**more: Any) -> dict[str, Any]:
    """The layout that all charts start from: transparent, the page's font, no dragging (a thumb scrolls the page)."""
    base: dict[str, Any] = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "@text"},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "dragmode": False,
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@grid", "font": {"color": "@text"}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "xanchor": "left",
            "yanchor": "bottom",
            "traceorder": "normal",
        },
    }
    return base | more


def line_at(value: float, color: str, label: str) -> dict[str, Any]:
    """A horizontal dashed line at `value` over the whole width, with a label: shapes and annotations of a layout."""
    return {
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": value,
                "y1": value,
                "line": {"color": color, "dash": "dash", "width": 1.5},
            }
        ],
        "annotations": [
            {
                "xref": "paper",
                "x": 0,
                "y": value,
                "text": label,
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"color": color, "size": 12},
            }
        ],
    }
