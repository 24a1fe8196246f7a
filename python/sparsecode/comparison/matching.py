"""One-to-one matchings of two dictionaries' atoms, and what the literature on consistency measures of them.

Sources: PW-MCC is the pairwise dictionary mean correlation coefficient of Song et al., "Position: Mechanistic
Interpretability Should Prioritize Feature Consistency in SAEs" (arXiv 2505.20254, 2025). The share of features that two
dictionaries share in encoder and decoder follows Paulo and Belrose, "Sparse Autoencoders Trained on the Same Data Learn
Different Features" (arXiv 2501.16615, 2025). The seed's code calls the mean of a matching MMCS with larger.

Shapes: n, m atoms of two dictionaries, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison.cosine import Advance, BestMatches, isa, require_same_width, summary, unit_rows
from sparsecode.comparison.members import Member
from sparsecode.comparison.records import CompareSettings, Consistency, Matched

CANDIDATES = 16  # nearest atoms both ways to start from; the proof adds others (measured at 8192 x 8192: 8 to 64)
SHARED = 0.7  # cosine in encoder and decoder above which Paulo and Belrose count a matched feature as the same


@dataclass(frozen=True)
class Matching(BestMatches):
    """The one-to-one matching whose sum of cosines is largest; NaN and -1 for atoms without a partner."""

    bound: float  # upper bound of any matching's sum of cosines, proved by the dual variables: the sum reached
    rounds: int  # number of times the assignment was solved until the proof held
    candidates: int  # pairs in the last of these assignments, of n m
    seconds: tuple[float, float, float]  # for candidates, assignments, proofs

    @property
    def mean(self) -> float:
        """Mean cosine over the min(n, m) matched pairs, in float64."""
        return float(self.values.double().nanmean())


def turned(matched: BestMatches, m: int) -> BestMatches:
    """A matching seen from the other dictionary, which has `m` atoms."""
    values, indices = torch.full((m,), torch.nan), torch.full((m,), -1, dtype=torch.int64)
    has = torch.nonzero(matched.indices >= 0).flatten()
    values[matched.indices[has]] = matched.values[has]
    indices[matched.indices[has]] = has
    return BestMatches(values, indices)


def matched_mcs(
    a: Tensor,
    b: Tensor,
    *,
    absolute: bool = False,
    names: tuple[str, str] = ("a", "b"),
    candidates: int = CANDIDATES,
    advance: Advance | None = None,
) -> Matching:
    """Cosines of the one-to-one matching of atoms a [n, d] and b [m, d] whose sum of cosines is largest.

    If n > m, some atoms of a have no partner: their value is NaN and their index -1. The assignment is solved
    on each atom's nearest ones, then proved optimal over all pairs by its dual variables, in integers of 2^-40;
    memory grows with (n + m) x `candidates`, not with n x m.

    Args:
        a, b: atoms of any norm.
        absolute: maximise the sum of absolute cosines; values are then absolute.
        names: the dictionaries' names in an error.
        candidates: nearest atoms of each atom to start from; the result does not depend on it.
        advance: called occasionally with the number of pairs compared since the last call.

    Raises:
        ZeroAtom, DictionaryInvalid: see `mcs_both`.
    """
    require_same_width(a, b, names)
    values = torch.empty(len(a))
    indices = torch.empty(len(a), dtype=torch.int32)
    about = _core.match_one_to_one(
        unit_rows(a, names[0]).numpy(),
        unit_rows(b, names[1]).numpy(),
        indices.numpy(),
        values.numpy(),
        candidates=candidates,
        absolute=absolute,
        path=isa(),
        threads=torch.get_num_threads(),
        advance=advance,
    )
    first, second, third = about["seconds"]
    return Matching(
        values, indices.long(), about["bound"], about["rounds"], about["candidates"], (first, second, third)
    )


def pw_mcc(a: Tensor, b: Tensor, *, absolute: bool = False) -> float:
    """PW-MCC: mean cosine of the one-to-one matching of atoms a [n, d] and b [m, d], over its min(n, m) pairs.

    Song et al. take absolute cosines, since a correlation's sign is arbitrary. The atoms of a ReLU dictionary have a
    sign, so the signed mean is the default here.

    >>> pw_mcc(torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    0.0
    >>> pw_mcc(torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]]), absolute=True)
    1.0
    """
    return matched_mcs(a, b, absolute=absolute).mean


def encoder_cosines(matched: BestMatches, a: Tensor, b: Tensor) -> Tensor:
    """[n] cosines of the encoder rows of matched features; encoders a [n, d], b [m, d].

    NaN for features without a partner; 0 where an encoder row is zero, which has no direction to agree in.
    """
    cosines = torch.full((len(a),), torch.nan)
    has = matched.indices >= 0
    mine, theirs = a[has].double(), b[matched.indices[has]].double()
    norms = mine.norm(dim=1) * theirs.norm(dim=1)
    dots = (mine * theirs).sum(dim=1)
    cosines[has] = torch.where(norms > 0, dots / norms.clamp(min=1e-300), 0.0).clamp(-1, 1).float()
    return cosines


def shared(matched: BestMatches, encoders: Tensor, threshold: float = SHARED) -> Tensor:
    """[n] whether a feature's match is above `threshold` in decoder and encoder; `encoders` from `encoder_cosines`.

    A feature without a partner is not shared.
    """
    return (matched.values > threshold) & (encoders > threshold)


class Pairing:
    """A one-to-one matching of two members, found once and seen from either side."""

    def __init__(self, a: Member, b: Member, settings: CompareSettings) -> None:
        found = {
            absolute: matched_mcs(a.atoms, b.atoms, absolute=absolute, names=(a.name, b.name))
            for absolute in (False, True)
        }
        self.first, self.second, self.settings = a, b, settings
        self.matched: BestMatches = found[settings.absolute]
        pairs, both = int((self.matched.indices >= 0).sum()), None
        if a.encoder is not None and b.encoder is not None:
            encoders = encoder_cosines(self.matched, a.encoder, b.encoder)
            both = int(shared(self.matched, encoders.abs() if settings.absolute else encoders).sum())
        self.consistency = Consistency(
            pairs, found[False].mean, found[True].mean, SHARED, both, None if both is None else both / pairs
        )

    def seen_from(self, member: Member) -> Matched:
        """The cosines of one of the two."""
        matched = self.matched if member is self.first else turned(self.matched, self.second.size)
        found = summary(matched.values, member.live, self.settings.threshold, self.settings.bins)
        return Matched(**vars(found), consistency=self.consistency)
