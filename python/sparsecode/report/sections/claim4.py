"""Claim 4: where the diagonal lines of heat maps over size and L1 come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure, Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c4_normalisation import HALF_DIAGONAL, Numbers

TITLES = ("L1 as it is", "L1 divided by the size")
MAPS = {
    "l0": "L0, active features per token. Where one L1 suits all sizes the colour changes from left to right only; "
    "where it must grow with the size, along the diagonal. Colours are logarithmic and the same in both.",
    "mmcs": "MMCS with the next larger dictionary. The largest size has none.",
}
HOW = (
    "The same sizes, rows and number of steps, once with the L1 coefficient as it is and once divided by the "
    "dictionary size; both coefficients mean the same for a dictionary of as many features as dimensions. Between "
    "neighbouring sizes the L1 that gives the same L0 is interpolated (log-log), and its slope d log L1 / d log "
    "size averaged over all L0 that both reach; the interval resamples pairs of sizes. 0: one L1 suits all sizes. "
    f"1: L1 must grow with the size, a diagonal. {HALF_DIAGONAL:g} is the middle."
)


def section(facts: Facts) -> Section:
    """Heat maps of L0 and MMCS under both normalisations, and the slope of lines of equal L0."""
    numbers: Numbers | None = facts.finding("4").numbers
    summary = _summary(numbers) if numbers else ""
    blocks = [_maps(numbers, key) for key in MAPS] if numbers else []
    return claim_section(facts, "4", "diagonals", "Dividing L1 by the size", summary, blocks, HOW)


def _summary(numbers: Numbers) -> str:
    plain, divided = numbers.plain, numbers.divided
    if not (plain.slope and divided.slope):
        return ""
    text = (
        f"Lines of equal L0 have slope {plain.slope.text()} with L1 as it is, and "
        f"{divided.slope.text()} with L1 divided by the size."
    )
    if one := plain.one_l1:
        text += f" L1 = {one.l1:.3g} alone comes within {one.falls_short:.2f} of the best MMCS of every size."
    return text


def _maps(numbers: Numbers, key: str) -> Figure:
    """L0, coloured by its logarithm, or MMCS over size and L1 under both normalisations."""
    logarithmic, form, id = (True, ".1f", "l0-maps") if key == "l0" else (False, ".2f", "mmcs-maps")
    data: list[dict[str, Any]] = []
    rows, annotations, layout = [], [], palette.layout()
    strips = palette.strips(2, gap=0.2)
    known = {
        title: [(cell, value) for cell in grid.dictionaries if (value := getattr(cell, key)) is not None]
        for title, grid in zip(TITLES, (numbers.plain, numbers.divided), strict=True)
    }
    positive = [value for cells in known.values() for _, value in cells if value > 0] or [1.0]
    low = float(np.log10(max(min(positive), 0.1))) if logarithmic else 0.0
    high = float(np.log10(max(positive))) if logarithmic else 1.0
    for number, ((title, found), (bottom, top)) in enumerate(zip(known.items(), strips, strict=True)):
        sizes, l1 = sorted({cell.size for cell, _ in found}), sorted({cell.l1 for cell, _ in found})
        cells = {(cell.size, cell.l1): value for cell, value in found}
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
        rows += [[title, cell.size, cell.l1, value, cell.fvu, cell.dead] for cell, value in found]
    layout |= {"annotations": annotations, "margin": {"l": 8, "r": 12, "t": 30, "b": 8}}
    columns = {"normalisation": "", "size": ",d", "L1": ".3g", key.upper(): ".3f", "FVU": ".3f", "dead": ",d"}
    numbers_of = f"{key.upper()} of every dictionary of both sweeps."
    alt = f"Two heat maps of {key.upper()} over dictionary size and L1, without and with the division by size."
    return charts.figure(id, MAPS[key], alt, numbers_of, columns, rows, data, layout, height=560)


def _log(value: float | None) -> float | None:
    return None if value is None else float(np.log10(max(value, 1e-3)))
