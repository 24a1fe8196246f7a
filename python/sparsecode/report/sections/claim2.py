"""Claim 2: the distribution of MCS has two modes."""

from __future__ import annotations

from sparsecode.report import charts, figures
from sparsecode.report.blocks import Column, Figure, Section, Table
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.science.claims.c2_bimodality import ASHMAN, DIP_LEVEL, LEAST_WEIGHT, Distribution, Modes, Numbers
from sparsecode.science.claims.trained import HARDLY_MOVED

HOW = (
    "MCS of live features with the next larger dictionary of the same seed; dead features, which stay near their "
    "random start and would make a mode of their own, are kept apart. A distribution counts as bimodal where "
    f"Hartigan's dip test rejects one mode (p below {DIP_LEVEL:g}, against uniform samples), and two normal "
    f"distributions fitted by EM lie apart (Ashman's D above {ASHMAN:g}) with at least {LEAST_WEIGHT:.0%} of the "
    "features each. Judged: dictionaries with more features than dimensions; smaller ones have too few features "
    "for a set that is not found again. The same is tested of all features, dead ones too, as the seed counted: "
    "where only these have two modes, or where the lower mode of live ones is still near its random start (mean "
    f"cosine above {HARDLY_MOVED:.2f}), the claim is reproduced partly."
)


def section(facts: Facts) -> Section:
    """Histograms by size and by L1, with the dip test and the fit of two modes."""
    numbers: Numbers | None = facts.finding("2").numbers
    rows = numbers.dictionaries if numbers else []
    blocks = [figures.mcs_histograms(facts), _histograms_by_l1(rows), _table(rows)]
    return claim_section(facts, "2", "two-modes", "Two kinds of features", _summary(rows), blocks, HOW)


def _summary(rows: list[Distribution]) -> str:
    own = [row for row in rows if row.sweep == "run" and row.overcomplete and row.modes]
    if not own:
        return ""
    row = max(own, key=lambda one: (one.bimodal, one.dip))
    if row.bimodal:
        return f"Of the live features of {row.dictionary}, {_two(row.modes)}."
    p = [one.p for one in own if one.p is not None]
    tail = next((one for one in own if one.everything.bimodal), None)
    text = (
        f"In no dictionary larger than the space have live features two modes (dip test: p from {min(p):.2f} to "
        f"{max(p):.2f})"
    )
    return text + (
        f"; of all features of {tail.dictionary}, {tail.dead:,} dead ones among them, {_two(tail.everything.modes)}."
        if tail
        else "."
    )


def _two(fit: Modes | None) -> str:
    """The positions of a fit's two modes, and how often their features fire."""
    if fit is None:
        return ""
    density = fit.density
    fire = f", firing on {100 * density[1]:.2g} % and {100 * density[0]:.2g} % of tokens" if density else ""
    return (
        f"{fit.weights[1]:.0%} come back with a cosine around {fit.means[1]:.2f}, {fit.weights[0]:.0%} reach "
        f"only about {fit.means[0]:.2f}{fire}"
    )


def _histograms_by_l1(rows: list[Distribution]) -> Figure | None:
    """Histograms of MCS of live features for the largest size that has a larger relative, a strip per L1."""
    beside = [row for row in rows if row.sweep != "run"]
    if not beside:
        return None
    size = max(row.size for row in beside)
    own = sorted((row for row in beside if row.size == size), key=lambda row: row.l1 or 0.0)
    bins = len(own[0].live_histogram)
    middles = [(i + 0.5) / bins for i in range(bins)]
    strips = [
        charts.Strip(
            f"<b>L1 {row.l1:.3g}</b>{_dip(row)}",
            f"L1 {row.l1:.3g}",
            {"live": row.live_histogram, "dead": row.dead_histogram},
        )
        for row in own
    ]
    data, layout, height = charts.stacked_strips(strips, middles, "max cosine similarity", "at cosine %{x:.2f}")
    table_rows = [[row.l1, i / bins, row.live_histogram[i], row.dead_histogram[i]] for row in own for i in range(bins)]
    return charts.figure(
        "mcs-by-l1",
        f"The same for several L1, of dictionaries of {size:,} features from the short sweep.",
        "Stacked histograms of max cosine similarity, one strip per L1 coefficient.",
        "Features by max cosine similarity with the next larger dictionary; each bin from the value given.",
        {"L1": ".3g", "from": ".3f", "live": ",d", "dead": ",d"},
        table_rows,
        data,
        layout,
        height=height,
    )


def _words(judged: bool | None) -> str:
    return "too few" if judged is None else "yes" if judged else "no"


def _table(rows: list[Distribution]) -> Table | None:
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
        fit, nothing = row.modes, (None, None)
        about = [*fit.means, fit.weights[1], fit.ashman] if fit else [None] * 4
        density, moved = (fit.density, fit.initial_cosine) if fit else nothing
        values.append(
            [row.dictionary, row.l1, row.features, row.dead, row.dip, row.p, *about, *(density or nothing),
             *(moved or nothing), _words(row.bimodal), row.everything.dip, row.everything.p,
             _words(row.everything.bimodal)]
        )  # fmt: skip
    return Table("modes", "The dip test and the two modes of every dictionary", columns, values, folded=True)


def _dip(row: Distribution) -> str:
    return "" if row.p is None else f", dip {row.dip:.3f}, p {'≤' if row.p < 0.003 else '='} {row.p:.3f}"
