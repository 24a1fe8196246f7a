"""Claim 5: as dictionaries grow, MMCS first rises rapidly, then stays.

Needs: the model; trained dictionaries and their larger relatives (other sizes are left out of the curve).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sparsecode.comparison import Entry, Relation
from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence
from sparsecode.science.claims.verdicts import NOT_REPRODUCED, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.changepoint import BendIntervals, bend_of_means

CLAIM = "As the dictionary grows, MMCS first rises rapidly, then plateaus."
# Of live features: those that died are as similar to a larger dictionary as chance has it, so that a curve of all
# features falls with their number, whatever the others do.
# A rise of a twentieth of the whole scale of cosines per doubling can be seen by eye; a plateau keeps within a quarter
# of the rise before it.
RISE = 0.05
PLATEAU = 0.25
LEAST_SIZES = 4


@dataclass(frozen=True)
class KnownPoint:
    """MMCS at one size."""

    size: int
    mmcs: Interval


@dataclass(frozen=True)
class Point(KnownPoint):
    """MMCS with the next larger size: of all features, of live ones, and one-to-one."""

    live: Interval | None
    matched: float | None


@dataclass(frozen=True)
class Curve:
    """MMCS over size of one kind of dictionary at one L1 of a sweep."""

    sweep: str
    l1: float | None
    points: list[Point]
    bend: BendIntervals | None
    bend_of_live: BendIntervals | None
    kind: str | None = None


@dataclass(frozen=True)
class Known:
    """How well dictionaries of each size hold features that are known to be there."""

    from_: str
    features: int
    points: list[KnownPoint]
    bend: BendIntervals | None


@dataclass(frozen=True)
class Numbers:
    """A curve for every kind and L1 of every sweep; that of the run at `judged_kind` and `judged_l1` is judged."""

    judged_l1: float | None
    curves: list[Curve]
    known_features: Known | None
    judged_kind: str | None = None


def judge(evidence: Evidence) -> Finding[Numbers]:
    """The curve of live features' MMCS with the next larger dictionary at the middle L1, bent once; others beside."""
    main, draws = evidence.main, evidence.config.draws
    curves = [curve for sweep in evidence.sweeps for curve in curves_of(sweep, draws)]
    judged, verdict = judge_curves(main, [curve for curve in curves if curve.sweep == main.label])
    l1, kind = (judged.l1, judged.kind) if judged else (None, None)
    return Finding(CLAIM, verdict, Numbers(l1, curves, known_features(main, draws), kind))


def judge_curves(sweep: ComparedSweep, curves: list[Curve]) -> tuple[Curve | None, Verdict]:
    """The curve of one sweep at its middle L1, None without one, and the verdict on it."""
    judged = curves[len(curves) // 2] if curves else None
    found = judged.bend_of_live if judged else None
    living = [point.live.value for point in judged.points if point.live] if judged else []
    if len(living) < LEAST_SIZES and sweep.untrained:
        return judged, trained.too_thin(trained.listed(sweep.untrained))
    before, after = (found.before, found.after) if found else (None, None)
    return judged, rule(before, after, len(living), living[0] if living else 0.0)


def rule(before: Interval | None, after: Interval | None, sizes: int, first: float) -> Verdict:
    """The verdict from slopes of live features' MMCS per doubling of the size, before and after the change-point.

    Args:
        before: the first slope.
        after: the second one.
        sizes: points of the curve.
        first: MMCS at the smallest size.
    """
    if before is None or after is None or sizes < LEAST_SIZES:
        return not_tested(f"The curve has {sizes} sizes with a larger relative; a change-point needs {LEAST_SIZES}.")
    number = f"{before.text('+.3f')} per doubling, then {after.text('+.3f')}"
    if before.low < RISE:
        why = f"MMCS does not rise at first: it is {first:.2f} at the smallest size already."
        rise = Verdict(NOT_REPRODUCED, why if before.value < RISE else "The first rise is not clear.", number)
        return rise.doubted(before.holds(RISE))
    bound = PLATEAU * before.value
    if after.low < -bound:
        return Verdict(NOT_REPRODUCED, "MMCS rises, then falls.", number).doubted(after.holds(-bound))
    if after.high > bound:
        return Verdict(NOT_REPRODUCED, "MMCS rises and goes on rising.", number).doubted(after.holds(bound))
    return Verdict(REPRODUCED, "MMCS rises, then stays.", number)


def curves_of(sweep: ComparedSweep, draws: int) -> list[Curve]:
    """For every kind and L1 the MMCS of each size with the next larger one, features of all seeds together."""

    def cosines(entry: Entry) -> torch.Tensor:
        assert entry.next is not None
        return sweep.comparison.cosine(entry.name, entry.next.dictionary)

    def living(entry: Entry) -> torch.Tensor:
        return cosines(entry)[:0] if sweep.below(entry, Relation.NEXT) else cosines(entry)[sweep.live(entry.name)]

    found = []
    said = [(entry.kind, entry.l1) for entry in sweep.entries if (entry.kind, entry.l1) != (None, None)]
    for kind, l1 in dict.fromkeys(said):  # in the order of `entries`
        entries: dict[int, list[Entry]] = {}
        for entry in sweep.entries:
            if (entry.kind, entry.l1) == (kind, l1) and entry.next:
                entries.setdefault(entry.dict_size, []).append(entry)
        every = {size: torch.cat([cosines(one) for one in own]).double().numpy() for size, own in entries.items()}
        alive = {size: torch.cat([living(one) for one in own]).double().numpy() for size, own in entries.items()}
        alive = {size: own for size, own in alive.items() if len(own)}
        points = []
        for size, own in entries.items():
            pairs = [one.next.matched.all.mean for one in own if one.next and one.next.matched]
            matched = [mean for mean in pairs if mean is not None]
            of_live = bootstrap.interval(alive[size], draws=draws) if size in alive else None
            of_all = bootstrap.interval(every[size], draws=draws)
            points.append(Point(size, of_all, of_live, float(np.mean(matched)) if matched else None))
        found.append(Curve(sweep.label, l1, points, _bend(every, draws), _bend(alive, draws), kind))
    return found


def _bend(by_size: dict[int, npt.NDArray[np.float64]], draws: int) -> BendIntervals | None:
    return None if len(by_size) < LEAST_SIZES else bend_of_means(by_size, draws=draws)


def known_features(sweep: ComparedSweep, draws: int) -> Known | None:
    """How well dictionaries of each size hold features that are known to be there: the claim's curve for toy models.

    Known: live features of the largest dictionary that the largest one of another seed has as well. Their MCS with
    smaller dictionaries, which had no part in the choice. None without a second seed.
    """
    comparison, largest = sweep.comparison, max(sweep.entries, key=lambda entry: entry.dict_size)
    if largest.other_seed is None:
        return None
    again = comparison.cosine(largest.name, largest.other_seed.dictionary) > comparison.threshold
    chosen = sweep.live(largest.name) & again
    family = next(family for family in comparison.families if largest in family)
    smaller = [entry for entry in family if entry.dict_size < largest.dict_size]
    if not bool(chosen.any()) or not smaller:
        return None
    values = {
        entry.dict_size: comparison.cosine(largest.name, entry.name)[chosen].double().numpy() for entry in smaller
    }
    points = [KnownPoint(size, bootstrap.interval(own, draws=draws)) for size, own in values.items()]
    return Known(largest.name, int(chosen.sum()), points, _bend(values, draws))
