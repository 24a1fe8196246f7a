"""The native comparison of tensors: billions of pairs of atoms without a matrix of them.

Shapes: n, m atoms of two dictionaries, d dimensions, N atoms of K dictionaries. All atoms are unit rows, float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsecode import _core

Advance = Callable[[int], None]


def path() -> str:
    """Instruction set to use: SPARSECODE_ENGINE if the CPU has it, else the fastest one; all give the same bits."""
    asked = os.environ.get("SPARSECODE_ENGINE", "")
    return asked if asked in _core.CpuEngine.paths() else "auto"


def best_of_all(
    atoms: Sequence[Tensor],
    live: Sequence[Tensor] | None = None,
    *,
    absolute: bool = False,
    advance: Advance | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each atom's nearest atom in every dictionary: cosines [K, N] and indices [K, N] int32, by dictionary.

    Args:
        atoms: K matrices [n, d].
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
        path=path(),
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
        path=path(),
        threads=torch.get_num_threads(),
        advance=advance,
    )
    return of_a, of_b


def _lists(n: int, k: int) -> tuple[Tensor, Tensor]:
    return torch.empty(n, k), torch.empty(n, k, dtype=torch.int32)
