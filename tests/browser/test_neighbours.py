"""Neighbours beside brute force: full matrices of cosines, scipy's assignment, numpy's correlations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fake_run import dictionary, make_fake_run
from sparsecode.browser import neighbours
from sparsecode.browser.neighbours import find_neighbours, find_together, shares
from sparsecode.comparison.members import member_of
from sparsecode.dictionary import Dictionary


def made() -> dict[str, Dictionary]:
    found = {"a": dictionary(32, 0)[0], "b": dictionary(64, 1)[0], "c": dictionary(16, 1)[0]}
    atoms = found["b"].W_dec.clone()
    atoms[5] = 0  # of another library: an atom without a direction
    found["b"] = replace(found["b"], W_dec=atoms, meta={"source": "other"})
    found["wide"] = Dictionary(torch.eye(7), torch.zeros(7), torch.eye(7))
    return found


def test_nearest_and_partners_are_those_of_full_matrices() -> None:
    dictionaries = made()
    found = find_neighbours({name: member_of(own, name) for name, own in dictionaries.items()}, 3)
    assert list(found["a"].others) == ["b", "c"] and not found["wide"].others
    for one, own in found.items():
        atoms = torch.nn.functional.normalize(dictionaries[one].W_dec, dim=1)
        for two, other in own.others.items():
            cosines = atoms @ torch.nn.functional.normalize(dictionaries[two].W_dec, dim=1).T
            for f in range(len(atoms)):
                if not atoms[f].any():
                    assert other.nearest.indices[f] == -1 == other.partner.indices[f]
                    continue
                assert float(other.nearest.values[f]) == pytest.approx(float(cosines[f].max()), abs=1e-6)
                assert float(cosines[f, other.nearest.indices[f]]) == pytest.approx(float(cosines[f].max()), abs=1e-6)
            keep = atoms.any(1)
            columns = dictionaries[two].W_dec.any(1)
            inner = cosines[keep][:, columns].double().numpy()
            rows, places = linear_sum_assignment(-inner)
            has = other.partner.indices >= 0
            assert int(has.sum()) == len(rows)
            assert float(other.partner.values[has].double().sum()) == pytest.approx(inner[rows, places].sum(), abs=1e-4)
            partners = other.partner.indices[has]
            assert len(set(partners.tolist())) == len(partners)
            assert torch.allclose(other.partner.values[has], cosines[has, partners], atol=1e-6)
            assert (found[two].others[one].partner.indices[partners] == has.nonzero().flatten()).all()


def test_the_nearest_of_its_own_dictionary_is_another_atom() -> None:
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    own = Dictionary(atoms, torch.zeros(5), atoms)
    index, cosine = find_neighbours({"a": member_of(own, "a")}, 2)["a"].own
    assert all(f not in index[f].tolist() for f in range(5))
    assert cosine[0].tolist() == [1, 1] and index[4].tolist() == [3, 0]
    assert cosine[4].tolist() == pytest.approx([0.8, 0.6])


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_correlations_are_numpys(tmp_path: Path, dense: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_DENSE", dense)
    monkeypatch.setattr(neighbours, "_VALUES", 5000)
    _, dataset = make_fake_run(tmp_path / "run", sizes=(16,), seeds=(0,))
    own = replace(dictionary(32, 0)[0], b_enc=torch.zeros(32))
    rows = 900
    found = find_together(dataset, own, rows, 4, 3)
    x = dataset.read(0, rows)
    codes = own.encode(x).double().numpy()
    both = np.corrcoef(codes.T, x.double().numpy().T)
    for (indices, values), block in (
        (found.features, both[:32, :32] - 2 * np.eye(32)), (found.components, both[:32, 32:])
    ):  # fmt: skip
        for f in range(32):
            assert values[f] == pytest.approx(np.sort(block[f])[::-1][: len(values[f])], abs=1e-5)
            assert block[f, indices[f]] == pytest.approx(values[f], abs=1e-5)


def test_a_feature_that_never_fires_is_with_none(tmp_path: Path) -> None:
    _, dataset = make_fake_run(tmp_path / "run", sizes=(16,), seeds=(0,))
    own = dictionary(32, 0)[0]
    own.b_enc[3] = -100
    found = find_together(dataset, own, 500, 4, 3)
    assert (found.features[0][3] == -1).all() and (found.components[0][3] == -1).all()


def test_shares_are_of_the_l1_norm() -> None:
    index, share = shares(torch.tensor([[0.0, -3.0, 1.0], [2.0, 1.0, 1.0]]), 2)
    assert index.tolist() == [[1, 2], [0, 1]]
    assert share == pytest.approx(np.array([[-0.75, 0.25], [0.5, 0.25]]))
