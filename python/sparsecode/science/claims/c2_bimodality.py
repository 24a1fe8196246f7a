"""Claim 2: the distribution of MCS between dictionaries of different sizes has two modes.

Needs: the model; trained dictionaries and their larger relatives (others do not count), with `LEAST_FEATURES` alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sparsecode.comparison import Relation, histogram
from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence, Row
from sparsecode.science.claims.verdicts import MOST, NOT_REPRODUCED, PARTLY, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics.dip import p_value
from sparsecode.science.statistics.mixture import TwoModes, two_modes

CLAIM = (
    "The distribution of MCS between dictionaries of different sizes is highly bimodal: one set of features is found "
    "across sizes."
)
BINS = 50
# Each distribution at 1 %; that most of several pass by chance is then out of the question.
DIP_LEVEL = 0.01
# Ashman, Bird and Zepf (1994): two normal distributions have separate peaks where D is above 2.
ASHMAN = 2.0
# A second mode with under 5 % of the features is a tail.
LEAST_WEIGHT = 0.05
# Below this many live features neither the dip nor a fit of five parameters says anything.
LEAST_FEATURES = 50


@dataclass(frozen=True)
class Modes(TwoModes):
    """The two modes of live features; pairs are (lower, upper)."""

    density: list[float] | None = None  # geometric means over the features of each mode
    initial_cosine: list[float] | None = None  # means of the cosine with the start


@dataclass(frozen=True)
class Shape:
    """The dip test and the fit of two modes; all None where features are too few."""

    dip: float | None
    p: float | None
    modes: Modes | None
    bimodal: bool | None
    features: int


@dataclass(frozen=True)
class Distribution(Row):
    """MCS of a dictionary with the next larger one, tested for live features, and for all, as the seed counted.

    Dead features, whose cosines are those of chance, make a mode of their own; only trained ones can be of two kinds.
    """

    overcomplete: bool
    untrained: dict[str, str]
    features: int
    dead: int
    live_histogram: list[int]
    dead_histogram: list[int]
    dip: float | None
    p: float | None
    modes: Modes | None
    bimodal: bool | None
    everything: Shape


@dataclass(frozen=True)
class Numbers:
    """Every dictionary that has a larger relative."""

    bins: int
    dictionaries: list[Distribution]


def judge(evidence: Evidence) -> Finding[Numbers]:
    """Dip test and a fit of two normals for every dictionary with a larger relative: of live features, and of all."""
    rows = [row for sweep in evidence.sweeps for row in rows_of(sweep)]
    return Finding(CLAIM, judge_rows([row for row in rows if row.sweep == evidence.main.label]), Numbers(BINS, rows))


def judge_rows(rows: list[Distribution]) -> Verdict:
    """The verdict on one sweep, from what `rows_of` says of it."""
    fits = [row for row in rows if row.overcomplete]
    judged = [row for row in fits if not row.untrained]
    if fits and not judged:
        return trained.too_thin(trained.listed(fits[0].untrained))
    starts = [row.modes.initial_cosine for row in judged if row.bimodal and row.modes is not None]
    return rule(
        [row.bimodal for row in judged],
        [row.everything.bimodal for row in judged],
        [start[0] for start in starts if start is not None],
    )


def rule(
    live: Sequence[bool | None], everything: Sequence[bool | None] = (), low_start: Sequence[float] = ()
) -> Verdict:
    """The verdict from `bimodal` of every dictionary with more features than dimensions and a larger relative.

    Args:
        live: of its live features.
        everything: of all its features, dead ones too, as the seed counted.
        low_start: for those whose live features have two modes, the mean cosine of the lower one's with their start.
    """
    judged = [one for one in live if one is not None]
    if not judged:
        return not_tested(
            "No dictionary with more features than dimensions and a larger relative has "
            f"{LEAST_FEATURES} live features."
        )
    count, with_dead = sum(judged), [one for one in everything if one is not None]
    number = f"bimodal in {count} of {len(judged)} dictionaries"
    number += f" ({sum(with_dead)} with dead features)" if with_dead else ""
    # One dictionary more or less would turn it.
    doubtful = abs(count - MOST * len(judged)) <= 1 and len(judged) > 1
    if count > MOST * len(judged):
        if low_start and sum(low_start) / len(low_start) > trained.HARDLY_MOVED:
            unmoved = "Live features have two modes, but the lower one is of features that hardly moved."
            return Verdict(PARTLY, unmoved, number).doubted(doubtful)
        found = Verdict(REPRODUCED, "Live features alone have two modes in most dictionaries.", number)
        return found.doubted(doubtful)
    # How many die depends on the start and on the model's seed, so dead features explain but do not decide.
    if with_dead and sum(with_dead) > MOST * len(with_dead):
        reason = (
            "All features together, as the seed counted, have two modes; live features mostly have one: the lower mode "
            "is of dead features."
        )
    else:
        reason = "In most dictionaries live features have no two separate modes."
    return Verdict(NOT_REPRODUCED, reason, number).doubted(doubtful)


def bimodal(p: float, ashman: float, weights: Sequence[float], features: int) -> bool | None:
    """Whether one distribution of MCS has two modes; None where too few features are alive to tell."""
    if features < LEAST_FEATURES:
        return None
    return p < DIP_LEVEL and ashman > ASHMAN and min(weights) >= LEAST_WEIGHT


def rows_of(sweep: ComparedSweep) -> list[Distribution]:
    """Every dictionary with a larger relative: its histograms, the dip test and the fit of two modes."""
    rows = []
    for entry in sweep.entries:
        if entry.next is None:
            continue
        name = entry.name
        values, live = sweep.comparison.cosine(name, entry.next.dictionary), sweep.live(name)
        row = Distribution(
            **sweep.named(entry),
            overcomplete=entry.dict_size > sweep.comparison.dimensions,
            untrained=sweep.below(entry, Relation.NEXT),
            dead=int((~live).sum()),
            live_histogram=histogram(values[live], BINS),
            dead_histogram=histogram(values[~live], BINS),
            **vars(_shape_of(values[live], sweep, name, live.numpy())),
            everything=_shape_of(values),
        )
        rows.append(row)
    return rows


def _shape_of(
    values: Tensor, sweep: ComparedSweep | None = None, name: str = "", live: npt.NDArray[np.bool_] | None = None
) -> Shape:
    """The dip test and the fit of two modes of MCS [n]; with a dictionary, what is known of its live features."""
    if len(values) < LEAST_FEATURES:
        return Shape(None, None, None, None, len(values))
    own = values.double().numpy()
    (found, p), (fit, upper) = p_value(own), two_modes(own)
    about: dict[str, Any] = {}
    if sweep is not None:
        density, start = sweep.density(name), sweep.dictionaries[name].features.get("initial_cosine")
        shares = (1 - upper, upper)
        if density is not None:
            log = np.log(density.double().numpy()[live])
            about["density"] = [float(np.exp(np.average(log, weights=share))) for share in shares]
        if start is not None:
            moved = start.double().numpy()[live]
            about["initial_cosine"] = [float(np.average(moved, weights=share)) for share in shares]
    return Shape(found, p, Modes(**vars(fit), **about), bimodal(p, fit.ashman, fit.weights, len(own)), len(own))
