"""Whether features that recur in no other dictionary still span the same space.

Atoms that tile a space of which no basis is special come back with other directions. What can come back is the space:
not the span of the atoms, which is everything once there are enough of them, but the top of the covariance of what they
add to activations together. It follows the data's own covariance, so only what exceeds atoms drawn from that says
anything. Letters: R rows, d dimensions, n features, r dimensions of a subspace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.comparison import chance
from sparsecode.comparison.cosine import best_both, mean
from sparsecode.consensus.clusters import Clusters
from sparsecode.consensus.functional import codes
from sparsecode.consensus.records import SpacePair, Subspaces
from sparsecode.consensus.voters import Voter

_CHUNK = 2048


def covariance(parts: Tensor) -> Tensor:
    """[d, d] float64 covariance of rows [R, d]."""
    return torch.cov(parts.double().T)


def ratio(cov: Tensor) -> float:
    """Participation ratio of a covariance."""
    return chance.participation_ratio(torch.linalg.eigvalsh(cov).clamp(min=0))


def effective_rank(cov: Tensor) -> float:
    """exp of the entropy of a covariance's normalised eigenvalues (Roy and Vetterli 2007).

    The participation ratio is farther below the rank of a spectrum that is nearly flat: the top directions would then
    be an arbitrary part of the space, and two such parts differ.
    """
    share = torch.linalg.eigvalsh(cov).clamp(min=0)
    share = share / share.sum()
    return math.exp(float(torch.special.entr(share).sum()))


def top(cov: Tensor, r: int) -> Tensor:
    """[d, r] the directions of largest variance."""
    directions: Tensor = torch.linalg.eigh(cov)[1][:, -r:]
    return directions


def overlap(one: Tensor, other: Tensor) -> float:
    """|V^T W|_F^2 / r of orthonormal V, W [d, r]: 1 for the same subspace, r/d for random ones."""
    return float((one.T.double() @ other.double()).square().sum()) / one.shape[1]


def chance_overlap(r: int, d: int) -> tuple[float, float]:
    """Mean and standard deviation of the overlap of random subspaces of r of d dimensions."""
    variance = 2 * r**2 * (d - r) ** 2 / (d**2 * (d - 1) * (d + 2)) if d > 1 else 0.0
    return r / d, math.sqrt(variance) / r


def rv(one: Tensor, other: Tensor) -> float:
    """tr(A B) / sqrt(tr A^2 tr B^2) of two covariances: 1 where they are proportional."""
    return float((one * other).sum() / (one.square().sum() * other.square().sum()).sqrt())


def contribution(voter: Voter, keep: Tensor, rows: Tensor) -> Tensor:
    """[R, d] what the features of `keep` [n] bool add to raw rows."""
    return torch.cat([(codes(voter, x) * keep) @ voter.atoms for x in torch.split(rows, _CHUNK)])


def subspaces(clusters: Clusters, members: Sequence[Voter], rows: Tensor, seed: int = 0) -> Subspaces | None:
    """What the features that are in no other member span, of each member and the next.

    Args:
        clusters: of the members' features.
        members: two or more.
        rows: [R, d] raw.
        seed: of what is drawn at random.

    Returns:
        None where a member has no such feature.
    """
    alone, shared = [], []
    for member, voter in enumerate(members):
        label = clusters.label[clusters.owner == member]
        support = torch.where(label >= 0, clusters.support[label.clamp(min=0)], 0)
        alone.append(voter.live & (support == 1))
        shared.append(voter.live & (support > 1))
    if not all(bool(own.any()) for own in alone):
        return None
    generator = torch.Generator().manual_seed(seed)
    data = covariance(rows)
    root = _root(data)
    parts = [contribution(voter, own, rows) for voter, own in zip(members, alone, strict=True)]
    covariances = [covariance(part) for part in parts]
    ratios, ranks = [ratio(cov) for cov in covariances], [effective_rank(cov) for cov in covariances]
    d = rows.shape[1]
    pairs = []
    for i in range(len(members) if len(members) > 2 else 1):
        j = (i + 1) % len(members)
        r = min(d, max(1, round((ranks[i] + ranks[j]) / 2)))
        expected, deviation = chance_overlap(r, d)
        drawn = [covariance(_drawn(members[k], alone[k], rows, root, generator)) for k in (i, j)]
        recurring = [
            covariance(contribution(members[k], _some(shared[k], int(alone[k].sum()), generator), rows)) for k in (i, j)
        ]
        mine, theirs = (members[k].atoms[alone[k]].contiguous() for k in (i, j))
        pairs.append(
            SpacePair(
                first=members[i].name,
                second=members[j].name,
                features=[len(mine), len(theirs)],
                energy=[float(covariances[k].trace() / _whole(members[k], rows)) for k in (i, j)],
                ratios=[ratios[i], ratios[j]],
                r=r,
                overlap=overlap(top(covariances[i], r), top(covariances[j], r)),
                overlap_chance=expected,
                overlap_deviation=deviation,
                overlap_drawn=overlap(top(drawn[0], r), top(drawn[1], r)),
                overlap_recurring=overlap(top(recurring[0], r), top(recurring[1], r)),
                rv=rv(covariances[i], covariances[j]),
                rv_chance=math.sqrt(ratios[i] * ratios[j]) / d,
                rv_drawn=rv(drawn[0], drawn[1]),
                unexplained=_unexplained(parts[i], parts[j]),
                mmcs=mean(best_both(mine, theirs)[0].values),
                mmcs_local=chance.expected_mmcs(len(theirs), max(2.0, ratios[j])),
                mmcs_chance=chance.expected_mmcs(len(theirs), d),
            )
        )
    return Subspaces(rows=len(rows), dimensions=d, pairs=pairs)


def _whole(voter: Voter, rows: Tensor) -> Tensor:
    return covariance(contribution(voter, voter.live, rows)).trace()


def _unexplained(one: Tensor, other: Tensor) -> float:
    """Share of the variance of a contribution that the other one's, on the same rows, leaves."""
    centred = one.double() - one.double().mean(0)
    rest = centred - (other.double() - other.double().mean(0))
    return float(rest.square().sum() / centred.square().sum())


def _root(cov: Tensor) -> Tensor:
    values, directions = torch.linalg.eigh(cov)
    root: Tensor = directions * values.clamp(min=0).sqrt()
    return root


def _drawn(voter: Voter, keep: Tensor, rows: Tensor, root: Tensor, generator: torch.Generator) -> Tensor:
    """[R, d] what as many atoms add that are drawn from the data's covariance and fire as often, above a threshold."""
    count = int(keep.sum())
    noise = torch.randn(count, root.shape[1], generator=generator, dtype=torch.float64)
    atoms = normalize(noise @ root.T).float()
    density = torch.cat([codes(voter, x)[:, keep] != 0 for x in torch.split(rows, _CHUNK)]).float().mean(0)
    projected = (rows - rows.mean(0)) @ atoms.T
    rank = (density * len(rows)).round().long().clamp(1, len(rows) - 1)
    threshold = projected.sort(0, descending=True).values.gather(0, rank[None])
    return (projected - threshold).relu() @ atoms


def _some(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many of a mask's features at random, or all of them."""
    live = torch.nonzero(mask).flatten()
    chosen = live[torch.randperm(len(live), generator=generator)[:count]]
    found = torch.zeros_like(mask)
    found[chosen] = True
    return found
