"""The charts of claims 4 and 5: maps over size and L1, and MMCS over size."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure

_INTERVAL = {"size": ",d", "MMCS": ".3f", "low": ".3f", "high": ".3f"}
TITLES = {"plain": "L1 as it is", "divided": "L1 divided by the size"}


def l0_maps(numbers: dict[str, Any]) -> Figure:
    """L0 over size and L1 under both normalisations, coloured by its logarithm."""
    return _maps(
        numbers,
        "l0",
        "l0-maps",
        "L0, active features per token. Where one L1 suits all sizes the colour changes from left to right only; where "
        "it must grow with the size, along the diagonal. Colours are logarithmic and the same in both.",
        ".1f",
        logarithmic=True,
    )


def mmcs_maps(numbers: dict[str, Any]) -> Figure:
    """MMCS with the next larger size over size and L1 under both normalisations."""
    return _maps(
        numbers,
        "mmcs",
        "mmcs-maps",
        "MMCS with the next larger dictionary. The largest size has none.",
        ".2f",
        logarithmic=False,
    )


def _maps(numbers: dict[str, Any], key: str, id: str, caption: str, form: str, *, logarithmic: bool) -> Figure:
    data: list[dict[str, Any]] = []
    rows, annotations, layout = [], [], palette.layout()
    strips = palette.strips(2, gap=0.2)
    measured = [row[key] for name in TITLES for row in numbers[name]["dictionaries"] if row[key] is not None]
    positive = [value for value in measured if value > 0] or [1.0]
    low = float(np.log10(max(min(positive), 0.1))) if logarithmic else 0.0
    high = float(np.log10(max(positive))) if logarithmic else 1.0
    for number, ((name, title), (bottom, top)) in enumerate(zip(TITLES.items(), strips, strict=True)):
        found = [row for row in numbers[name]["dictionaries"] if row[key] is not None]
        sizes, l1 = sorted({row["size"] for row in found}), sorted({row["l1"] for row in found})
        cells = {(row["size"], row["l1"]): row[key] for row in found}
        values = [[cells.get((n, value)) for value in l1] for n in sizes]
        suffix = "" if number == 0 else str(number + 1)
        rows_named, columns_named = [f"{n:,}" for n in sizes], [f"{value:.3g}" for value in l1]
        data.append(
            charts.heat_map(
                rows_named,
                columns_named,
                [[_log(value) if logarithmic else value for value in line] for line in values],
                high,
                f"{title}<br>%{{customdata[0]}} features, L1 %{{customdata[1]}}: {key.upper()} %{{text}}",
                zmin=low,
                showscale=False,
                text=[["" if value is None else format(value, form) for value in line] for line in values],
                texttemplate="%{text}",
                xaxis=f"x{suffix}",
                yaxis=f"y{suffix}",
            )
        )
        layout[f"xaxis{suffix}"] = charts.cell_axis("L1", columns_named, anchor=f"y{suffix}")
        layout[f"yaxis{suffix}"] = charts.cell_axis("features", rows_named, domain=[bottom, top])
        annotations.append(palette.note(0, top, f"<b>{title}</b>", yanchor="bottom"))
        rows += [[title, row["size"], row["l1"], row[key], row["fvu"], row["dead"]] for row in found]
    layout |= {"annotations": annotations, "margin": {"l": 8, "r": 12, "t": 30, "b": 8}}
    return charts.figure(
        id,
        caption,
        f"Two heat maps of {key.upper()} over dictionary size and L1, without and with the division by size.",
        f"{key.upper()} of every dictionary of both sweeps.",
        {"normalisation": "", "size": ",d", "L1": ".3g", key.upper(): ".3f", "FVU": ".3f", "dead": ",d"},
        rows,
        data,
        layout,
        height=560,
    )


def growth(numbers: dict[str, Any]) -> Figure | None:
    """MMCS over size at the L1 of the run: of all features, live ones, one-to-one, and known features."""
    curve = next(
        (c for c in numbers["curves"] if c["sweep"] == "run" and c["l1"] == numbers["judged_l1"] and c["points"]), None
    )
    if curve is None:
        return None
    known = numbers["known_features"]
    lines: dict[str, list[charts.Point]] = {
        "all features, with the next larger": _points(curve["points"], "mmcs"),
        "live features, with the next larger": _points(curve["points"], "live"),
        "one-to-one, with the next larger": [
            (p["size"], p["matched"], None, None) for p in curve["points"] if p["matched"] is not None
        ],
        "known features, in dictionaries of this size": _points(known["points"], "mmcs") if known else [],
    }
    data = [
        charts.curve(name, points, number, f"%{{x}} features: %{{y:.3f}}, {name}", dash=number)
        for number, (name, points) in enumerate(lines.items())
        if points
    ]
    sizes = sorted({int(x) for points in lines.values() for x, *_ in points})
    bend = curve["bend_of_live"]
    turn = (
        f" Dotted: where two straight pieces fitted to live features bend, {bend['at']:,} in "
        f"{bend['share_at'][str(bend['at'])]:.0%} of resamples."
        if bend
        else ""
    )
    return charts.figure(
        "growth-curve",
        "MMCS over dictionary size, with 95 % intervals over features. Known features: live ones of the largest "
        "dictionary that another seed has as well." + turn,
        "Curves of MMCS over dictionary size.",
        "MMCS by size, with the ends of the interval.",
        {"curve": ""} | _INTERVAL,
        [[name, *point] for name, points in lines.items() for point in points],
        data,
        palette.layout(
            xaxis=palette.size_axis(sizes),
            yaxis=palette.axis("MMCS", range=[0, 1.02]),
            legend=palette.tall_legend(),
            shapes=[palette.upright(bend["at"])] if bend else [],
        ),
        height=460,
    )


def growth_by_l1(numbers: dict[str, Any]) -> Figure | None:
    """MMCS over size, with a curve per L1 of the claims' sweep."""
    curves = [curve for curve in numbers["curves"] if curve["sweep"] != "run" and curve["points"]]
    if not curves:
        return None
    data, rows = [], []
    for number, curve in enumerate(curves):
        points, name = _points(curve["points"], "mmcs"), f"L1 {curve['l1']:.3g}"
        data.append(charts.curve(name, points, number, f"%{{x}} features: %{{y:.3f}}, {name}"))
        rows += [[curve["l1"], *point] for point in points]
    return charts.figure(
        "growth-by-l1",
        "The same for several L1, from the short sweep: MMCS with the next larger dictionary.",
        "Curves of MMCS over dictionary size, one per L1 coefficient.",
        "MMCS by size and L1, with the ends of the interval.",
        {"L1": ".3g"} | _INTERVAL,
        rows,
        data,
        palette.layout(
            xaxis=palette.size_axis(sorted({row[1] for row in rows})), yaxis=palette.axis("MMCS", range=[0, 1.02])
        ),
    )


def _points(points: list[dict[str, Any]], key: str) -> list[charts.Point]:
    """(size, value, low, high) of an interval at each size that has one."""
    found = [(point["size"], point[key]) for point in points if point[key]]
    return [(size, own["value"], own["low"], own["high"]) for size, own in found]


def _log(value: float | None) -> float | None:
    return None if value is None else float(np.log10(max(value, 1e-3)))
