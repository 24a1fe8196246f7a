"""From clusters to a dictionary: the centre of each as an atom, with the mean of its members' encoders.

Letters: N features of all members, n of the consensus, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.consensus.clusters import Clusters
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import Activation, Dictionary, JumpRelu, Relu


def averaged(
    clusters: Clusters,
    chosen: Tensor,
    voters: Sequence[Voter],
    *,
    centre: str = "mean",
    scaled: tuple[Tensor | None, float] | None = None,
    meta: dict[str, Any] | None = None,
) -> Dictionary:
    """The dictionary of some clusters. Of one member it has that member's codes and reconstructions.

    Members whose codes depend on other features, such as TopK, give atoms and encoders that must be trained; the
    dictionary is a ReLU's then, too. Thresholds of JumpReLU are averaged where all members have them.

    Args:
        clusters: of the members' features.
        chosen: [n] int64, numbers of clusters.
        voters: the members, in the order in which they were clustered.
        centre: "mean" or "medoid".
        scaled: mean [d] or None, and scale of the normalisation that it has; None: that of the members where they have
            the same, else none.
        meta: for its JSON file.
    """
    number = torch.full((len(clusters) + 1,), -1)  # the last is for features that are in none
    number[chosen] = torch.arange(len(chosen))
    voting = clusters.votes & (number[clusters.label] >= 0)
    if centre == "medoid":
        medoids = torch.zeros_like(clusters.votes)
        medoids[clusters.medoid] = True
        voting &= medoids
    at = number[clusters.label]
    members = [
        _Part(voter, voting[own], at[own], clusters.sign[own])
        for voter, own in zip(voters, _slices(voters), strict=True)
    ]
    count = torch.bincount(at[voting], minlength=len(chosen)).double()

    def total(parts: Sequence[Tensor]) -> Tensor:
        whole = torch.zeros(len(chosen), *parts[0].shape[1:], dtype=torch.float64)
        for part, values in zip(members, parts, strict=True):
            whole.index_add_(0, part.at, values.double())
        return whole

    atoms = normalize(total([part.signed(part.voter.atoms) for part in members]))
    encoder = total([part.signed(part.voter.encoder) for part in members]) / count[:, None]
    bias = total([part.voter.bias[part.kept] * part.sign for part in members]) / count
    offset = torch.stack([voter.offset for voter in voters]).mean(0)
    mean, scale = scaled or common_normalization(voters) or (None, 1.0)
    shift = torch.zeros_like(offset) if mean is None else mean.double()
    pre = (offset - shift) / scale
    has_bias = bool((pre.abs() > 1e-6).any())
    subtracted = pre if has_bias else torch.zeros_like(pre)
    b_enc = (encoder @ shift + bias) / scale + encoder @ subtracted

    def mean_of(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [own[part.kept] for part, own in zip(members, values, strict=True) if own is not None]
        return (total(known) / count).float() if len(known) == len(members) else None

    threshold = mean_of([voter.threshold for voter in voters])
    activation: Activation = Relu() if threshold is None else JumpRelu(threshold / scale)
    features = {
        "support": clusters.support[chosen].float(),
        "seeds": clusters.seeds[chosen].float(),
        "coherence": clusters.coherence[chosen].float(),
        "expected_cosine": clusters.expected_cosine[chosen].float(),
    }
    density = mean_of([voter.dictionary.features.get("density") for voter in voters])
    if density is not None:
        features["density"] = density
    return Dictionary(
        encoder.float(),
        b_enc.float(),
        atoms.float(),
        b_dec=pre.float() if has_bias else None,
        mean=None if mean is None else mean.float(),
        scale=scale,
        activation=activation,
        meta=dict(meta or {}),
        features=features,
    )


class _Part:
    """A member's features that are averaged: which, into which feature, and with which sign."""

    def __init__(self, voter: Voter, voting: Tensor, at: Tensor, sign: Tensor) -> None:
        self.voter, self.kept = voter, torch.nonzero(voting).flatten()
        self.at, self.sign = at[self.kept], sign[self.kept].double()

    def signed(self, rows: Tensor) -> Tensor:
        return rows[self.kept].double() * self.sign[:, None]


def _slices(voters: Sequence[Voter]) -> list[slice]:
    """Where the features of each are among those of all."""
    found, first = [], 0
    for voter in voters:
        found.append(slice(first, first + len(voter.atoms)))
        first += len(voter.atoms)
    return found


def common_normalization(voters: Sequence[Voter]) -> tuple[Tensor | None, float] | None:
    """Mean and scale that all members have; None where they differ."""
    first = voters[0].dictionary
    for voter in voters[1:]:
        other = voter.dictionary
        same = first.mean is None and other.mean is None
        if first.mean is not None and other.mean is not None:
            same = torch.equal(first.mean, other.mean)
        if not same or voters[0].scale != voter.scale:
            return None
    return first.mean, voters[0].scale
