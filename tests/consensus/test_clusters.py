"""Clusters: what is one feature, on copies, planted truths, drifts, arcs, doubles and twins."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from planted_features import planted
from sparsecode.comparison import compare
from sparsecode.consensus import Clusters, Voter, cluster, voter_of
from sparsecode.consensus.edges import cycle_consistency
from sparsecode.dictionary import Dictionary


def clusters_of(atoms: list[Tensor], threshold: float, absolute: bool = False) -> tuple[Clusters, list[Voter]]:
    """Of dictionaries that are nothing but atoms."""
    named = {str(k): Dictionary(own, torch.zeros(len(own)), own, meta={"seed": k}) for k, own in enumerate(atoms)}
    voters = [voter_of(one, name, name) for name, one in named.items()]
    return cluster(compare(named, absolute=absolute), voters, threshold), voters


def random(n: int, d: int, seed: int) -> Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def centres(found: Clusters, atoms: list[Tensor]) -> Tensor:
    """[C, d] mean directions of the members."""
    every = torch.cat(atoms) * found.sign[:, None]
    return normalize(
        torch.zeros(len(found), every.shape[1]).index_add_(0, found.label[found.votes], every[found.votes])
    )


def test_permuted_copies_are_one_dictionary() -> None:
    atoms = random(512, 128, 0)
    orders = [torch.randperm(512, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    copies = [atoms[order] for order in orders]
    found, _ = clusters_of(copies, 0.8)
    assert len(found) == 512 and bool((found.support == 8).all()) and bool((found.seeds == 8).all())
    assert float(found.coherence.min()) > 1 - 1e-6
    assert torch.allclose(centres(found, copies)[found.label[:512]], copies[0], atol=1e-6)
    named = {str(k): Dictionary(own, torch.zeros(512), own) for k, own in enumerate(copies)}
    assert cycle_consistency(compare(named), list(named), 0.8) == 1


@pytest.mark.parametrize("pair_cosine", [0.9, 0.81])
def test_planted_truths_are_found_with_their_support(pair_cosine: float) -> None:
    truth = planted(truths=400, size=512, dictionaries=8, dim=128, seed=1, pair_cosine=pair_cosine)
    found, _ = clusters_of(truth.atoms, 0.7)
    held = torch.cat(truth.held)
    real = held >= 0
    planted_support = torch.bincount(held[real], minlength=400)
    for one in range(400):
        labels = sorted(set(found.label[held == one].tolist()))
        assert len(labels) == int(planted_support[one] > 0)  # no truth is split
        if len(labels):
            assert int(found.support[labels[0]]) == int(planted_support[one])
    owners = [set(held[found.label == label].tolist()) for label in sorted(set(found.label[real].tolist()))]
    assert all(len(own) == 1 for own in owners)  # no cluster is mixed
    assert bool((found.support[found.label[~real]] == 1).all())


def test_a_drift_is_cut() -> None:
    angles = [math.radians(10 * k) for k in range(12)]
    atoms = [torch.tensor([[math.cos(a), math.sin(a), 0.0, 0.0]]) for a in angles]
    found, _ = clusters_of(atoms, 0.9)
    assert len(found) > 1
    away = (torch.cat(atoms) * centres(found, atoms)[found.label]).sum(1)
    assert float(away.min()) > 0.9
    assert torch.allclose(away.double(), found.cosine, atol=1e-6)


@pytest.mark.parametrize("step", [18, 30])
def test_neighbours_on_an_arc_stay_apart(step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    atoms = []
    for _ in range(6):
        degrees = torch.arange(0, 180, step) + torch.randn(180 // step, generator=generator)
        own = torch.zeros(len(degrees), 16)
        own[:, 0], own[:, 1] = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
        atoms.append(own)
    found, _ = clusters_of(atoms, 0.85)
    assert len(found) == 180 // step and bool((found.support == 6).all())


def test_copies_in_one_dictionary_take_no_support_away() -> None:
    truth = random(50, 64, 1)
    atoms = [
        normalize(truth + 0.02 * torch.randn(50, 64, generator=torch.Generator().manual_seed(k))) for k in range(4)
    ]
    copies = truth[:10] + 0.02 * torch.randn(10, 64, generator=torch.Generator().manual_seed(9))
    atoms[0] = torch.cat([atoms[0], normalize(copies)])
    found, _ = clusters_of(atoms, 0.8)
    full = found.support == 4
    assert int(full.sum()) == 50 and bool((found.support[~full] == 1).all())
    # Where partners divided between two copies one of them has lost its vote; a copy without a partner is alone.
    duplicates = torch.nonzero(~found.votes).flatten().tolist()
    assert len(duplicates) < 10 and len(found) == 60 - len(duplicates)
    for at in duplicates:
        assert (
            at < 60
            and float(found.cosine[at]) == 0
            and found.label[at] == found.label[at - 50 if at >= 50 else at + 50]
        )


def test_twins_that_occur_together_stay_two() -> None:
    truth, other = random(50, 64, 2), random(50, 64, 3)
    other = normalize(other - (other * truth).sum(1, keepdim=True) * truth)
    twins = torch.cat([truth, 0.85 * truth + math.sqrt(1 - 0.85**2) * other])
    atoms = []
    for k in range(4):
        generator = torch.Generator().manual_seed(k)
        own = normalize(twins + 0.02 * torch.randn(100, 64, generator=generator))
        atoms.append(own[torch.randperm(100, generator=generator)])
    found, _ = clusters_of(atoms, 0.8)
    assert len(found) == 100 and bool((found.support == 4).all())


@pytest.mark.parametrize("members", [2, 4, 8])
def test_the_centres_cosine_with_the_truth_is_the_expected_one(members: int) -> None:
    truth, q = random(400, 128, 5), 1 / 0.9 - 1
    atoms = []
    for k in range(members):
        away = torch.randn(400, 128, generator=torch.Generator().manual_seed(10 + k))
        away -= (away * truth).sum(1, keepdim=True) * truth
        atoms.append(normalize(truth + math.sqrt(q / 127) * away))
    found, _ = clusters_of(atoms, 0.7)
    assert bool((found.support == members).all())
    reached = (centres(found, atoms)[found.label[:400]] * truth).sum(1).mean()
    assert float(reached) == pytest.approx(1 / math.sqrt(1 + q / members), abs=0.003)
    assert float(found.expected_cosine.mean()) == pytest.approx(float(reached), abs=0.003)


def test_labels_do_not_depend_on_threads() -> None:
    truth = planted(truths=100, size=150, dictionaries=5, dim=32, seed=4)
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        results.append(clusters_of(truth.atoms, 0.7)[0])
        torch.set_num_threads(before)
    one, other = results
    assert torch.equal(one.label, other.label) and torch.equal(one.cosine, other.cosine)


def test_opposite_atoms_are_one_feature_where_codes_have_both_signs() -> None:
    atoms = random(20, 32, 6)
    signs = [torch.where(torch.arange(20) % (k + 2) == 0, -1.0, 1.0)[:, None] for k in range(3)]
    turned = [atoms * sign for sign in signs]
    assert len(clusters_of(turned, 0.8)[0]) > 20
    found, _ = clusters_of(turned, 0.8, absolute=True)
    assert len(found) == 20 and bool((found.support == 3).all())
    for a, b in itertools.pairwise(range(3)):
        own, other = (turned[k] * found.sign[20 * k : 20 * k + 20, None] for k in (a, b))
        assert torch.allclose(own, other, atol=1e-6)


def test_dead_features_are_in_no_cluster() -> None:
    atoms = random(6, 16, 7)
    dead = Dictionary(atoms, torch.zeros(6), atoms, features={"density": torch.tensor([0, 1.0, 1, 1, 1, 1])})
    other = Dictionary(atoms, torch.zeros(6), atoms)
    found = cluster(compare({"a": dead, "b": other}), [voter_of(dead, "a"), voter_of(other, "b")])
    assert int(found.label[0]) == -1 and not bool(found.votes[0])
    assert sorted(found.support.tolist()) == [1, 2, 2, 2, 2, 2]


def test_partners_that_divide_between_two_copies_are_one_feature() -> None:
    """Of four dictionaries, two are nearest to one copy and two to the other, and not to each other."""
    degrees = [[0.0, 20.0], [-3.0], [-4.0], [23.0], [24.0]]
    atoms = [torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in own]) for own in degrees]
    apart, _ = clusters_of(atoms, 0.99)
    assert apart.support.tolist() == [3, 3] and bool(apart.votes.all())
    found, _ = clusters_of(atoms, 0.9)
    assert found.support.tolist() == [5] and int((~found.votes).sum()) == 1
    assert float(found.cosine[found.votes].min()) > 0.9
