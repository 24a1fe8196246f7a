"""What a consensus is worth: reconstruction beside its members', and whether dictionaries that had no vote have it too.

Letters: R rows, d dimensions, n features, K members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scipy.stats import binom
from torch import Tensor

from sparsecode.comparison import chance
from sparsecode.comparison.cosine import best_both, mean, share_above
from sparsecode.comparison.records import Calibration, ChanceShare, Predicted
from sparsecode.comparison.seeds import calibrated
from sparsecode.consensus.clusters import Clusters
from sparsecode.consensus.records import FoundAgain, Quality, Supported
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import Dictionary
from sparsecode.sweep import metrics

THRESHOLDS = (0.9, 0.7)  # of found again: sparsecode's, and that of the literature on seeds
_CHUNK = 2048  # rows that are encoded at a time


def dimensions(rows: Tensor | None, members: Sequence[Voter]) -> list[float]:
    """Dimensions in which chance is told: of the activations; that atoms use; over which the rows' variance spreads.

    Args:
        rows: [R, d], whose covariance has the participation ratio that is the third; None: there is no third.
        members: whose live atoms have the second, see `chance.effective_dimension`.
    """
    used = [chance.effective_dimension(one.atoms[one.live]) for one in members if bool(one.live.any())]
    found = [float(members[0].atoms.shape[1])]
    found.append(sum(used) / len(used) if used else found[0])
    if rows is not None:
        variances = torch.linalg.eigvalsh(torch.cov(rows.double().T)).clamp(min=0)
        found.append(chance.participation_ratio(variances))
    return found


def chances(threshold: float, atoms: int, dimensions: Sequence[float]) -> list[ChanceShare]:
    """Share of random directions with one of so many random atoms above a threshold, for each number of dimensions."""
    return [ChanceShare(dim, chance.share_above(threshold, atoms, dim)) for dim in dimensions]


def supports(
    clusters: Clusters, members: Sequence[Voter], threshold: float, dimensions: Sequence[float]
) -> list[Supported]:
    """Clusters by support, and the share of features that would reach each if all other members were random."""
    K, counts = len(members), torch.bincount(clusters.support, minlength=len(members) + 1)
    atoms = round(sum(int(one.live.sum()) for one in members) / K)
    found = []
    for m in range(1, K + 1):
        own = clusters.coherence[clusters.support == m]
        found.append(
            Supported(
                support=m,
                clusters=int(counts[m]),
                at_least=int(counts[m:].sum()),
                chance=[
                    ChanceShare(one.dimensions, float(binom.sf(m - 2, K - 1, one.share)))
                    for one in chances(threshold, atoms, dimensions)
                ],
                coherence=float(own.mean()) if m > 1 and len(own) else None,
            )
        )
    return found


def quality(what: str, dictionary: Dictionary, rows: Tensor, keep: Tensor | None = None) -> Quality:
    """How well a dictionary reconstructs rows [R, d], with all codes or those of `keep` [n] alone.

    Codes are masked after the activation, so that features that compete, such as TopK's, do as they did.
    """

    def reconstructed(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = dictionary.encode(x)
        codes = codes if keep is None else codes * keep
        return codes != 0, dictionary.decode(codes, x)

    return _quality(what, dictionary.dict_size if keep is None else int(keep.sum()), rows, reconstructed, keep)


def bagging(members: Sequence[Voter], rows: Tensor) -> Quality:
    """The mean of the members' reconstructions: all their features, each with a K-th of its code."""

    def reconstructed(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = [one.dictionary.encode(x) for one in members]
        found = [one.dictionary.decode(own, x) for one, own in zip(members, codes, strict=True)]
        return torch.cat([own != 0 for own in codes], dim=1), torch.stack(found).mean(0)

    return _quality("mean of the members", sum(len(one.atoms) for one in members), rows, reconstructed)


def _quality(
    what: str,
    features: int,
    rows: Tensor,
    reconstructed: Callable[[Tensor], tuple[Tensor, Tensor]],
    keep: Tensor | None = None,
) -> Quality:
    error, fired = 0.0, None
    for x in torch.split(rows, _CHUNK):
        active, found = reconstructed(x)
        error += float((found - x).double().square().sum())
        counts = active.sum(0)
        fired = counts if fired is None else fired + counts
    assert fired is not None
    spread = metrics.Deviations.of(rows).total
    dead = int(((fired == 0) if keep is None else (fired == 0) & keep.bool()).sum())
    return Quality(what, features, metrics.fvu(error, spread), float(fired.sum()) / len(rows), dead)


def densest(voter: Voter, count: int) -> Tensor:
    """[n] bool: the features of a dictionary that fire on most rows, live ones first where that was not counted."""
    density = voter.dictionary.features.get("density")
    order = torch.argsort(-(voter.live.float() if density is None else density), stable=True)
    kept = torch.zeros(len(voter.atoms), dtype=torch.bool)
    kept[order[:count]] = True
    return kept


def found_again(
    atoms: Tensor, members: Sequence[Voter], held_out: Sequence[Voter], dimensions: Sequence[float]
) -> list[FoundAgain]:
    """How much is in the live atoms of dictionaries that had no vote.

    Of the atoms [n, d] of a consensus; of its members' live features; and of as many of the densest of each.
    """
    found = []
    for other in held_out:
        theirs = other.atoms[other.live]
        if not len(theirs):
            continue
        cut = [densest(one, len(atoms)) & one.live for one in members]
        groups = {
            "consensus": atoms,
            "members": torch.cat([one.atoms[one.live] for one in members]),
            "members, as many of the densest": torch.cat([one.atoms[k] for one, k in zip(members, cut, strict=True)]),
        }
        for what, own in groups.items():
            cosine = best_both(own.contiguous(), theirs.contiguous())[0].values
            found += [
                FoundAgain(
                    what=what,
                    features=len(own),
                    held_out=other.name,
                    threshold=threshold,
                    share=share_above(cosine, threshold),
                    mmcs=mean(cosine),
                    chance_mmcs=chance.expected_mmcs(len(theirs), dimensions[0]),
                    chance=chances(threshold, len(theirs), dimensions),
                )
                for threshold in THRESHOLDS
            ]
    return found


def calibration(
    centres: Tensor, support: Tensor, members: int, held_out: Sequence[Voter], threshold: float
) -> Calibration | None:
    """Whether the support says how often a feature is in a dictionary that had no vote.

    A feature in m of K members was found in m - 1 of the K - 1 others, which is the prediction. Each member's feature
    counts, so a cluster counts m times. None for one member, or where nothing was held out.

    Args:
        centres: [C, d] of all clusters.
        support: [C].
        members: K.
        held_out: dictionaries without a vote.
        threshold: cosine above which a centre is found.
    """
    others = [one.atoms[one.live].contiguous() for one in held_out if bool(one.live.any())]
    if members < 2 or not others or not len(centres):
        return None
    hits = [best_both(centres.contiguous(), theirs)[0].values > threshold for theirs in others]
    share = torch.stack(hits).double().mean(0)
    rows = []
    for m in range(1, members + 1):
        own = share[support == m]
        rows.append(Predicted((m - 1) / (members - 1), m * len(own), float(own.mean()) if len(own) else None))
    return calibrated(rows)
