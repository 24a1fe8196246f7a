"""What is measured of dictionaries trained on toy data: pure functions of atoms.

Shape letters: G true features, n atoms of a dictionary, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison import matched_mcs, mcs
from sparsecode.science.statistics import bootstrap

Key = tuple[int, float, int]  # size, l1, seed


def against_truth(truth: Tensor, atoms: Tensor, start: Tensor, threshold: float) -> tuple[dict[str, Any], Tensor]:
    """How much of the truth a dictionary holds, and for each true feature its largest cosine with an atom [G].

    Args:
        truth: [G, D].
        atoms: [n, D].
        start: [n, D] the atoms before training, which found nothing: the same number by chance.
        threshold: cosine above which a true feature counts as recovered.
    """
    found, _ = mcs(truth, atoms)
    backward, _ = mcs(atoms, truth)
    interval = bootstrap.interval(found.double().numpy())
    return {
        "mmcs_truth": _mean(found),
        "mmcs_truth_interval": [interval.low, interval.high],
        "mmcs_truth_start": _mean(mcs(truth, start)[0]),
        "recovered": int((found > threshold).sum()),
        "mmcs_atoms_to_truth": _mean(backward),
        "true_atoms": int((backward > threshold).sum()),
    }, found


def in_blocks(atoms: Tensor, blocks: Tensor) -> Tensor:
    """[n] share of each atom's squared length that lies in the block [r, D] of `blocks` where most of it does."""
    unit = torch.nn.functional.normalize(atoms.double())
    shares: Tensor = torch.einsum("nd,krd->nkr", unit, blocks.double()).square().sum(2)
    return shares.amax(1) if len(blocks) else torch.zeros(len(atoms), dtype=torch.float64)


def against_larger(atoms: Tensor, larger: Tensor) -> dict[str, Any]:
    """Both definitions of "MMCS with larger": the plain maximum of each atom, and the one-to-one matching."""
    return {
        "mmcs_larger": _mean(mcs(atoms, larger)[0]),
        "matched_mmcs_larger": _mean(matched_mcs(atoms, larger).values),
    }


def next_larger(keys: Sequence[Key]) -> dict[Key, Key]:
    """For each dictionary of a grid the next larger one of the same L1 and seed, where there is one."""
    found: dict[Key, Key] = {}
    for size, l1, seed in keys:
        above = [key for key in keys if key[1:] == (l1, seed) and key[0] > size]
        if above:
            found[size, l1, seed] = min(above)
    return found


def _mean(values: Tensor) -> float:
    return float(values[~torch.isnan(values)].double().mean())
