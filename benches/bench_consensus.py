"""Clusters of features from what a comparison holds: 8 dictionaries of 16,384, and of a million, features.

Nearest atoms are synthetic, as no comparison of a million features is at hand: every dictionary holds the same
directions, slightly turned and in an order of its own. `peak_bytes_per_nk` in a row's extra info is the most memory
that the clustering took beside the atoms, over N K, by the process's high-water mark.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.comparison import Comparison, compare
from sparsecode.consensus import Voter, cluster, voter_of
from sparsecode.consensus.functional import functional
from sparsecode.dictionary import Dictionary

K = 8


@dataclass
class Synthetic:
    """What clusters need of a comparison."""

    orders: list[Tensor]
    places: list[Tensor]
    contents: Any = None

    def index(self, a: str, b: str) -> Tensor:
        """The atom of b that is the same direction as each of a's."""
        return self.places[int(b)][self.orders[int(a)]].int()

    def cosine(self, a: str, b: str) -> Tensor:
        """Near 1, and another one for every direction."""
        return 0.95 + 0.04 * (self.orders[int(a)] % 9973) / 9973


def synthetic(n: int, d: int) -> tuple[Comparison, list[Voter]]:
    generator = torch.Generator().manual_seed(0)
    truth = normalize(torch.randn(n, d, generator=generator))
    orders = [torch.randperm(n, generator=generator) for _ in range(K)]
    places = []
    for order in orders:
        place = torch.empty_like(order)
        place[order] = torch.arange(n)
        places.append(place)
    nothing = torch.empty(0)
    voters = []
    for k, order in enumerate(orders):
        atoms = normalize(truth[order] + 0.1 / d**0.5 * torch.randn(n, d, generator=generator))
        dictionary: Any = SimpleNamespace()
        voters.append(
            Voter(str(k), None, k, dictionary, atoms, nothing, nothing, nothing, torch.ones(n, dtype=torch.bool))
        )
    contents = SimpleNamespace(settings=SimpleNamespace(absolute=False))
    return cast(Comparison, Synthetic(orders, places, contents)), voters


def peak() -> int:
    """The process's high-water mark of memory in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.benchmark(group=f"consensus: clusters of {K} dictionaries from a stored comparison")
@pytest.mark.parametrize(("n", "d"), [(16_384, 128), (1_000_000, 16)], ids=["16,384", "1,000,000"])
def test_clusters(benchmark: BenchmarkFixture, n: int, d: int) -> None:
    comparison, voters = synthetic(n, d)
    before = peak()
    found = benchmark.pedantic(lambda: cluster(comparison, voters), rounds=1 if n > 100_000 else 3)
    atoms = 4 * K * n * d  # of which the clustering takes one packed copy
    benchmark.extra_info["peak_bytes_per_nk"] = round(max(0, peak() - before - atoms) / (K * n * K), 1)
    benchmark.extra_info["clusters"] = len(found)
    assert len(found) == n


@pytest.mark.benchmark(group=f"consensus: behaviour of {K} x 512 features of 128 dimensions on 65,536 rows")
def test_functional(benchmark: BenchmarkFixture) -> None:
    rows = torch.randn(65_536, 128, generator=torch.Generator().manual_seed(1))
    named = {}
    for k in range(K):
        atoms = normalize(torch.randn(512, 128, generator=torch.Generator().manual_seed(2 + k)))
        named[str(k)] = Dictionary(atoms, torch.full((512,), -1.6), atoms)  # about 28 codes in a row
    comparison, voters = compare(named), [voter_of(one, name) for name, one in named.items()]
    benchmark.pedantic(lambda: functional(comparison, voters, 0.8, rows), rounds=1)
