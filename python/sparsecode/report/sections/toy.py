"""The toy models: how much of a known ground truth a sweep of dictionaries recovers, over size and L1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure, Section, shown
from sparsecode.report.facts import Facts
from sparsecode.science.claims import c7_toy

CELLS_WITH_NUMBERS = 63  # more do not fit side by side
DEAD_CLIP = 100  # the seed's figure ends its scale here


@dataclass(frozen=True)
class _Map:
    """One heat map: a measure, its description, its scale and its number format."""

    name: str
    id: str
    caption: str
    top: float
    format: str = ".3f"
    cell: str = ".2f"


MAPS = (
    _Map("mmcs_truth", "toy-truth", "MMCS with the truth: for each true feature its largest cosine with an atom, and "
         "the mean of these. 1 where every true feature was learned.", 1.0),
    _Map("dead", "toy-dead", f"Dead features: those that fired on none of the fresh rows. Colours end at {DEAD_CLIP}.",
         DEAD_CLIP, ",d", "d"),
    _Map("fvu", "toy-fvu", "FVU on fresh rows: the share of variance that the reconstruction leaves out.", 1.0),
    _Map("matched_mmcs_larger", "toy-larger-matched", "MMCS with the next larger dictionary of the same L1, one to one "
         "(Hungarian), as the seed's code has it. It can be computed where no truth is known.", 1.0),
    _Map("mmcs_larger", "toy-larger", "The same with the plain maximum: two features may have the same partner.", 1.0),
)  # fmt: skip


def section(facts: Facts) -> Section | None:
    """The section of a run's report; None where the run has no toy models."""
    return None if facts.toy is None else toy_section(facts.toy)


def toy_section(record: Mapping[str, Any]) -> Section:
    """Heat maps, and the verdict on claim 7.

    Args:
        record: the content of toy.json.
    """
    finding, settings = c7_toy.from_json(record["verdict"]), record["settings"]
    sizes = finding.numbers.sign.sizes if finding.numbers and finding.numbers.sign else []
    measured = [row for row in record["dictionaries"] if row.get("mmcs_truth") is not None]
    best = max(measured, key=lambda row: row["mmcs_truth"])
    return Section(
        "toy",
        "Toy models, where the truth is known",
        f"On toy data with {settings['true_features']} true features in {settings['dim']} dimensions a dictionary "
        f"of {best['dict_size']:,} features recovers {best['recovered']:,} of them.",
        [_lead(record, best), *_sign_words(sizes)],
        shown(*(_heat_map(record, each) for each in MAPS), _sign(measured)),
        how=_how(record),
        numbers={"verdict": record["verdict"], "steps": record["steps"], "samples": record["samples"]},
        claim=finding,
    )


def _lead(record: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    low, high = best["mmcs_truth_interval"]
    return (
        f"Best is {best['name']}: its MMCS with the truth is {best['mmcs_truth']:.3f} (95 % interval over true "
        f"features {low:.3f} to {high:.3f}); at its random start it was {best['mmcs_truth_start']:.2f}. "
        f"It uses {best['l0']:.1f} features a row; the rows are made of {record['true_l0']:.1f}."
    )


def _sign_words(sizes: Sequence[c7_toy.Choice]) -> list[str]:
    words = []
    for size in sizes:
        cost = "the best there is" if size.regret == 0 else f"{size.regret:.3f} less MMCS with the truth than the best"
        words.append(
            f"At {size.dict_size:,} features, whoever knows no truth and goes by similarity to the next larger "
            f"dictionary picks L1 {size.chosen_l1:.3g}: {cost}."
        )
    return [" ".join(words)] if words else []


def _how(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    scale = "divided by the dictionary size" if settings["l1_scale"] == "per-size" else "not divided by the size"
    limits = record["verdict"]["thresholds"]
    return (
        "The data are those of the toy models that the experiment builds on: unit vectors in random directions, of "
        f"which {settings['active']:g} are active in a row on average; which ones is correlated within "
        f"{settings['draw_rows']} rows, and feature i is 0.99^i as frequent as the first. Each dictionary saw "
        f"{record['samples']:,} rows, L1 {scale}. Fresh rows for FVU and dead features: {settings['eval_rows']:,}. "
        f"Reproduced if the best MMCS with the truth is at least {limits['recovered']:g} with its whole interval, and "
        "if at every size that can hold the truth the L1 chosen by matched MMCS with larger loses at most "
        f"{limits['regret']:g} of it; partly if one of the two holds."
    )


def _heat_map(record: Mapping[str, Any], each: _Map) -> Figure | None:
    rows = record["dictionaries"]
    sizes, l1, seeds = (sorted({row[name] for row in rows}) for name in ("dict_size", "l1", "seed"))
    known: dict[tuple[int, float], list[float | int]] = {}
    for row in rows:
        if row.get(each.name) is not None:
            known.setdefault((row["dict_size"], row["l1"]), []).append(row[each.name])
    if not known:
        return None
    values = [[_mean(known.get((size, value), [])) for size in sizes] for value in l1]
    counts_of_several = len(seeds) > 1 and "d" in each.format
    spelled, cell = (",.1f", ".0f") if counts_of_several else (each.format, each.cell)
    labels, names = [f"{value:.3g}" for value in l1], [str(size) for size in sizes]
    few = len(sizes) * len(l1) <= CELLS_WITH_NUMBERS
    data = [
        charts.heat_map(
            labels,
            names,
            values,
            each.top,
            f"%{{customdata[1]}} features, L1 %{{customdata[0]}}: %{{z:{spelled}}}",
            **({"texttemplate": f"%{{z:{cell}}}", "textfont": {"size": 11}} if few else {}),
        )
    ]
    divided = " (divided by size)" if record["settings"]["l1_scale"] == "per-size" else ""
    layout = palette.layout(
        xaxis=charts.cell_axis("features in the dictionary", names), yaxis=charts.cell_axis(f"L1{divided}", labels)
    )
    title = each.caption.partition(":")[0].partition(".")[0]
    return charts.figure(
        each.id,
        each.caption,
        f"Heat map over dictionary size and L1. {title}.",
        f"{title}, by L1 and size" + (f"; means over {len(seeds)} seeds." if len(seeds) > 1 else "."),
        {"L1": ".3g"} | dict.fromkeys(names, spelled),
        [[value, *line] for value, line in zip(l1, values, strict=True)],
        data,
        layout,
        height=max(280, 130 + 24 * len(l1)),
    )


def _sign(measured: list[dict[str, Any]]) -> Figure | None:
    """MMCS with the truth against matched MMCS with larger, a point per dictionary."""
    rows = [row for row in measured if row.get("matched_mmcs_larger") is not None]
    if not rows:
        return None
    data = []
    sizes = sorted({row["dict_size"] for row in rows})
    for number, size in enumerate(sizes):
        own = sorted((row for row in rows if row["dict_size"] == size), key=lambda row: (row["seed"], row["l1"]))
        marker = {"size": 9, "color": palette.series(number), "symbol": palette.symbol(number)}
        data.append(
            charts.scatter(
                "markers", str(size), [row["matched_mmcs_larger"] for row in own], [row["mmcs_truth"] for row in own],
                f"{size} features, %{{text}}: with larger %{{x:.3f}}, with the truth %{{y:.3f}}",
                text=[f"L1 {row['l1']:.3g}" for row in own], marker=marker,
            )
        )  # fmt: skip
    return charts.figure(
        "toy-sign",
        "What can be seen without the truth (across) and the truth (up), one point per dictionary, by size. A small "
        "dictionary cannot hold all true features, so its points are low however good its atoms are; along one size, "
        "up and right should go together.",
        "Scatter of MMCS with the truth over matched MMCS with the next larger dictionary.",
        "Both similarities by dictionary.",
        {"dictionary": "", "with larger": ".3f", "with the truth": ".3f"},
        [[row["name"], row["matched_mmcs_larger"], row["mmcs_truth"]] for row in rows],
        data,
        palette.layout(
            xaxis=palette.axis("matched MMCS with larger", range=[0, 1.02]),
            yaxis=palette.axis("MMCS with the truth", range=[0, 1.02]),
        ),
        height=420,
    )


def _mean(values: list[float | int]) -> float | int | None:
    if len(values) < 2:
        return values[0] if values else None
    return sum(values) / len(values)
