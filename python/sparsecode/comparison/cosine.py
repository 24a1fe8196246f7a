"""Max cosine similarity (MCS) between dictionaries: billions of pairs of atoms without a matrix of them.

In a dictionary with many copies of a direction every copy is found again. So a count of features found again is
meaningful only for pairs that are each other's nearest (`mutual`), and beside the near-duplicates (`nearest_own`).

Shapes: n, m atoms of two dictionaries, d dimensions, N atoms of K dictionaries. Unit rows are float32 of norm 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison.records import Cosines, Matrices, Summary
from sparsecode.errors import DictionaryInvalid, ZeroAtom

Advance = Callable[[int], None]


def isa() -> str:
    """Instruction set to use: SPARSECODE_ENGINE if the CPU has it, else the fastest one; all give the same bits."""
    asked = os.environ.get("SPARSECODE_ENGINE", "")
    return asked if asked in _core.CpuEngine.paths() else "auto"


@dataclass(frozen=True)
class BestMatches:
    """Each atom's nearest atom in another dictionary: its cosine and its index."""

    values: Tensor  # [n] float32, at most 1
    indices: Tensor  # [n] int64

    def __len__(self) -> int:
        return len(self.values)


def unit_rows(atoms: Tensor, name: str = "dictionary") -> Tensor:
    """Atoms [n, d] scaled to norm 1, as contiguous float32 on the CPU.

    Norms are computed in float64, so that atoms of any float32 size keep their direction.

    Raises:
        ZeroAtom: an atom is zero or holds a value that is not finite; the message names `name` and the atom.
        DictionaryInvalid: `atoms` is not a matrix with at least one row and one column.
    """
    if atoms.ndim != 2 or 0 in atoms.shape:
        raise DictionaryInvalid(f"{name}: atoms must be a matrix [n, d] with n, d >= 1, not {list(atoms.shape)}")
    wide = atoms.detach().to("cpu", torch.float64)
    norm = wide.norm(dim=1)
    bad = torch.nonzero(~(torch.isfinite(norm) & (norm > 0)))
    if len(bad):
        index = int(bad[0])
        fault = "is zero" if norm[index] == 0 else "is not finite"
        raise ZeroAtom(
            f"{name}: atom {index} {fault}, so it has no direction to compare; remove it from W_dec or train again"
        )
    unit: Tensor = wide / norm[:, None]
    return unit.float().contiguous()


def require_same_width(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raises DictionaryInvalid if a and b have atoms of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise DictionaryInvalid(
            f"{names[0]} has atoms of {a.shape[1]} dimensions, {names[1]} of {b.shape[1]}; "
            "only dictionaries of the same activations can be compared"
        )


def best_of_all(
    atoms: Sequence[Tensor],
    live: Sequence[Tensor] | None = None,
    *,
    absolute: bool = False,
    advance: Advance | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each atom's nearest atom in every dictionary: cosines [K, N] and indices [K, N] int32, by dictionary.

    Memory beside the result is O(N d).

    Args:
        atoms: K matrices [n, d] of unit rows.
        live: K masks [n]; adds a third result: cosines [K, N] with the nearest live atom, -inf without one.
        absolute: whether to ignore the sign of cosines.
        advance: called occasionally with the number of pairs compared since the last call.
    """
    sizes = [len(rows) for rows in atoms]
    packed = torch.cat(list(atoms))
    shape = (len(sizes), len(packed))
    cosine, index = torch.empty(shape), torch.empty(shape, dtype=torch.int32)
    live_cosine = None if live is None else torch.empty(shape)
    mask = None if live is None else torch.cat([each.to(torch.uint8) for each in live]).numpy()
    _core.best_of_all(
        packed.numpy(),
        sizes,
        mask,
        cosine.numpy(),
        index.numpy(),
        None if live_cosine is None else live_cosine.numpy(),
        absolute=absolute,
        path=isa(),
        threads=torch.get_num_threads(),
        advance=advance,
    )
    return cosine, index, live_cosine


def nearest(
    a: Tensor, b: Tensor, k: int, *, absolute: bool = False, advance: Advance | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The `k` nearest atoms both ways: (cosines [n, k], indices [n, k] int32) for a's atoms, and [m, k] for b's.

    Best first; of equal ones, the lower index first; at most as many as the other dictionary has atoms.
    """
    of_a, of_b = _lists(len(a), min(k, len(b))), _lists(len(b), min(k, len(a)))
    _core.nearest(
        a.contiguous().numpy(),
        b.contiguous().numpy(),
        (of_a[0].numpy(), of_a[1].numpy()),
        (of_b[0].numpy(), of_b[1].numpy()),
        absolute=absolute,
        path=isa(),
        threads=torch.get_num_threads(),
        advance=advance,
    )
    return of_a, of_b


def _lists(n: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.empty(n, k), torch.empty(n, k, dtype=torch.int32)


def best_both(a: Tensor, b: Tensor, *, absolute: bool = False) -> tuple[BestMatches, BestMatches]:
    """`mcs_both` for rows that already have norm 1."""
    (there, i), (back, j) = nearest(a, b, 1, absolute=absolute)
    return BestMatches(there[:, 0], i[:, 0].long()), BestMatches(back[:, 0], j[:, 0].long())


def mcs_both(
    a: Tensor, b: Tensor, *, absolute: bool = False, names: tuple[str, str] = ("a", "b")
) -> tuple[BestMatches, BestMatches]:
    """MCS(a -> b) and MCS(b -> a) from one pass over all pairs; no n x m matrix is held.

    Args:
        a, b: atoms [n, d] and [m, d], of any norm.
        absolute: whether to ignore the sign of cosines.
        names: the dictionaries' names in an error.

    Raises:
        ZeroAtom: see `unit_rows`.
        DictionaryInvalid: the two have different dimensions.
    """
    require_same_width(a, b, names)
    return best_both(unit_rows(a, names[0]), unit_rows(b, names[1]), absolute=absolute)


def mcs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """MCS(a -> b): for each atom of a [n, d] the largest cosine with an atom of b [m, d], and that atom's index.

    >>> mcs(torch.eye(2), torch.tensor([[0.0, 2.0], [3.0, 4.0]]))
    (tensor([0.6000, 1.0000]), tensor([1, 0]))
    """
    forward, _ = mcs_both(a, b)
    return forward.values, forward.indices


@dataclass(frozen=True)
class AllPairs:
    """Column j of matrix k compares dictionary k's features with dictionary j; with itself, 1 and the own index."""

    cosine: list[Tensor]  # K of [n, K] float32
    index: list[Tensor]  # K of [n, K] int32
    live_cosine: list[Tensor]  # K of [n, K]: the nearest *live* atom; -inf if a dictionary has none


def all_pairs(
    atoms: Sequence[Tensor],
    live: Sequence[Tensor],
    *,
    absolute: bool = False,
    advance: Advance | None = None,
) -> AllPairs:
    """`best_of_all` by the dictionary that a feature is of; a pair of atoms is compared once for both."""
    sizes = [len(rows) for rows in atoms]
    cosine, index, live_cosine = best_of_all(atoms, live, absolute=absolute, advance=advance)
    assert live_cosine is not None
    cosines, indices, live_cosines = (
        [part.T for part in torch.split(values, sizes, dim=1)] for values in (cosine, index, live_cosine)
    )
    return AllPairs(cosines, indices, live_cosines)


def matrices(pairs: AllPairs, live: Sequence[Tensor]) -> Matrices:
    """MMCS between all dictionaries, of all features and among live ones of both."""

    def finite(value: float) -> float | None:
        return value if abs(value) < float("inf") else None

    return Matrices(
        [[mean(column) for column in cosine.T] for cosine in pairs.cosine],
        [[finite(mean(column)) for column in best[mask].T] for best, mask in zip(pairs.live_cosine, live, strict=True)],
    )


def mmcs(a: Tensor, b: Tensor) -> float:
    """MMCS(a -> b): the mean over the atoms of a [n, d] of their largest cosine with an atom of b [m, d]."""
    return mean(mcs(a, b)[0])


def mean(values: Tensor) -> float:
    """Mean in float64; NaN if there are no values."""
    return float(values.double().mean()) if len(values) else float("nan")


def share_above(values: Tensor, threshold: float) -> float:
    """Share of values strictly above `threshold`; NaN if there are no values."""
    return float((values > threshold).double().mean()) if len(values) else float("nan")


def histogram(values: Tensor, bins: int) -> list[int]:
    """Counts in `bins` equal bins over 0 to 1: bin i holds i/bins <= v < (i+1)/bins; the last one includes 1.

    Cosines below 0 (no atom on the same side) count in the first bin, so the counts add up to all values.
    """
    place = (values.double() * bins).floor().long().clamp(0, bins - 1)
    return [int(count) for count in torch.bincount(place, minlength=bins)]


def summary(values: Tensor, live: Tensor | None, threshold: float, bins: int) -> Summary:
    """Statistics of per-feature cosines [n]: of all features, and of live and dead ones if `live` [n] is known.

    NaN (features without a partner in a matching) is excluded from all of them and counted as `unmatched`.
    """
    known = ~torch.isnan(values)

    def part(mask: Tensor) -> Cosines:
        chosen = values[mask]
        some = len(chosen) > 0
        return Cosines(
            features=len(chosen),
            mean=mean(chosen) if some else None,
            above=int((chosen > threshold).sum()),
            share_above=share_above(chosen, threshold) if some else None,
            histogram=histogram(chosen, bins),
        )

    return Summary(
        unmatched=int((~known).sum()),
        all=part(known),
        live=None if live is None else part(known & live),
        dead=None if live is None else part(known & ~live),
    )


def chance_mmcs(n: int, b: Tensor) -> float:
    """MMCS of up to 512 random directions with the atoms b [m, d]: what n meaningless atoms would reach.

    Each direction's maximum is independent of the others, so a sample of them estimates the mean for any n.
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(min(n, 512), b.shape[1], generator=generator)
    return mean(best_both(unit_rows(random, "random"), unit_rows(b, "b"))[0].values)


def nearest_own(atoms: Tensor, *, absolute: bool = False) -> Tensor:
    """[n] the largest cosine of every atom [n, d] (unit rows) with another one; NaN if there is no other.

    >>> nearest_own(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    tensor([0.6000, 0.8000, 0.8000])
    """
    if len(atoms) < 2:
        return torch.full((len(atoms),), torch.nan)
    (cosine, index), _ = nearest(atoms, atoms, 2, absolute=absolute)
    # Two equal atoms are as near to each other as to themselves, so the first of the two may be either.
    own = index[:, 0] == torch.arange(len(atoms))
    return torch.where(own, cosine[:, 1], cosine[:, 0])


def mutual(there: Tensor, back: Tensor) -> Tensor:
    """[n] whether the nearest atom `there` [n] of a feature has that feature as its own nearest, by `back` [m].

    An index of -1, of an atom without a direction, is never mutual.

    >>> mutual(torch.tensor([0, 0, 1]), torch.tensor([1, 2]))
    tensor([False,  True,  True])
    """
    known = there >= 0
    return known & (back[there.long().clamp(min=0)].long() == torch.arange(len(there)))
