"""A consensus of trained toy dictionaries is made of true features, and reconstructs as its members do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from planted_features import planted
from sparsecode.comparison import Comparison, compare, mcs
from sparsecode.consensus import ConsensusSettings, Made, Voter, make, voter_of
from sparsecode.consensus.making import Data, split
from sparsecode.consensus.measure import quality
from sparsecode.consensus.records import ConsensusRecord
from sparsecode.dictionary import Dictionary, TopK
from sparsecode.errors import InvalidSetting
from sparsecode.records import as_json, from_json
from sparsecode.science.toy.batches import ToyBatches
from sparsecode.science.toy.data import ToyData, ToySettings
from sparsecode.sweep import fit
from sparsecode.sweep.batches import TensorBatches
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.normalization import Normalization


def compared(dictionaries: dict[str, Dictionary]) -> tuple[Comparison, list[Voter]]:
    return compare(dictionaries), [voter_of(one, name, name) for name, one in dictionaries.items()]


@pytest.fixture(scope="module")
def toy() -> tuple[Tensor, Tensor, Made]:
    """True features, fresh rows, and the consensus of five of six dictionaries trained on them."""
    data = ToyData(ToySettings(dim=64, n_features=96, active=3.0, batch_size=128))
    rows = ToyBatches(data, 128).sample(60_000)
    dictionaries = fit(rows, [192], 2e-3, 6, samples=700_000, batch_size=512, lr=1e-2, normalize="none", threads=2)
    comparison, voters = compared({str(k): one for k, one in enumerate(dictionaries)})
    fresh = ToyBatches(data, 128).fresh(8192)[0]
    place = Data(
        rows=fresh, batches=lambda normalization: TensorBatches(rows, 512, normalization),
        normalization=Normalization(None, 1.0), engine=choose_engine("cpu", threads=2), threads=2,
    )  # fmt: skip
    return data.features, fresh, make(comparison, voters, ConsensusSettings(samples=500_000), data=place)


def recovered(truth: Tensor, atoms: Tensor) -> int:
    return int((mcs(truth, atoms)[0] > 0.9).sum())


def true_share(truth: Tensor, atoms: Tensor) -> float:
    return float((mcs(atoms, truth)[0] > 0.9).double().mean())


def test_it_holds_what_is_true(toy: tuple[Tensor, Tensor, Made]) -> None:
    truth, _, made = toy
    assert len(made.members) == 5 and len(made.held_out) == 1 and made.record.support == 3
    members = [one.atoms[one.live] for one in made.members]
    assert recovered(truth, made.dictionary.W_dec) >= max(recovered(truth, own) for own in members)
    assert true_share(truth, made.dictionary.W_dec) >= 0.95


def test_it_reconstructs_as_well_as_its_members_with_the_same_features(toy: tuple[Tensor, Tensor, Made]) -> None:
    _, fresh, made = toy
    rows = {row.what: row for row in made.record.quality}
    own = rows["consensus"]
    members = sorted(rows[one.name].l0 for one in made.members)
    assert own.l0 == pytest.approx(members[len(members) // 2], rel=0.1)
    centres = made.dictionary.W_dec
    errors = []
    for one in made.members:
        near = mcs(one.atoms, centres)[0] > 0.8
        errors.append(quality("", one.dictionary, fresh, near).fvu)
    assert own.fvu <= 1.05 * sorted(errors)[len(errors) // 2]
    assert own.fvu < rows["consensus, averaged encoders"].fvu


def test_the_refit_leaves_atoms_alone_and_says_what_it_tried(toy: tuple[Tensor, Tensor, Made]) -> None:
    _, _, made = toy
    found = made.record.refit
    assert found is not None and found.engine == "cpu" and len(found.tried) == 5
    averages = [row for row in made.record.quality if row.what == "consensus, averaged encoders"]
    assert averages and made.record.quality[0].what == "consensus"
    every = torch.cat([one.atoms for one in made.members])
    clusters, chosen = made.clusters, made.chosen
    for number, label in enumerate(chosen.tolist()):
        centre = normalize(every[(clusters.label == label) & clusters.votes].sum(0), dim=0)
        assert torch.allclose(made.dictionary.W_dec[number], centre, atol=1e-6)


def test_what_had_no_vote_has_more_of_it_than_of_its_members(toy: tuple[Tensor, Tensor, Made]) -> None:
    _, _, made = toy
    rows = {(row.what, row.threshold): row for row in made.record.found_again}
    assert rows["consensus", 0.9].share > rows["members", 0.9].share
    for row in rows.values():
        whole, *used = row.chance
        assert whole.dimensions == 64 and len(used) == 2
        assert all(1 < one.dimensions <= 64 and whole.share <= one.share for one in used)
    assert made.record.calibration is not None and made.record.calibration.brier is not None
    assert all(len(one.chance) == 3 for one in made.record.supports)


def test_its_record_comes_back(toy: tuple[Tensor, Tensor, Made]) -> None:
    record = toy[2].record
    assert from_json(ConsensusRecord, as_json(record)) == record


def test_neither_order_nor_threads_change_a_byte(tmp_path: Path) -> None:
    truth = planted(truths=60, size=80, dictionaries=5, dim=32, seed=2)
    named = {f"d{k}": one for k, one in enumerate(truth.dictionaries())}
    results = []
    for order, threads in ((list(named), 1), (list(reversed(named)), 2)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        comparison, voters = compared({name: named[name] for name in order})
        made = make(comparison, voters, ConsensusSettings(threshold=0.7))
        torch.set_num_threads(before)
        path = tmp_path / f"{threads}" / "made"
        path.parent.mkdir()
        made.dictionary.save(path)
        results.append((path.with_suffix(".safetensors").read_bytes(), path.with_suffix(".json").read_bytes()))
        results[-1] += (str(as_json(made.record)),)  # type: ignore[assignment]
    assert results[0] == results[1]


def test_the_last_seeds_are_held_out() -> None:
    truth = planted(truths=20, size=30, dictionaries=6, dim=16, seed=0)
    _, voters = compared({str(9 - k): one for k, one in enumerate(truth.dictionaries())})
    members, held_out = split(voters, 2)
    assert [one.seed for one in held_out] == [4, 5]
    assert [one.name for one in members] == ["6", "7", "8", "9"]


def test_a_support_by_chance_is_told() -> None:
    """Dictionaries of random atoms in 4 of 32 dimensions agree at 0.7 by chance."""
    made = {}
    for k in range(3):
        atoms = torch.zeros(64, 32)
        atoms[:, :4] = normalize(torch.randn(64, 4, generator=torch.Generator().manual_seed(k)))
        made[str(k)] = Dictionary(atoms, torch.zeros(64), atoms, meta={"seed": k})
    comparison, voters = compared(made)
    record = make(comparison, voters, ConsensusSettings(threshold=0.7)).record
    assert record.dimensions[1] == pytest.approx(4, rel=0.2)
    assert any("by chance" in note for note in record.notes)
    whole, used = record.supports[1].chance
    assert whole.share < 1e-3 and used.share > 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"support": 4}, "support is 4, not from 1 to the 3"),
        ({"hold_out": 3}, "leaves none of 3 dictionaries"),
        ({"threshold": 0.999999}, "no feature is in 2 of the 3"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, float], words: str) -> None:
    truth = planted(truths=20, size=30, dictionaries=3, dim=16, seed=0)
    comparison, voters = compared({str(k): one for k, one in enumerate(truth.dictionaries())})
    with pytest.raises(InvalidSetting, match=words):
        make(comparison, voters, ConsensusSettings(**settings))  # type: ignore[arg-type]


def test_encoders_that_compete_are_not_averaged() -> None:
    truth = planted(truths=20, size=30, dictionaries=2, dim=16, seed=0)
    named = {str(k): Dictionary(own, torch.zeros(30), own, activation=TopK(4)) for k, own in enumerate(truth.atoms)}
    comparison, voters = compared(named)
    with pytest.raises(InvalidSetting, match="codes of a topk depend on its other features"):
        make(comparison, voters, ConsensusSettings(refit="none", threshold=0.7))
