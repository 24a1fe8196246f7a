"""Max cosine similarity against a double loop, and changes that must not affect it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.comparison import histogram, matched_mcs, mcs, mcs_both, mmcs, share_above
from sparsecode.comparison.cosine import all_pairs, chance_mmcs, matrices, summary, unit_rows
from sparsecode.errors import DictionaryInvalid, ZeroAtom


def atoms(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def double_loop(a: Tensor, b: Tensor) -> list[tuple[float, int]]:
    """MCS(a -> b) in Python's own floats."""
    found = []
    for row in a.double().tolist():
        cosines = []
        for other in b.double().tolist():
            dot = sum(x * y for x, y in zip(row, other, strict=True))
            cosines.append(dot / math.sqrt(sum(x * x for x in row)) / math.sqrt(sum(y * y for y in other)))
        best = max(range(len(cosines)), key=cosines.__getitem__)
        found.append((cosines[best], best))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 23), st.integers(1, 19), st.integers(1, 9), st.integers(0, 99))
def test_equals_a_double_loop_both_ways(n: int, m: int, d: int, seed: int) -> None:
    a, b = atoms(n, d, seed), 3 * atoms(m, d, seed + 1000)
    for found, (x, y) in zip(mcs_both(a, b), ((a, b), (b, a)), strict=True):
        expected = double_loop(x, y)
        assert found.values.tolist() == pytest.approx([value for value, _ in expected], abs=1e-6)
        if d > 1:  # with one dimension every cosine is 1 or -1, and ties are free
            assert found.indices.tolist() == [index for _, index in expected]


def test_permuting_atoms_permutes_the_answer() -> None:
    a, b = atoms(70, 16, 0), atoms(50, 16, 1)
    rows, columns = torch.randperm(70), torch.randperm(50)
    values, indices = mcs(a, b)
    moved, moved_indices = mcs(a[rows], b[columns])
    torch.testing.assert_close(moved, values[rows], atol=1e-6, rtol=0)
    assert torch.equal(columns[moved_indices], indices[rows])


def test_a_dictionary_against_itself_is_one_and_scale_does_not_matter() -> None:
    a = atoms(40, 8, 2) * torch.logspace(-30, 30, 40)[:, None]
    values, indices = mcs(a, a)
    torch.testing.assert_close(values, torch.ones(40), atol=1e-6, rtol=0)
    assert float(values.max()) <= 1
    assert torch.equal(indices, torch.arange(40))
    assert mmcs(a, a) == pytest.approx(1)


def test_one_atom_and_duplicates() -> None:
    one = torch.tensor([[0.0, 2.0]])
    assert mcs(one, torch.tensor([[0.0, -1.0]]))[0].tolist() == [-1]
    twice = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    values, indices = mcs(twice, twice)
    assert values.tolist() == [1, 1, 1]
    assert indices.tolist() == [0, 0, 2], "of equal atoms the first"
    assert matched_mcs(twice, torch.eye(2)).indices.tolist() in ([0, -1, 1], [-1, 0, 1])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_an_atom_without_direction_is_named(value: float) -> None:
    bad = torch.ones(5, 3)
    bad[3] = value
    with pytest.raises(ZeroAtom, match=r"mine: atom 3 is (zero|not finite)"):
        mcs_both(bad, torch.eye(3), names=("mine", "yours"))
    with pytest.raises(ZeroAtom, match="yours: atom 3"):
        matched_mcs(torch.eye(3), bad, names=("mine", "yours"))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(DictionaryInvalid, match="3 dimensions"):
        mcs(torch.eye(3), torch.eye(4))
    with pytest.raises(DictionaryInvalid, match="matrix"):
        unit_rows(torch.ones(0, 3))


def test_matching_by_hand() -> None:
    # Both atoms of a are nearest to b's first; one-to-one, the sum is largest when a's second takes it.
    a = torch.tensor([[1.0, 0.2], [1.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert mcs(a, b)[1].tolist() == [0, 0]
    found = matched_mcs(a, b)
    assert found.indices.tolist() == [1, 0]
    assert found.values.tolist() == pytest.approx([0.2 / math.sqrt(1.04), 1])


def test_matching_is_the_best_of_all_permutations() -> None:
    from itertools import permutations

    a, b = unit_rows(atoms(4, 3, 5)), unit_rows(atoms(6, 3, 6))
    cosines = (a @ b.T).tolist()
    best = max(sum(cosines[i][j] for i, j in enumerate(p)) for p in permutations(range(6), 4))
    assert float(matched_mcs(a, b).values.sum()) == pytest.approx(best, abs=1e-5)
    back = matched_mcs(b, a)
    assert int(back.values.isnan().sum()) == 2
    assert summary(back.values, None, 0.9, 4).unmatched == 2
    assert float(back.values.nansum()) == pytest.approx(best, abs=1e-5)


def test_histogram_and_shares() -> None:
    values = torch.tensor([-0.5, 0.0, 0.1, 0.25, 0.49, 0.9, 1.0])
    assert histogram(values, 4) == [3, 2, 0, 2]
    assert histogram(torch.tensor([]), 2) == [0, 0]
    assert share_above(values, 0.9) == pytest.approx(1 / 7), "strictly above"
    found = summary(values, torch.tensor([True, False] * 3 + [True]), 0.4, 4)
    assert found.live is not None and found.dead is not None
    assert found.live.features == 4 and found.dead.features == 3
    assert found.live.above == 2 and found.dead.above == 1
    assert [x + y for x, y in zip(found.live.histogram, found.dead.histogram, strict=True)] == [3, 2, 0, 2]
    none = summary(values, torch.zeros(7, dtype=torch.bool), 0.4, 4).live
    assert none is not None and none.mean is None


def test_all_pairs_are_the_pairs() -> None:
    many = [unit_rows(atoms(n, 6, n)) for n in (5, 9, 14)]
    live = [torch.arange(len(rows)) % 3 != k for k, rows in enumerate(many)]
    pairs = all_pairs(many, live)
    for k, a in enumerate(many):
        for j, b in enumerate(many):
            values, indices = mcs(a, b)
            torch.testing.assert_close(pairs.cosine[k][:, j], values, atol=1e-6, rtol=0)
            assert torch.equal(pairs.index[k][:, j].long(), indices)
            expected = mmcs(a[live[k]], b[live[j]])
            assert matrices(pairs, live).live[k][j] == pytest.approx(expected, abs=1e-6)
            assert matrices(pairs, live).all[k][j] == pytest.approx(mmcs(a, b), abs=1e-6)


def test_a_dictionary_with_no_live_feature() -> None:
    many = [unit_rows(atoms(4, 3, 0)), unit_rows(atoms(5, 3, 1))]
    pairs = all_pairs(many, [torch.zeros(4, dtype=torch.bool), torch.ones(5, dtype=torch.bool)])
    found = matrices(pairs, [torch.zeros(4, dtype=torch.bool), torch.ones(5, dtype=torch.bool)])
    assert found.live == [[None, None], [None, 1.0]]
    torch.testing.assert_close(pairs.cosine[0][:, 1], mcs(many[0], many[1])[0])


def test_chance_is_what_random_directions_reach() -> None:
    b = unit_rows(atoms(1024, 128, 9))
    expected = mmcs(atoms(512, 128, 10), b)
    assert chance_mmcs(512, b) == pytest.approx(expected, abs=0.01)
    assert 0.25 < expected < 0.31, "about 0.28 in 128 dimensions, as measured for the seed's shape"
