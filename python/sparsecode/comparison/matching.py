"""One-to-one matching of two dictionaries' atoms; the seed's code calls its mean MMCS with larger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison.core import Advance, path
from sparsecode.comparison.mcs import BestMatches, require_same_width, unit_rows

CANDIDATES = (
    16  # nearest atoms both ways to start from; the proof adds what is missing (measured at 8192 x 8192: 8 to 64)
)


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
        path=path(),
        threads=torch.get_num_threads(),
        advance=advance,
    )
    seconds = about["seconds"]
    return Matching(
        values,
        indices.long(),
        about["bound"],
        about["rounds"],
        about["candidates"],
        (seconds[0], seconds[1], seconds[2]),
    )
