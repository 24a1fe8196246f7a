"""Clusters of features from what a comparison holds, behaviour on rows, and a whole consensus of toy dictionaries.

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

from sparsecode.comparison import Comparison, compare, mcs
from sparsecode.consensus import ConsensusSettings, Voter, cluster, make, voter_of
from sparsecode.consensus.functional import functional
from sparsecode.consensus.making import Data
from sparsecode.dictionary import Dictionary
from sparsecode.science.toy.batches import ToyBatches
from sparsecode.science.toy.data import ToyData, ToySettings
from sparsecode.sweep import fit
from sparsecode.sweep.batches import TensorBatches
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.normalization import Normalization

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
            Voter(str(k), None, k, dictionary, 1.0, atoms, nothing, nothing, nothing, torch.ones(n, dtype=torch.bool))
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


@pytest.mark.benchmark(group="consensus: 7 of 8 toy dictionaries of 1,024, made and refitted; what of it is true")
def test_truth(benchmark: BenchmarkFixture) -> None:
    """512 true features in 256 dimensions; how many are recovered, and how many atoms are true, beside the members."""
    data = ToyData(ToySettings())
    batches = ToyBatches(data, 512)
    rows, fresh = batches.sample(200_000), batches.fresh(16_384)[0]
    found = fit(rows, [1024], 4e-4, K, samples=2_000_000, batch_size=512, lr=1e-2, normalize="none")
    named = {str(k): one for k, one in enumerate(found)}
    comparison, voters = compare(named), [voter_of(one, name, name) for name, one in named.items()]
    place = Data(
        rows=fresh, batches=lambda normalization: TensorBatches(rows, 512, normalization),
        normalization=Normalization(None, 1.0), engine=choose_engine(),
    )  # fmt: skip
    settings = ConsensusSettings(samples=500_000)
    made = benchmark.pedantic(lambda: make(comparison, voters, settings, data=place), rounds=1)

    def measures(atoms: Tensor) -> tuple[int, float]:
        there, back = mcs(data.features, atoms)[0], mcs(atoms, data.features)[0]
        return int((there > 0.9).sum()), round(float((back > 0.9).double().mean()), 3)

    own, members = measures(made.dictionary.W_dec), [measures(one.atoms[one.live]) for one in made.members]
    quality = {row.what: row for row in made.record.quality}
    benchmark.extra_info |= {
        "features": made.record.features, "recovered": own[0], "members_recovered": max(one[0] for one in members),
        "true_atoms": own[1], "members_true_atoms": max(one[1] for one in members),
        "fvu": round(quality["consensus"].fvu, 4), "l0": round(quality["consensus"].l0, 2),
        "members_fvu": round(min(quality[one.name].fvu for one in made.members), 4),
        "members_l0": round(min(quality[one.name].l0 for one in made.members), 2),
    }  # fmt: skip
