"""Which features of two dictionaries may be one: pairs that are each other's nearest, from a stored comparison.

No pass over pairs of atoms is needed: a comparison holds each feature's nearest one in every dictionary. Letters: N
features of K dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import torch
from torch import Tensor

from sparsecode.comparison import Comparison
from sparsecode.consensus.voters import Voter

CYCLES_OF_ALL = 16  # dictionaries up to which every path through three of them counts; beyond, those of neighbours


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs of features, numbered through all dictionaries.

    Attributes:
        u, v: [P] int32, of dictionaries in their order: each other's nearest, above the threshold, both alive.
        cosine: [P] float32.
        near_u, near_v: [L] int32: other features with their nearest above the threshold.
    """

    u: Tensor
    v: Tensor
    cosine: Tensor
    near_u: Tensor
    near_v: Tensor


def edges(comparison: Comparison, voters: Sequence[Voter], threshold: float, encoder_threshold: float = -1) -> Edges:
    """The pairs that may be joined.

    Args:
        comparison: of these dictionaries, and others perhaps.
        voters: in the order in which they are numbered.
        threshold: cosine that atoms exceed.
        encoder_threshold: cosine that encoder rows exceed, -1 for none; not asked of a dictionary whose encoder is its
            decoder.
    """
    first = [0]
    for voter in voters:
        first.append(first[-1] + len(voter.atoms))
    pairs, links = _Parts(), _Parts()
    for i, j in permutations(range(len(voters)), 2):
        one, other = voters[i], voters[j]
        cosine, there = comparison.cosine(one.name, other.name), comparison.index(one.name, other.name).long()
        at = torch.nonzero(one.live & (there >= 0) & (cosine > threshold)).flatten()
        at = at[other.live[there[at]]]
        mutual = comparison.index(other.name, one.name).long()[there[at]] == at
        if encoder_threshold > -1:
            mutual &= _encoders_agree(one, other, at, there[at], encoder_threshold)
        kept = at[mutual]
        if i < j:
            pairs.add(kept + first[i], there[kept] + first[j], cosine[kept])
        kept = at[~mutual]
        links.add(kept + first[i], there[kept] + first[j])
    return Edges(*pairs.whole(), *links.whole()[:2])


class _Parts:
    def __init__(self) -> None:
        none = torch.empty(0, dtype=torch.int32)
        self.columns: list[list[Tensor]] = [[none], [none], [torch.empty(0)]]

    def add(self, u: Tensor, v: Tensor, cosine: Tensor | None = None) -> None:
        new = (u.int(), v.int(), torch.empty(0) if cosine is None else cosine.float())
        for column, part in zip(self.columns, new, strict=True):
            column.append(part)

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        u, v, cosine = (torch.cat(self.columns.pop(0)) for _ in range(3))  # one after the other: parts take as much
        return u, v, cosine


def _encoders_agree(one: Voter, other: Voter, u: Tensor, v: Tensor, threshold: float) -> Tensor:
    cosine = torch.nn.functional.cosine_similarity
    agree = torch.empty(len(u), dtype=torch.bool)
    for at in torch.split(torch.arange(len(u)), 65_536):  # gathers of rows, not all at once
        agree[at] = cosine(one.encoder[u[at]], other.encoder[v[at]], dim=1) > threshold
    return agree


def cycle_consistency(comparison: Comparison, names: Sequence[str], threshold: float) -> float | None:
    """Share of paths i -> j -> k of nearest features, both above `threshold`, that end where i -> k does.

    None where there is no such path.
    """
    K = len(names)
    every = combinations(range(K), 3) if K <= CYCLES_OF_ALL else ((i, (i + 1) % K, (i + 2) % K) for i in range(K))
    paths = ends = 0
    for i, j, k in every:
        a, b, c = names[i], names[j], names[k]
        first = torch.nonzero(comparison.cosine(a, b) > threshold).flatten()
        between = comparison.index(a, b)[first].long()
        further = comparison.cosine(b, c)[between] > threshold
        first, between = first[further], between[further]
        paths += len(first)
        ends += int((comparison.index(b, c)[between] == comparison.index(a, c)[first]).sum())
    return ends / paths if paths else None
