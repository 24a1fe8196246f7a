"""Claim 5: MMCS against dictionary size."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures_sweeps
from sparsecode.report.blocks import Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import between, claim_section
from sparsecode.science.claims.c5_growth import CLAIM
from sparsecode.science.claims.verdicts import PLATEAU, RISE

ID, TITLE = "growth", "MMCS as dictionaries grow"


def section(facts: Facts) -> Section:
    """The curve with its bend, for all features, live ones, and features known to be there."""
    numbers = facts.finding("5")["numbers"]
    known = numbers.get("known_features")
    lead = []
    if known and known["bend"]:
        lead.append(
            f"Asked the other way, as toy models are: the {known['features']} live features of {known['from']} that "
            f"another seed has as well are held by smaller dictionaries with a cosine that rises "
            f"{between(known['bend']['before'])} per doubling up to {known['bend']['at']:,} features, then "
            f"{between(known['bend']['after'])}."
        )
    return claim_section(
        facts,
        "5",
        ID,
        TITLE,
        CLAIM,
        _summary(numbers),
        [figures_sweeps.growth(numbers), figures_sweeps.growth_by_l1(numbers)] if numbers else [],
        how="MMCS of each size with the next larger dictionary of the same seed and L1, features of all seeds "
        "together; intervals resample features. A curve of two straight pieces over log2(size) is fitted by least "
        "squares, bent at an inner size. Judged is the curve of live features, which fired on the held-out rows: dead "
        "ones are as similar to a larger dictionary as chance has it, and pull the curve of all features down. "
        f"Reproduced: a rise of at least {RISE:g} per doubling (95 % interval), then a slope within {PLATEAU:.0%} of "
        "it around zero.",
        lead=lead,
    )


def _summary(numbers: dict[str, Any]) -> str:
    curves = [c for c in numbers.get("curves", []) if c["sweep"] == "run" and c["l1"] == numbers["judged_l1"]]
    if not curves or not curves[0]["points"]:
        return ""
    points = curves[0]["points"]
    first, last = points[0], points[-1]
    top = max(points, key=lambda point: point["mmcs"]["value"])
    live = f" (live features: {last['live']['value']:.2f})" if last["live"] else ""
    bend = curves[0]["bend_of_live"]
    turn = (
        f" The curve of live features bends at {bend['at']:,}: {bend['before']['value']:+.3f} per doubling before, "
        f"{bend['after']['value']:+.3f} after."
        if bend
        else ""
    )
    return (
        f"MMCS with the next larger dictionary is {first['mmcs']['value']:.2f} at {first['size']:,} features, "
        f"largest at {top['size']:,} with {top['mmcs']['value']:.2f}, and "
        f"{last['mmcs']['value']:.2f} at {last['size']:,}{live}.{turn}"
    )
