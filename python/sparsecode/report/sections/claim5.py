"""Claim 5: MMCS against dictionary size."""

from __future__ import annotations

from sparsecode.report import charts, palette
from sparsecode.report.blocks import Figure, Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section, curves_by_l1
from sparsecode.science.claims.c5_growth import PLATEAU, RISE, Curve, Numbers
from sparsecode.science.statistics.bootstrap import Interval

COLUMNS = {"MMCS": ".3f", "low": ".3f", "high": ".3f"}
HOW = (
    "MMCS of each size with the next larger dictionary of the same seed and L1, features of all seeds together; "
    "intervals resample features. A curve of two straight pieces over log2(size) is fitted by least squares, bent "
    "at an inner size. Judged is the curve of live features, which fired on the held-out rows: dead ones are as "
    "similar to a larger dictionary as chance has it, and pull the curve of all features down. Reproduced: a rise "
    f"of at least {RISE:g} per doubling (95 % interval), then a slope within {PLATEAU:.0%} of it around zero."
)


def section(facts: Facts) -> Section:
    """The curve with its bend, for all features, live ones, and features known to be there."""
    numbers: Numbers | None = facts.finding("5").numbers
    judged = _judged(numbers) if numbers else None
    known = numbers.known_features if numbers else None
    lead = []
    if known and known.bend:
        lead.append(
            f"Asked the other way, as toy models are: the {known.features} live features of {known.from_} that "
            f"another seed has as well are held by smaller dictionaries with a cosine that rises "
            f"{known.bend.before.text()} per doubling up to {known.bend.at:,} features, then {known.bend.after.text()}."
        )
    summary = _summary(judged) if judged else ""
    blocks = [_growth(numbers, judged) if judged else None, _growth_by_l1(numbers)] if numbers else []
    return claim_section(facts, "5", "growth", "MMCS as dictionaries grow", summary, blocks, HOW, lead)


def _judged(numbers: Numbers) -> Curve | None:
    judged = (numbers.judged_kind, numbers.judged_l1)
    own = (one for one in numbers.curves if one.sweep == "run" and (one.kind, one.l1) == judged and one.points)
    return next(own, None)


def _summary(curve: Curve) -> str:
    points, bend = curve.points, curve.bend_of_live
    first, last = points[0], points[-1]
    top = max(points, key=lambda point: point.mmcs.value)
    live = f" (live features: {last.live.value:.2f})" if last.live else ""
    turn = (
        f" The curve of live features bends at {bend.at:,}: {bend.before.value:+.3f} per doubling before, "
        f"{bend.after.value:+.3f} after."
        if bend
        else ""
    )
    return (
        f"MMCS with the next larger dictionary is {first.mmcs.value:.2f} at {first.size:,} features, "
        f"largest at {top.size:,} with {top.mmcs.value:.2f}, and {last.mmcs.value:.2f} at {last.size:,}{live}.{turn}"
    )


def _growth(numbers: Numbers, curve: Curve) -> Figure:
    """MMCS over size at the L1 of the run: of all features, live ones, one-to-one, and known features."""
    lines: dict[str, list[charts.Point]] = {
        "all features, with the next larger": [_point(p.size, p.mmcs) for p in curve.points],
        "live features, with the next larger": [_point(p.size, p.live) for p in curve.points if p.live],
        "one-to-one, with the next larger": [
            (p.size, p.matched, None, None) for p in curve.points if p.matched is not None
        ],
    }
    if known := numbers.known_features:
        lines["known features, in dictionaries of this size"] = [_point(p.size, p.mmcs) for p in known.points]
    data = [
        charts.whiskered(name, points, i, f"%{{x}} features: %{{y:.3f}}, {name}", dash=palette.DASHES[i])
        for i, (name, points) in enumerate(lines.items())
        if points
    ]
    sizes = sorted({x for points in lines.values() for x, *_ in points})
    bend = curve.bend_of_live
    layout = palette.layout(
        xaxis=palette.size_axis(sizes), yaxis=palette.axis("MMCS", range=[0, 1.02]), legend=palette.tall_legend(),
        shapes=[palette.upright(bend.at)] if bend else [],
    )  # fmt: skip
    turn = (
        f" Dotted: where two straight pieces fitted to live features bend, {bend.at:,} in "
        f"{bend.share_at[str(bend.at)]:.0%} of resamples."
        if bend
        else ""
    )
    rows = [[name, *point] for name, points in lines.items() for point in points]
    return charts.figure(
        "growth-curve",
        "MMCS over dictionary size, with 95 % intervals over features. Known features: live ones of the largest "
        "dictionary that another seed has as well." + turn,
        "Curves of MMCS over dictionary size.",
        "MMCS by size, with the ends of the interval.",
        {"curve": "", "size": ",d"} | COLUMNS,
        rows,
        data,
        layout,
        height=460,
    )


def _growth_by_l1(numbers: Numbers) -> Figure | None:
    """MMCS over size, with a curve per L1 of the claims' sweep."""
    beside = [curve for curve in numbers.curves if curve.sweep != "run" and curve.points]
    return curves_by_l1(
        "growth-by-l1",
        "The same for several L1, from the short sweep: MMCS with the next larger dictionary.",
        "Curves of MMCS over dictionary size, one per L1 coefficient.",
        "MMCS by size and L1, with the ends of the interval.",
        COLUMNS,
        {curve.l1: [_point(p.size, p.mmcs) for p in curve.points] for curve in beside if curve.l1 is not None},
        lambda name: f"%{{x}} features: %{{y:.3f}}, {name}",
        palette.axis("MMCS", range=[0, 1.02]),
    )


def _point(size: int, interval: Interval) -> charts.Point:
    return size, interval.value, interval.low, interval.high
