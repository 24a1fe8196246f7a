"""Random numbers that dictionaries begin with: pure functions of a dictionary's own settings.

Size and kind with all its settings are part of every key: dictionaries that started from the same rows would agree on
every atom that hardly moved, and be taken for features that were found again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsecode.sweep.kinds.spec import KindSpec, as_kind


@dataclass(frozen=True, eq=False)
class Given:
    """Atoms that the first features begin near, each turned a little at random.

    Without that all dictionaries would begin, and to a part end, with the same: agreement that says nothing.

    Attributes:
        atoms: [n, D] unit rows.
        jitter: length of what is added to each, in a random direction of the dictionary's own.
        mark: fingerprint of where they are from, for the dictionary's file.
    """

    atoms: Tensor
    jitter: float = 0.3
    mark: str | None = None

    def near(self, random: Tensor) -> Tensor:
        """[F, D] unit rows: the atoms, as far as there are any, then those of `random` [F, D] unit rows."""
        count = min(len(random), len(self.atoms))
        turned = torch.nn.functional.normalize(self.atoms[:count] + self.jitter * random[:count])
        return torch.cat([turned, random[count:]])

    def record(self) -> dict[str, Any]:
        """What a dictionary's file says of it."""
        return {"fingerprint": self.mark, "jitter": self.jitter, "atoms": len(self.atoms)}


def initial_atoms(
    size: int, kind: KindSpec | float, seed: int, activation_dim: int, *, orthogonal: bool = False
) -> Tensor:
    """Random unit rows [F, D], float32 on the CPU.

    Args:
        size, kind, seed: of the dictionary; a number for the kind is the coefficient of a ReLU with L1.
        activation_dim: D.
        orthogonal: rows of an orthogonal matrix up to F = D; beyond, those of a matrix with orthogonal columns, scaled
            to norm 1: `torch.nn.init.orthogonal_` on a decoder, as the seed experiment has it.
    """
    rows = torch.randn(size, activation_dim, generator=_generator("atoms", size, kind, seed))
    return torch.nn.functional.normalize(_orthogonal(rows) if orthogonal else rows)


def uniform(size: int, kind: KindSpec | float, seed: int, columns: int) -> Tensor:
    """Numbers [F, columns] between -1 and 1, float32 on the CPU."""
    return 2 * torch.rand(size, columns, generator=_generator("uniform", size, kind, seed)) - 1


def _generator(what: str, size: int, kind: KindSpec | float, seed: int) -> torch.Generator:
    digest = hashlib.sha256(as_kind(kind).key(what, size, seed).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _orthogonal(rows: Tensor) -> Tensor:
    """The orthogonal factor of rows [F, D], by the modified Gram-Schmidt process on whichever of the two is shorter.

    By numpy's own sums in float64, not by LAPACK, whose bits depend on the number of threads.
    """
    wide = rows.shape[0] <= rows.shape[1]
    vectors = np.ascontiguousarray((rows if wide else rows.T).numpy(), dtype=np.float64)
    for i, vector in enumerate(vectors):
        vector /= np.sqrt(np.square(vector).sum())
        later = vectors[i + 1 :]
        later -= (later * vector).sum(axis=1, keepdims=True) * vector
    return torch.from_numpy(np.ascontiguousarray(vectors if wide else vectors.T, dtype=np.float32))
