"""The baselines beside the trained dictionaries, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.comparison.records import kind_order
from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Section, Table
from sparsecode.report.facts import Facts

TITLES = {
    "neurons": "neurons",
    "identity": "neurons, both signs",
    "random": "random rotation",
    "pca": "PCA",
    "ica": "ICA",
    "nmf": "NMF",
    "read": "read by the weights",
    "write": "written by the weights",
}


def section(facts: Facts) -> Section | None:
    """The section of a run's report; None where the run has no baselines."""
    return None if facts.baselines is None else baselines_section(facts.baselines)


def baselines_section(record: Mapping[str, Any]) -> Section:
    """A table, FVU over the number of codes, and similarities.

    Args:
        record: the content of baselines.json.
    """
    lead = _nearest(record)
    return Section(
        "baselines",
        "Neurons, PCA, ICA and other baselines",
        lead[0] if lead else "",
        lead[1:],
        [_table(record), _curves(record), _heat_map(record)],
        how="Each baseline is a dictionary with an encoder, measured on the same held-out rows as the trained ones. A "
        "direction whose codes have two signs counts as two features, one for each sign. PCA and ICA subtract the mean "
        "of the data first. NMF has no encoder: its codes here are the nearest linear map, cut at zero. The curves "
        "keep, row by row, the strongest codes only; for orthonormal atoms (neurons, random, PCA) no "
        "choice of as many codes is better.",
        numbers={"chance_mmcs": record["chance_mmcs"], "trained": record["trained"]},
    )


def _nearest(record: Mapping[str, Any]) -> list[str]:
    """The baseline most similar to the trained dictionaries, and their reconstruction beside PCA's."""
    trained = record["trained"]
    if not trained:
        return []
    kinds = [row["name"] for row in record["baselines"]]
    threshold = record["settings"]["threshold"]
    means = {kind: sum(_live(row["against"][kind]) for row in trained) / len(trained) for kind in kinds}
    # Chance depends on a baseline's number of atoms, so the distance from it is what counts.
    kind = max(kinds, key=lambda kind: means[kind] - record["chance_mmcs"][kind])
    most = max(trained, key=lambda row: row["against"][kind]["live_above"])
    words = [
        f"Of the baselines, {TITLES[kind]} is most like the trained dictionaries: the MMCS of their live "
        f"features is {means[kind]:.2f} on average, {record['chance_mmcs'][kind]:.2f} by chance."
    ]
    words.append(
        f"Cosines above {threshold:g} with {TITLES[kind]} are most in {most['name']}: "
        f"{most['against'][kind]['live_above']:,} of its {most['dict_size']:,} features."
    )
    pca = next((row for row in record["baselines"] if row["name"] == "pca"), None)
    best = min((row for row in trained if _fvu(row) is not None), key=_fvu, default=None)
    if pca is not None and best is not None:
        l0 = best["metrics"]["l0"]
        point = min(pca["curve"], key=lambda point: abs(point["l0"] - l0))
        words.append(
            f"{best['name']} leaves {_fvu(best):.3f} of the variance with {l0:.1f} active features; PCA's strongest "
            f"{point['codes']} components of each row leave {point['fvu']:.3f}."
        )
    return words


def _live(against: Mapping[str, Any]) -> float:
    """MMCS of live features; of all features, if none is alive."""
    return float(against["mmcs"] if against["live_mmcs"] is None else against["live_mmcs"])


def _fvu(row: Mapping[str, Any]) -> Any:
    return (row["metrics"] or {}).get("fvu")


def _table(record: Mapping[str, Any]) -> Table:
    kept = (8, 32)
    columns = [
        Column("baseline"),
        Column("features", ",d"),
        Column("codes", help="signed directions are two features each"),
        Column("FVU", ".4f", "share of variance not explained, with every code"),
        Column("L0", ".1f", "active features per row"),
        *(Column(f"FVU, {k} codes", ".3f", f"with the {k} strongest codes of each row") for k in kept),
        Column("dead", ",d", "features that never fired on the held-out rows"),
    ]
    rows = []
    for row in record["baselines"]:
        at = {point["codes"]: point["fvu"] for point in row["curve"]}
        rows.append([TITLES[row["name"]], row["dict_size"], row["codes"], row["fvu"], row["l0"],
                     *(at.get(k) for k in kept), row["dead"]])  # fmt: skip
    measured = record["baselines"][0]["rows"]
    return Table("baselines-table", f"Baselines on {measured:,} held-out rows.", columns, rows)


def _curves(record: Mapping[str, Any]) -> Figure:
    data: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    for number, row in enumerate(record["baselines"]):
        name, curve = TITLES[row["name"]], row["curve"]
        data.append(
            charts.scatter(
                "lines+markers", name, [point["l0"] for point in curve], [point["fvu"] for point in curve],
                f"{name}: %{{x:.1f}} codes, FVU %{{y:.3f}}", **charts.numbered(number, size=7),
            )
        )  # fmt: skip
        rows += [[name, point["l0"], point["fvu"]] for point in curve]
    points = [row for row in record["trained"] if _fvu(row) is not None]
    if points:
        data.append(
            charts.scatter(
                "markers", "trained", [row["metrics"]["l0"] for row in points], [_fvu(row) for row in points],
                "%{text}: L0 %{x:.1f}, FVU %{y:.3f}", text=[row["name"] for row in points],
                marker={"size": 11, "symbol": "star", "color": "@series8"},
            )
        )  # fmt: skip
        rows += [[row["name"], row["metrics"]["l0"], _fvu(row)] for row in points]
    layout = palette.layout(
        xaxis=palette.axis("codes per row (L0)", type="log"), yaxis=palette.axis("FVU", range=[0, 1.05])
    )
    return charts.figure(
        "baselines-fvu",
        "FVU, what is left unexplained by the strongest codes of each row, over how many are kept. Stars are trained "
        "dictionaries, which choose their codes themselves. Lower left is better.",
        "Curves of unexplained variance over the number of codes kept, one per baseline, and points for trained "
        "dictionaries.",
        "FVU by codes per row.",
        {"dictionary": "", "codes": ".2f", "FVU": ".4f"},
        rows,
        data,
        layout,
        height=420,
    )


def _heat_map(record: Mapping[str, Any]) -> Figure:
    """MMCS from trained dictionaries and baselines (rows) to baselines (columns); chance in the last row."""
    kinds = [row["name"] for row in record["baselines"]]
    columns = [TITLES[kind] for kind in kinds]
    order = sorted(
        record["trained"],
        key=lambda row: (*kind_order(row.get("kind"), row["l1"]), row["seed"] or 0, row["dict_size"]),
    )
    labels = [row["name"] for row in order] + [TITLES[kind] for kind in kinds] + ["random directions"]
    values = [[_live(row["against"][kind]) for kind in kinds] for row in order]
    values += [
        [1.0 if kind == row["name"] else row["against"][kind]["mmcs"] for kind in kinds] for row in record["baselines"]
    ]
    values.append([record["chance_mmcs"][kind] for kind in kinds])
    small = {"size": 11}
    layout = palette.layout(
        xaxis=charts.cell_axis("to", columns, tickfont=small),
        yaxis=charts.cell_axis("", labels, autorange="reversed", tickfont=small),
    )
    return charts.similarities(
        "baselines-mmcs",
        "Mean max cosine similarity from the row's atoms to the column's, of trained dictionaries those of live "
        "features. The last row is what random directions reach: only what is well above it is shared.",
        "Heat map of MMCS from trained dictionaries and baselines to baselines.",
        labels,
        columns,
        values,
        layout,
        height=max(300, 110 + 24 * len(labels)),
        texttemplate="%{z:.2f}",
        textfont=small,
    )
