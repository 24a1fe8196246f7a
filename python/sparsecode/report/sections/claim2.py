"""Claim 2: the distribution of MCS has two modes."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures, figures_claims
from sparsecode.report.blocks import Column, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c2_bimodality import CLAIM
from sparsecode.science.claims.verdicts import ASHMAN, DIP_LEVEL, HARDLY_MOVED, LEAST_WEIGHT

ID, TITLE = "two-modes", "Two kinds of features"


def section(facts: Facts) -> Section:
    """Histograms by size and by L1, with the dip test and the fit of two modes."""
    rows = facts.finding("2")["numbers"].get("dictionaries", [])
    return claim_section(
        facts,
        "2",
        ID,
        TITLE,
        CLAIM,
        _summary(rows),
        [figures.mcs_histograms(facts), figures_claims.histograms_by_l1(facts, rows), _table(rows)],
        how="MCS of live features with the next larger dictionary of the same seed; dead features, which stay near "
        "their random start and would make a mode of their own, are kept apart. A distribution counts as bimodal where "
        f"Hartigan's dip test rejects one mode (p below {DIP_LEVEL:g}, against uniform samples), and two normal "
        f"distributions fitted by EM lie apart (Ashman's D above {ASHMAN:g}) with at least {LEAST_WEIGHT:.0%} of the "
        "features each. Judged: dictionaries with more features than dimensions; smaller ones have too few features "
        "for a set that is not found again. The same is tested of all features, dead ones too, as the seed counted: "
        "where only these have two modes, or where the lower mode of live ones is still near its random start (mean "
        f"cosine above {HARDLY_MOVED:.2f}), the claim is reproduced partly.",
    )


def _summary(rows: list[dict[str, Any]]) -> str:
    own = [row for row in rows if row["sweep"] == "run" and row["overcomplete"] and row["modes"]]
    if not own:
        return ""
    row = max(own, key=lambda one: (one["bimodal"], one["dip"]))
    if row["bimodal"]:
        return f"Of the live features of {row['dictionary']}, {_two(row['modes'])}."
    dips = [one["p"] for one in own]
    tail = next((one for one in own if one["everything"]["bimodal"]), None)
    text = (
        f"In no dictionary larger than the space have live features two modes (dip test: p from {min(dips):.2f} to "
        f"{max(dips):.2f})"
    )
    return text + (
        f"; of all features of {tail['dictionary']}, {tail['dead']:,} dead ones among them, "
        f"{_two(tail['everything']['modes'])}."
        if tail
        else "."
    )


def _two(fit: dict[str, Any]) -> str:
    """The positions of a fit's two modes, and how often their features fire."""
    density = fit.get("density")
    fire = f", firing on {100 * density[1]:.2g} % and {100 * density[0]:.2g} % of tokens" if density else ""
    return (
        f"{fit['weights'][1]:.0%} come back with a cosine around {fit['means'][1]:.2f}, {fit['weights'][0]:.0%} reach "
        f"only about {fit['means'][0]:.2f}{fire}"
    )


def _words(judged: bool | None) -> str:
    return "too few" if judged is None else "yes" if judged else "no"


def _table(rows: list[dict[str, Any]]) -> Table | None:
    if not rows:
        return None
    columns = [
        Column("dictionary"),
        Column("L1", ".3g"),
        Column("live", ",d"),
        Column("dead", ",d"),
        Column("dip", ".4f", "Hartigan's dip of the live features' MCS"),
        Column("p", ".3f", "share of uniform samples with as large a dip"),
        Column("low mode", ".2f", "mean cosine"),
        Column("high mode", ".2f", "mean cosine"),
        Column("in high", ".0%", "share of live features in the high mode"),
        Column("D", ".2f", "Ashman's D: distance of the modes in units of their spread"),
        Column("density low", ".2%", "share of tokens on which features of the mode fire, geometric mean"),
        Column("density high", ".2%", "share of tokens on which features of the mode fire, geometric mean"),
        Column("moved low", ".2f", "mean cosine with their start: 1 has not moved"),
        Column("moved high", ".2f", "mean cosine with their start"),
        Column("two modes"),
        Column("dip of all", ".4f", "the same of all features, dead ones too"),
        Column("p of all", ".3f"),
        Column("two modes of all"),
    ]
    values = []
    for row in rows:
        fit = row["modes"] or {}
        means, weights = fit.get("means", (None, None)), fit.get("weights", (None, None))
        density, moved = fit.get("density", (None, None)), fit.get("initial_cosine", (None, None))
        everything = row["everything"]
        values.append(
            [row["dictionary"], row["l1"], row["features"], row["dead"], row["dip"], row["p"], *means, weights[1],
             fit.get("ashman"), *density, *moved, _words(row["bimodal"]), everything["dip"], everything["p"],
             _words(everything["bimodal"])]
        )  # fmt: skip
    return Table("modes", "The dip test and the two modes of every dictionary", columns, values, folded=True)
