"""Max cosine similarity between the atoms of two dictionaries, both ways in one pass.

Shapes: n, m atoms of the two dictionaries, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.comparison.core import nearest
from sparsecode.errors import DictionaryInvalid, ZeroAtom


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


def mcs(a: Tensor, b: Tensor, *, absolute: bool = False) -> tuple[Tensor, Tensor]:
    """MCS(a -> b): for each atom of a [n, d] the largest cosine with an atom of b [m, d], and that atom's index.

    >>> mcs(torch.eye(2), torch.tensor([[0.0, 2.0], [3.0, 4.0]]))
    (tensor([0.6000, 1.0000]), tensor([1, 0]))
    """
    forward, _ = mcs_both(a, b, absolute=absolute)
    return forward.values, forward.indices


def require_same_width(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raises DictionaryInvalid if a and b have atoms of different dimensions."""
    if a.shape[1] != b.shape[1]:
        raise DictionaryInvalid(
            f"{names[0]} has atoms of {a.shape[1]} dimensions, {names[1]} of {b.shape[1]}; "
            "only dictionaries of the same activations can be compared"
        )


def best_both(a: Tensor, b: Tensor, *, absolute: bool = False) -> tuple[BestMatches, BestMatches]:
    """`mcs_both` for rows that already have norm 1."""
    forward, backward = nearest(a, b, 1, absolute=absolute)
    return _only(*forward), _only(*backward)


def _only(values: Tensor, indices: Tensor) -> BestMatches:
    return BestMatches(values[:, 0], indices[:, 0].long())
