"""Claim 4: where the diagonal lines of heat maps over size and L1 come from."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures_sweeps
from sparsecode.report.blocks import Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import between, claim_section
from sparsecode.science.claims.c4_normalisation import CLAIM
from sparsecode.science.claims.verdicts import HALF_DIAGONAL

ID, TITLE = "diagonals", "Dividing L1 by the size"


def section(facts: Facts) -> Section:
    """Heat maps of L0 and MMCS under both normalisations, and the slope of lines of equal L0."""
    numbers = facts.finding("4")["numbers"]
    return claim_section(
        facts,
        "4",
        ID,
        TITLE,
        CLAIM,
        _summary(numbers),
        [figures_sweeps.l0_maps(numbers), figures_sweeps.mmcs_maps(numbers)] if numbers else [],
        how="The same sizes, rows and number of steps, once with the L1 coefficient as it is and once divided by the "
        "dictionary size; both coefficients mean the same for a dictionary of as many features as dimensions. Between "
        "neighbouring sizes the L1 that gives the same L0 is interpolated (log-log), and its slope d log L1 / d log "
        "size averaged over all L0 that both reach; the interval resamples pairs of sizes. 0: one L1 suits all sizes. "
        f"1: L1 must grow with the size, a diagonal. {HALF_DIAGONAL:g} is the middle.",
    )


def _summary(numbers: dict[str, Any]) -> str:
    if not numbers or not (numbers["plain"]["slope"] and numbers["divided"]["slope"]):
        return ""
    text = (
        f"Lines of equal L0 have slope {between(numbers['plain']['slope'])} with L1 as it is, and "
        f"{between(numbers['divided']['slope'])} with L1 divided by the size."
    )
    one = numbers["plain"]["one_l1"]
    if one:
        text += f" L1 = {one['l1']:.3g} alone comes within {one['falls_short']:.2f} of the best MMCS of every size."
    return text
