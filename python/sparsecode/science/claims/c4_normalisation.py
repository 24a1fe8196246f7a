"""Claim 4: the diagonals of heat maps over size and L1 come from dividing L1 by the size.

Needs: the model; sweeps under both normalisations, most of both trained (others are left out of the lines).
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence
from sparsecode.science.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.l0_contours import LocalSlope, local_slopes, slope

CLAIM = (
    "The diagonal lines of heat maps over size and L1 are an artefact of dividing L1 by the dictionary size; without "
    "the division one L1 suits a broad range of sizes."
)
# Slope of a line of equal L0: 0 means one L1 for all sizes, 1 means L1 in proportion to size (the diagonal). The middle
# tells which of the two a slope is nearer to.
HALF_DIAGONAL = 0.5
# How far the slope of one GPT's activations may be from that of another's: twice the standard deviation over six runs
# that differ in the GPT's seed and training (0.31 to 0.72; docs/claims.md). The interval of one run does not know it.
BETWEEN_GPTS = 0.3


@dataclass(frozen=True)
class Cell:
    """A dictionary as a point of the maps over size and L1; `mmcs` is with the next larger one."""

    size: int
    l1: float
    l0: float | None
    fvu: float | None
    dead: int | None
    mmcs: float | None
    untrained: str | None


@dataclass(frozen=True)
class OneL1:
    """The L1 whose MMCS is nearest to the best of every size, and by how much it falls short where it is worst."""

    l1: float
    falls_short: float


@dataclass(frozen=True)
class Grid:
    """A sweep over size and L1 under one normalisation."""

    dictionaries: list[Cell]
    slope: Interval | None
    local_slopes: list[LocalSlope]
    one_l1: OneL1 | None


@dataclass(frozen=True)
class Numbers:
    """The sweeps with L1 as it is, and divided by the size."""

    plain: Grid
    divided: Grid


def judge(evidence: Evidence) -> Finding[Numbers]:
    """Slope of lines of equal L0 under both normalisations, and what one L1 for all sizes costs in MMCS."""
    if evidence.plain is None or evidence.divided is None:
        why = evidence.missing.get("sweeps", "The sweep under both normalisations was not run.")
        return Finding(CLAIM, not_tested(why))
    sweeps = (evidence.plain, evidence.divided)
    thin = [why for sweep in sweeps if (why := trained.share(sweep.untrained, len(sweep.entries)))]
    plain, divided = (_grid(sweep, evidence.config.draws) for sweep in sweeps)
    verdict = trained.too_thin(thin[0]) if thin else rule(plain.slope, divided.slope)
    return Finding(CLAIM, verdict, Numbers(plain, divided))


def rule(plain: Interval | None, divided: Interval | None) -> Verdict:
    """The verdict from the slopes d log L1 / d log size of lines of equal L0 under both normalisations."""
    if plain is None or divided is None:
        return not_tested("The sweep over sizes and L1 under both normalisations has no two sizes with a common L0.")
    number = f"slope {plain.text()} plain, {divided.text()} divided"
    if divided.low <= HALF_DIAGONAL:
        flat = Verdict(NOT_REPRODUCED, "With L1 divided by the size the lines are not diagonal to begin with.", number)
        return flat.doubted(divided.holds(HALF_DIAGONAL))
    if plain.high < HALF_DIAGONAL and plain.low > -HALF_DIAGONAL:
        words = "Lines of equal L0 are diagonal with the division and nearer to flat without."
        found = Verdict(REPRODUCED, words, number)
    else:
        words = "Without the division the lines of equal L0 are not clearly nearer to flat."
        found = Verdict(NOT_REPRODUCED, words, number)
    return found.doubted(any(plain.near(bound, BETWEEN_GPTS) for bound in (HALF_DIAGONAL, -HALF_DIAGONAL)))


def _grid(sweep: ComparedSweep, draws: int) -> Grid:
    cells: list[Cell] = []
    by_size: dict[int, list[tuple[float, float]]] = {}
    for entry in sweep.entries:
        l0, fvu, dead = (entry.metrics.get(name) for name in ("l0", "fvu", "dead"))
        mmcs = entry.next.mcs.all.mean if entry.next else None
        cell = Cell(entry.dict_size, entry.about["l1"], l0, fvu, dead, mmcs, sweep.untrained.get(entry.name))
        cells.append(cell)
        if cell.l0 is not None and not cell.untrained:
            by_size.setdefault(cell.size, []).append((cell.l1, cell.l0))
    found = local_slopes(by_size)
    return Grid(cells, slope(found, draws=draws), found, _one_l1(cells))


def _one_l1(cells: list[Cell]) -> OneL1 | None:
    best: dict[int, float] = {}
    found: dict[float, dict[int, float]] = {}
    for cell in cells:
        if cell.mmcs is not None:
            found.setdefault(cell.l1, {})[cell.size] = cell.mmcs
            best[cell.size] = max(best.get(cell.size, -1.0), cell.mmcs)
    lost = {
        l1: max(best[n] - by_size[n] for n in best) for l1, by_size in found.items() if by_size.keys() == best.keys()
    }
    return min((OneL1(l1, worst) for l1, worst in lost.items()), key=lambda one: one.falls_short, default=None)
