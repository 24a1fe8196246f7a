"""Claim 6: learned features are not sparse in the basis of neurons.

Needs: the model; the dictionary whose features are looked at, trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsecode.science.claims import trained
from sparsecode.science.claims.c1_recurrence import best_dictionary
from sparsecode.science.claims.evidence import Evidence
from sparsecode.science.claims.verdicts import MOST, NOT_REPRODUCED, PARTLY, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.sparsity import MEASURES, Array, participation_ratio
from sparsecode.science.top_contexts import Rows

CLAIM = "Learned features, including those that come back, are not at all sparse in the basis of neurons."
# Not sparse at all: spread over neurons like a random direction, which one in a hundred is not. A direction of the data
# cannot use neurons that hardly vary, and in a default run neurons' standard deviations differ by a hundred times:
# directions that know nothing of neurons but these are sparser than uniform ones. A direction as concentrated as these
# is sparse for that reason alone.
RANDOM_PERCENTILE = 1.0
RANDOM = 5000
ROWS, PARTS = 4000, 16  # activations beside them, from all over the dataset: what the features are made of
QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Group:
    """Quantiles of one measure over a group of directions."""

    group: str
    directions: int
    measure: str
    quantiles: list[float]


@dataclass(frozen=True)
class Numbers:
    """How spread over neurons the features of a dictionary are, beside other directions."""

    dictionary: str
    quantiles: list[int]
    groups: list[Group]
    random_percentile: dict[str, Any]
    as_spread_as: dict[str, Interval]
    participation_ratios: dict[str, list[float]]


def judge(evidence: Evidence) -> Finding[Numbers]:
    """Participation ratio, L1/L2 and kurtosis of atoms beside random directions, neurons and activations.

    Random directions are uniform ones, and weighted ones: each component times its neuron's standard deviation.
    """
    sweep = evidence.main
    fits = [one for one in sweep.entries if one.name not in sweep.untrained] or sweep.entries
    entry = best_dictionary(sweep)
    if entry is None or entry.name in sweep.untrained:
        entry = max(fits, key=lambda one: int(sweep.found_again(one).sum()))
    atoms = sweep.dictionaries[entry.name].W_dec.double().numpy()
    again, live = sweep.found_again(entry).numpy(), sweep.live(entry.name).numpy()
    width = sweep.comparison.dimensions
    random = np.random.default_rng(evidence.config.seed).standard_normal((RANDOM, width))
    groups: dict[str, Any] = {
        "found again": atoms[again],
        "live": atoms[live],
        "random directions": random,
        "neurons": np.eye(width),
    }
    if evidence.dataset is not None:
        rows = _spread(evidence.dataset)
        groups["random, weighted"] = random * rows.std(axis=0)
        groups["activations"] = rows[(rows != 0).any(axis=1)]
    table = [
        Group(group, len(rows), measure, [float(one) for one in np.percentile(compute(rows), QUANTILES)])
        for group, rows in groups.items()
        for measure, compute in MEASURES.items()
        if len(rows)
    ]
    spread = {group: participation_ratio(rows) for group, rows in groups.items()}
    random_ones = [group for group in ("random directions", "random, weighted") if group in groups]
    bounds = {group: float(np.percentile(spread[group], RANDOM_PERCENTILE)) for group in random_ones}
    shares: dict[str, Interval] = {}
    ratios: dict[str, float] = {}
    if again.sum() >= trained.LEAST_DIRECTIONS:
        for group, bound in bounds.items():
            above = (spread["found again"] >= bound).astype(float)
            shares[group] = bootstrap.interval(above, draws=evidence.config.draws)
        names = zip(("features", "random", "weighted"), ("found again", *random_ones), strict=False)
        ratios = {name: float(np.median(spread[group])) for name, group in names}
    percentile = {"percentile": RANDOM_PERCENTILE, "participation ratio": bounds}
    held = {group: np.round(spread[group], 3).tolist() for group in ("found again", "live")}
    numbers = Numbers(entry.name, list(QUANTILES), table, percentile, shares, held)
    verdict = rule(shares.get("random directions"), shares.get("random, weighted"), ratios)
    if entry.name in sweep.untrained:
        verdict = trained.too_thin(trained.listed(sweep.below(entry)))
    return Finding(CLAIM, verdict, numbers)


def rule(as_random: Interval | None, as_weighted: Interval | None, ratio: Mapping[str, float]) -> Verdict:
    """The verdict from the share of features as spread over neurons as 99 % of random directions are.

    Args:
        as_random: that share, of the features that come back.
        as_weighted: the same against random directions whose components have the neurons' standard deviations; None
            where the activations are not there.
        ratio: medians of the participation ratio (how many neurons a direction effectively uses): features, random,
            weighted.
    """
    if as_random is None:
        return not_tested(f"Fewer than {trained.LEAST_DIRECTIONS} live features are found again.")
    weighted = f" ({ratio['weighted']:.1f} weighted by the neurons' spread)" if "weighted" in ratio else ""
    number = f"{ratio['features']:.1f} neurons effectively, random {ratio['random']:.1f}{weighted}, neuron 1"
    if as_random.low > MOST:
        return Verdict(REPRODUCED, "Most features are as spread over neurons as random directions.", number)
    if ratio["features"] >= ratio["random"]:
        most = Verdict(NOT_REPRODUCED, "Not clearly most features are as spread as random directions.", number)
        return most.doubted(True)
    few = f"Only {as_random.value:.0%} of the features are as spread over neurons as random directions"
    if as_weighted is not None and as_weighted.low > MOST:
        why = (
            f"{few}; but {as_weighted.value:.0%} are as spread as random directions that use each neuron as much as it "
            "varies."
        )
        return Verdict(PARTLY, why, number).doubted(as_random.holds(MOST))
    between = Verdict(NOT_REPRODUCED, f"{few}: most lie between a random direction and a neuron.", number)
    return between.doubted(as_random.holds(MOST) or (as_weighted is not None and as_weighted.holds(MOST)))


def _spread(dataset: Rows) -> Array:
    """[R, D] of up to ROWS rows in PARTS stretches over the whole dataset: neighbouring rows are of one text."""
    own = min(ROWS, dataset.rows) // PARTS or 1
    starts = np.linspace(0, dataset.rows - own, PARTS).astype(int)
    parts: Array = np.concatenate([dataset.read(int(start), int(start) + own).double().numpy() for start in starts])
    return parts
