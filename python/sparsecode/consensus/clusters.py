"""Clusters of features over dictionaries, found by the native core; docs/consensus.md has the rule.

Letters: N features of K dictionaries, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison import Comparison
from sparsecode.consensus.edges import edges
from sparsecode.consensus.voters import Voter


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which features are one.

    Attributes:
        label: [N] int64, number of a feature's cluster; -1 for a dead one.
        votes: [N] bool; not of a second atom of the same dictionary.
        sign: [N] int8, against the medoid: -1 where an atom points away and signs do not count.
        cosine: [N] float64 with the centre; 0 without a vote.
        owner: [N] int64, the dictionary of a feature.
        support: [C] int64, dictionaries in a cluster.
        seeds: [C] int64, different seeds among them; of dictionaries without one, each counts.
        coherence: [C] float64, mean cosine between members; NaN where there is one.
        medoid: [C] int64, the member nearest to the others.
    """

    label: Tensor
    votes: Tensor
    sign: Tensor
    cosine: Tensor
    owner: Tensor
    support: Tensor
    seeds: Tensor
    coherence: Tensor
    medoid: Tensor

    def __len__(self) -> int:
        return len(self.support)

    @property
    def expected_cosine(self) -> Tensor:
        """[C] of the centre with the direction around which members scatter, if their errors are independent.

        1 / sqrt(1 + (1/coherence - 1)/support): the mean of m vectors has an m-th of their squared error.
        """
        return 1 / (1 + (1 / self.coherence - 1) / self.support).sqrt()


def cluster(
    comparison: Comparison, voters: Sequence[Voter], threshold: float = 0.8, encoder_threshold: float = -1
) -> Clusters:
    """Finds the clusters of live features.

    Args:
        comparison: of these dictionaries, and others perhaps; where it ignored signs, clusters do.
        voters: the order of their features is that of the result, and decides between equal cosines.
        threshold: cosine between two atoms, and of every member with its cluster's centre.
        encoder_threshold: see `edges`.
    """
    found = edges(comparison, voters, threshold, encoder_threshold)
    sizes = [len(voter.atoms) for voter in voters]
    N = sum(sizes)
    label, votes = torch.empty(N, dtype=torch.int32), torch.empty(N, dtype=torch.uint8)
    sign, closeness = torch.empty(N, dtype=torch.int8), torch.empty(N, dtype=torch.float64)
    live = torch.cat([voter.live for voter in voters]).to(torch.uint8)
    _core.cluster(
        torch.cat([voter.atoms for voter in voters]).numpy(),
        sizes,
        (found.u.numpy(), found.v.numpy()),
        found.cosine.numpy(),
        (found.near_u.numpy(), found.near_v.numpy()),
        live.numpy(),
        label.numpy(),
        votes.numpy(),
        sign.numpy(),
        closeness.numpy(),
        threshold=threshold,
        absolute=comparison.contents.settings.absolute,
    )
    return _described(label.long(), votes.bool(), sign, closeness, voters, sizes)


def _described(
    label: Tensor, votes: Tensor, sign: Tensor, closeness: Tensor, voters: Sequence[Voter], sizes: Sequence[int]
) -> Clusters:
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    voting = torch.nonzero(votes).flatten()
    at = label[voting]
    C = int(label.max()) + 1 if len(label) else 0
    support = torch.bincount(at, minlength=C)
    square = torch.zeros(C, dtype=torch.float64).index_add_(0, at, closeness[voting])  # of the length of the sum
    # The first of the nearest: sorted by cluster, then by nearness, then by number.
    order = torch.argsort(-closeness[voting], stable=True)
    order = order[torch.argsort(at[order], stable=True)]
    starts = torch.cumsum(support, 0) - support
    medoid = voting[order[starts]] if C else torch.empty(0, dtype=torch.int64)
    known = torch.where(label >= 0, label, 0)
    length = square.clamp(min=0).sqrt()
    seeds = [voter.seed if voter.seed is not None else -1 - k for k, voter in enumerate(voters)]
    names = {seed: number for number, seed in enumerate(dict.fromkeys(seeds))}
    if len(names) == len(voters):
        counted = support  # a dictionary has one vote in a cluster at most
    else:
        seed = torch.tensor([names[one] for one in seeds])[owner[voting]]
        distinct = torch.unique(torch.stack([at, seed]), dim=1)[0]
        counted = torch.bincount(distinct, minlength=C)
    return Clusters(
        label=label,
        votes=votes,
        sign=sign * sign[medoid][known] if C else sign,
        cosine=closeness / length[known] if C else closeness,
        owner=owner,
        support=support,
        seeds=counted,
        coherence=(square - support) / (support * (support - 1)),
        medoid=medoid,
    )
