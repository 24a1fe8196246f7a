"""Dictionaries that hold planted truths, each with its own probability, and random atoms beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.dictionary import Dictionary


@dataclass(frozen=True)
class Planted:
    """Truths [G, D], how often each is in a dictionary [G], atoms [n, D] of each, and the truth of an atom or -1."""

    truths: Tensor
    presence: Tensor
    atoms: list[Tensor]
    held: list[Tensor]

    def dictionaries(self) -> list[Dictionary]:
        return [
            Dictionary(atoms, torch.zeros(len(atoms)), atoms, meta={"l1": 0.1, "seed": seed})
            for seed, atoms in enumerate(self.atoms)
        ]


def planted(*, truths: int, size: int, dictionaries: int, dim: int, seed: int, pair_cosine: float = 0.9) -> Planted:
    """Two atoms of one truth have about `pair_cosine`; every dictionary has its own order."""
    generator = torch.Generator().manual_seed(seed)

    def random(n: int) -> Tensor:
        return torch.randn(n, dim, generator=generator)

    directions = normalize(random(truths))
    presence = torch.tensor([0.25, 0.5, 0.75, 1.0])[torch.randint(4, (truths,), generator=generator)]
    noise = math.sqrt((1 / pair_cosine - 1) / (dim - 1))
    atoms, held = [], []
    for _ in range(dictionaries):
        has = torch.nonzero(torch.rand(truths, generator=generator) < presence).flatten()[:size]
        away = random(len(has))
        away -= (away * directions[has]).sum(1, keepdim=True) * directions[has]
        own = torch.cat([normalize(directions[has] + noise * away), normalize(random(size - len(has)))])
        order = torch.randperm(size, generator=generator)
        atoms.append(own[order])
        held.append(torch.cat([has, torch.full((size - len(has),), -1)])[order])
    return Planted(directions, presence, atoms, held)
