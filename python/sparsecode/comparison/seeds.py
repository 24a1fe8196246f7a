"""Stability by seed: what recurs in dictionaries that differ in nothing but their seed, and how sure that is.

Sources: the share of other seeds in which a feature is found is the estimator of Gerasimov et al. (arXiv 2606.12138,
2026); the share of orphans over the number of seeds is what Paulo and Belrose show (arXiv 2501.16615, 2025), here its
mean over all choices of seeds. Only live features count: dead ones are found nowhere, for another reason.

Everything follows from one count, of the features that are found in c of the S other seeds. Letters: K dictionaries
with S = K - 1 others each, n features of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.special import betaincinv
from torch import Tensor

from sparsecode.comparison import chance
from sparsecode.comparison.members import Member
from sparsecode.comparison.records import BySeed, Calibration, ChanceShare, Predicted

CONFIDENCE = 0.95  # of a floor, one-sided


def groups_by_seed(members: Sequence[Member]) -> list[list[int]]:
    """Positions of members that differ in their seed alone, two or more each, in the order of their seeds."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for k, member in enumerate(members):
        seed = member.about.get("seed")
        if isinstance(seed, int) and member.init is None:  # of a common start they agree by construction
            found.setdefault((member.family, member.dict_size), {}).setdefault(seed, k)
    return [[own[seed] for seed in sorted(own)] for own in found.values() if len(own) > 1]


def by_seed(members: Sequence[Member], group: Sequence[int], cosine: Sequence[Tensor], threshold: float) -> BySeed:
    """What recurs within a group.

    Args:
        members: all dictionaries of a comparison.
        group: positions of those that differ in their seed alone.
        cosine: of each member [n, K], MCS with every member.
        threshold: cosine above which a feature counts as found.
    """
    own = [members[k] for k in group]
    S = len(group) - 1
    counts = torch.zeros(S + 1, dtype=torch.int64)
    for k in group:
        found = times_found(cosine[k], [j for j in group if j != k], threshold)
        counts += torch.bincount(found[members[k].live_or_all], minlength=S + 1)
    listed = [int(count) for count in counts]
    dimensions = (
        own[0].atoms.shape[1],
        sum(chance.effective_dimension(one.atoms[one.live_or_all]) for one in own) / len(own),
    )
    return BySeed(
        dictionaries=[one.name for one in own],
        seeds=[one.about["seed"] for one in own],
        features=int(counts.sum()),
        found=listed,
        floors=[floor(c, S) for c in range(S + 1)],
        chance=[ChanceShare(dim, chance.share_above(threshold, own[0].size, dim)) for dim in dimensions],
        orphans=orphans(listed),
        calibration=calibration(listed) if S > 1 and bool(counts.any()) else None,
    )


def times_found(cosine: Tensor, columns: Sequence[int], threshold: float) -> Tensor:
    """[n] int64, in how many of the dictionaries of `columns` a feature is found. cosine [n, K]."""
    return (cosine[:, list(columns)] > threshold).sum(dim=1)


def floor(found: int, others: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of Clopper and Pearson of a share, of which `found` of `others` were seen.

    >>> round(floor(3, 3), 2), round(floor(7, 7), 2)
    (0.37, 0.65)
    """
    return float(betaincinv(found, others - found + 1, 1 - confidence)) if found else 0.0


def orphans(found: Sequence[int]) -> list[float]:
    """Share of features that none of k - 1 other seeds has, for k = 2 to S + 1: the mean over all choices of seeds.

    A feature found in c of S others is missed by k - 1 of them with probability C(S - c, k - 1) / C(S, k - 1).

    Args:
        found: of c = 0 to S, how many features are found in c others.

    >>> orphans([1, 0, 1])
    [0.5, 0.5]
    """
    S, features = len(found) - 1, sum(found)
    return [
        sum(count * math.comb(S - c, k - 1) for c, count in enumerate(found)) / math.comb(S, k - 1) / max(features, 1)
        for k in range(2, S + 2)
    ]


def calibration(found: Sequence[int]) -> Calibration:
    """Whether stability over all seeds but one says how often a feature is found in that one; each is left out once.

    Args:
        found: of c = 0 to S, how many features are found in c others; S of 2 or more.
    """
    S = len(found) - 1
    rows = []
    for m in range(S):  # found in m of the S - 1 others that remain
        hit, missed = (m + 1) * found[m + 1], (S - m) * found[m]
        rows.append(Predicted(m / (S - 1), hit + missed, hit / (hit + missed) if hit + missed else None))
    return calibrated(rows)


def calibrated(rows: Sequence[Predicted]) -> Calibration:
    """Rows with their Brier score, and the slope of what was found over what was predicted; None where all is one."""
    known = [(row.predicted, row.features, row.found) for row in rows if row.found is not None]
    total = sum(features for _, features, _ in known)
    if not total:
        return Calibration(list(rows), None, None)
    brier = sum(n * (share * (1 - p) ** 2 + (1 - share) * p**2) for p, n, share in known) / total
    mean = sum(n * p for p, n, _ in known) / total
    spread = sum(n * (p - mean) ** 2 for p, n, _ in known)
    slope = sum(n * (p - mean) * share for p, n, share in known) / spread if spread > 0 else None
    return Calibration(list(rows), brier, slope)
