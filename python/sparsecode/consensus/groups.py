"""Groups of a member's features, kept alone or left out: those that recur, those that do not, and as many at random.

Letters: R rows, n features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.consensus.clusters import Clusters
from sparsecode.consensus.functional import energy
from sparsecode.consensus.voters import Voter


def groups_of(
    clusters: Clusters, member: int, voter: Voter, support: int, rows: Tensor, seed: int = 0
) -> dict[str, Tensor]:
    """[n] masks of live features by name.

    Args:
        clusters: of all members.
        member: the number of this one.
        voter: it.
        support: that of a feature that recurs.
        rows: [R, d] raw, over which the energy of codes is summed.
        seed: of what is drawn at random: as many features as do not recur, and so many that their codes have about the
            same energy.
    """
    own = clusters.owner == member
    label = clusters.label[own]
    supports = torch.where(label >= 0, clusters.support[label.clamp(min=0)], 0)
    recurs, alone = voter.live & (supports >= support), voter.live & (supports == 1)
    power = energy(voter, rows)
    live = torch.nonzero(voter.live).flatten()
    order = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))]
    by_energy = int((power[order].cumsum(0) <= power[alone].sum()).sum())
    return {
        "recurring": recurs,
        "in no other": alone,
        "as many as in no other, at random": _mask(order[: int(alone.sum())], len(own.nonzero())),
        "as much energy as in no other, at random": _mask(order[:by_energy], len(own.nonzero())),
    }


def _mask(chosen: Tensor, n: int) -> Tensor:
    found = torch.zeros(n, dtype=torch.bool)
    found[chosen] = True
    return found
