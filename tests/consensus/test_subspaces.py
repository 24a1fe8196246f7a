"""What unstable features span: measures of subspaces, and blocks that no dictionary can identify."""

from __future__ import annotations

import math
from itertools import permutations
from statistics import fmean

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.comparison import chance, compare, mcs
from sparsecode.consensus import ConsensusSettings, Made, make, voter_of
from sparsecode.consensus.making import Data
from sparsecode.consensus.subspaces import (
    chance_overlap,
    contribution,
    covariance,
    effective_rank,
    overlap,
    ratio,
    rv,
    subspaces,
    top,
)
from sparsecode.science.toy.batches import ToyBatches
from sparsecode.science.toy.data import ToyData, ToySettings
from sparsecode.science.toy.measures import in_blocks
from sparsecode.sweep import fit
from sparsecode.sweep.batches import TensorBatches
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.normalization import Normalization

BLOCKS, RANK, D = 4, 12, 128


def random_space(d: int, r: int, seed: int) -> Tensor:
    found: Tensor = torch.linalg.qr(torch.randn(d, r, generator=torch.Generator().manual_seed(seed)))[0]
    return found


def test_random_subspaces_overlap_by_chance() -> None:
    values = torch.tensor([overlap(random_space(64, 8, i), random_space(64, 8, 1000 + i)) for i in range(400)])
    mean, deviation = chance_overlap(8, 64)
    assert float(values.mean()) == pytest.approx(mean, abs=4 * deviation / 20)
    assert float(values.std()) == pytest.approx(deviation, rel=0.15)
    assert overlap(random_space(64, 8, 0), random_space(64, 8, 0)) == pytest.approx(1, abs=1e-6)


def test_covariances_are_alike_where_they_are_proportional() -> None:
    one = torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0])).double()
    assert rv(one, 5 * one) == pytest.approx(1)
    assert rv(one, torch.diag(torch.tensor([0.0, 0.0, 1.0, 2.0])).double()) == 0
    assert ratio(torch.eye(6).double()) == pytest.approx(6)
    assert effective_rank(torch.eye(6).double()) == pytest.approx(6)
    uneven = torch.diag(torch.tensor([4.0, 1.0, 1.0])).double()
    assert effective_rank(uneven) == pytest.approx(math.exp(math.log(6) - 4 / 6 * math.log(4)))
    turned = []
    for seed in range(200):
        q = random_space(16, 16, seed).double()
        weights = torch.linspace(1, 0, 16).double()
        turned.append(rv(torch.diag(weights), q @ torch.diag(weights) @ q.T))
    pr = ratio(torch.diag(torch.linspace(1, 0, 16).double()))
    assert sum(turned) / len(turned) == pytest.approx(math.sqrt(pr * pr) / 16, abs=0.03)


@pytest.fixture(scope="module")
def toy() -> tuple[ToyData, Tensor, Made]:
    """Data of 96 features and four blocks, fresh rows, and the consensus of four dictionaries."""
    data = ToyData(ToySettings(dim=D, n_features=96, active=4.0, batch_size=256, blocks=BLOCKS, block_rank=RANK))
    rows = ToyBatches(data, 256).sample(120_000)
    dictionaries = fit(rows, [384], 8e-4, 4, samples=1_500_000, batch_size=1024, lr=8e-3, normalize="none", threads=2)
    named = {str(k): one for k, one in enumerate(dictionaries)}
    fresh = ToyBatches(data, 256).fresh(16_384)[0]
    place = Data(
        rows=fresh, batches=lambda normalization: TensorBatches(rows, 1024, normalization),
        normalization=Normalization(None, 1.0), engine=choose_engine("cpu"),
    )  # fmt: skip
    settings = ConsensusSettings(hold_out=0, refit="none", subspaces=True)
    made = make(compare(named), [voter_of(one, name, name) for name, one in named.items()], settings, data=place)
    return data, fresh, made


def test_features_are_recovered_and_the_atoms_of_blocks_do_not_recur(toy: tuple[ToyData, Tensor, Made]) -> None:
    data, _, made = toy
    recovered = mcs(data.features, made.dictionary.W_dec)[0] > 0.9
    assert float(recovered.double().mean()) >= 0.95
    label, owner = made.clusters.label, made.clusters.owner
    chosen = torch.zeros(len(made.clusters) + 1, dtype=torch.bool)
    chosen[made.chosen] = True
    tiles, kept = 0, 0
    for k, voter in enumerate(made.members):
        tile = (in_blocks(voter.atoms, data.blocks) > 0.8) & voter.live
        tiles += int(tile.sum())
        kept += int((tile & chosen[label[owner == k]]).sum())
    assert tiles > 100 and kept <= 0.05 * tiles


def test_atoms_of_blocks_are_as_near_as_random_directions_there(toy: tuple[ToyData, Tensor, Made]) -> None:
    data, _, made = toy
    found, expected = [], []
    for one, other in permutations(made.members, 2):
        for block in data.blocks:
            inside = [(in_blocks(each.atoms, block[None]) > 0.8) & each.live for each in (one, other)]
            mine, theirs = one.atoms[inside[0]], other.atoms[inside[1]]
            found.append(float(mcs(mine, theirs)[0].mean()))
            expected.append(chance.expected_mmcs(len(theirs), RANK))
    # A little nearer than random ones: atoms that share a block keep away from each other.
    assert 0 < fmean(found) - fmean(expected) < 0.04


def test_they_span_the_blocks(toy: tuple[ToyData, Tensor, Made]) -> None:
    data, fresh, made = toy
    found = made.record.subspaces
    assert found is not None and found.dimensions == D and len(found.pairs) == 4
    truth = data.blocks.reshape(-1, D).T
    for pair in found.pairs:
        for value in pair.ratios:
            assert value == pytest.approx(BLOCKS * RANK, rel=0.15)
        assert pair.overlap >= 0.95 and pair.overlap_chance == pytest.approx(pair.r / D)
        assert pair.overlap_drawn <= pair.overlap - 0.2
    label, owner = made.clusters.label, made.clusters.owner
    support = made.clusters.support[label.clamp(min=0)]
    for k, voter in enumerate(made.members):
        alone = voter.live & (support[owner == k] == 1)
        space = top(covariance(contribution(voter, alone, fresh)), BLOCKS * RANK)
        assert overlap(space, truth) >= 0.95


def test_there_is_none_where_everything_recurs() -> None:
    from sparsecode.consensus import cluster
    from sparsecode.dictionary import Dictionary

    atoms = normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    named = {name: Dictionary(atoms, torch.zeros(8), atoms) for name in "ab"}
    voters = [voter_of(one, name) for name, one in named.items()]
    assert subspaces(cluster(compare(named), voters), voters, torch.randn(100, 16)) is None
