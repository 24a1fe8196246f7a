"""The one-to-one matching against scipy's dense optimum, its proof, and the consistency measures in closed form."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison import encoder_cosines, matched_mcs, pw_mcc, shared
from sparsecode.comparison.cosine import unit_rows
from sparsecode.errors import InvalidArgument


def best_sum(a: Tensor, b: Tensor, *, absolute: bool = False) -> float:
    """The optimum over the whole matrix, by scipy."""
    cosines = (unit_rows(a).double() @ unit_rows(b).double().T).numpy()
    cosines = np.abs(cosines) if absolute else cosines
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float(cosines[rows, columns].sum())


def check(a: Tensor, b: Tensor, *, absolute: bool = False, candidates: int = 16) -> None:
    found = matched_mcs(a, b, absolute=absolute, candidates=candidates)
    pairs = min(len(a), len(b))
    matched = found.indices[found.indices >= 0]
    assert len(matched) == pairs == len(set(matched.tolist())), "every atom of the smaller one, each to its own"
    assert torch.equal(found.values.isnan(), found.indices < 0)
    cosines = unit_rows(a).double() @ unit_rows(b).double().T
    cosines = cosines.abs() if absolute else cosines
    own = cosines[found.indices >= 0, matched]
    torch.testing.assert_close(found.values[found.indices >= 0].double(), own, atol=3e-7, rtol=0)
    total = float(found.values.double().nansum())
    assert total == pytest.approx(best_sum(a, b, absolute=absolute), abs=4e-7 * pairs)
    assert found.bound == pytest.approx(total, abs=1e-11 * pairs), "the dual proves what was reached"


@st.composite
def dictionaries(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two dictionaries whose atoms come from few directions with small integer entries: ties and duplicates abound."""
    d = draw(st.integers(1, 4))
    entry = st.integers(-2, 2)
    atom = st.lists(entry, min_size=d, max_size=d).filter(any)
    few = draw(st.lists(atom, min_size=1, max_size=6))
    sizes = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    a, b = ([few[i] for i in draw(st.lists(st.integers(0, len(few) - 1), min_size=n, max_size=n))] for n in sizes)
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


@settings(max_examples=60, deadline=None)
@given(dictionaries(), st.booleans(), st.integers(1, 8))
def test_ties_and_duplicates(pair: tuple[Tensor, Tensor], absolute: bool, candidates: int) -> None:
    check(*pair, absolute=absolute, candidates=candidates)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 12), st.booleans(), st.integers(0, 999))
def test_random_atoms_of_any_shape(n: int, m: int, d: int, absolute: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)
    check(a, b, absolute=absolute, candidates=1 + seed % 5)


def test_one_candidate_is_widened_until_the_proof_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(400, 6, generator=generator), torch.randn(400, 6, generator=generator)
    found = matched_mcs(a, b, candidates=1)
    assert found.rounds > 1
    assert found.candidates < 400 * 400 / 2
    check(a, b, candidates=1)
    again = matched_mcs(a, b, candidates=64)
    assert found.values.double().sum() == pytest.approx(float(again.values.double().sum()), abs=1e-9)


def test_a_permuted_noisy_copy_is_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.nn.functional.normalize(torch.randn(500, 32, generator=generator))
    order = torch.randperm(500, generator=generator)
    noisy = a + 0.02 * torch.randn(500, 32, generator=generator)
    found = matched_mcs(a, noisy[order])
    assert torch.equal(order[found.indices], torch.arange(500))
    assert found.mean == pytest.approx(1 / math.sqrt(1 + 32 * 0.02**2), abs=0.005)


def test_the_same_bits_on_every_path_and_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(300, 16, generator=generator), torch.randn(350, 16, generator=generator)
    first = matched_mcs(a, b)
    before = torch.get_num_threads()
    try:
        for path in _core.CpuEngine.paths():
            monkeypatch.setenv("SPARSECODE_ENGINE", path)
            torch.set_num_threads(3 if path == "scalar" else 1)
            again = matched_mcs(a, b)
            assert torch.equal(first.indices, again.indices) and torch.equal(first.values, again.values), path
    finally:
        torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 9999), st.integers(1, 9))
def test_the_sparse_assignment_is_the_heaviest_and_its_duals_prove_it(n: int, m: int, seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(0, most + 1, (n, m)) * (random.random((n, m)) < 0.6)  # 0: no edge
    starts = [0, *np.cumsum((weights > 0).sum(axis=1)).tolist()]
    columns = [j for i in range(n) for j in range(m) if weights[i, j] > 0]
    chosen, u, v = _core.assign(starts, columns, [int(w) for w in weights[weights > 0]], m)
    reached = sum(int(weights[i, j]) for i, j in enumerate(chosen) if j >= 0)
    assert all(weights[i, j] > 0 for i, j in enumerate(chosen) if j >= 0)
    taken = [j for j in chosen if j >= 0]
    assert len(taken) == len(set(taken))
    assert reached == heaviest(weights)
    assert min(u, default=0) >= 0 and min(v, default=0) >= 0
    assert all(u[i] + v[j] >= weights[i, j] for i in range(n) for j in range(m) if weights[i, j] > 0)
    assert sum(u) + sum(v) == reached


def heaviest(weights: npt.NDArray[np.int64]) -> int:
    """The heaviest matching over all permutations; a missing edge weighs nothing."""
    wide = weights if weights.shape[0] <= weights.shape[1] else weights.T
    return max(sum(int(wide[i, j]) for i, j in enumerate(p)) for p in permutations(range(wide.shape[1]), len(wide)))


def test_what_is_no_graph_is_named() -> None:
    for starts, columns, weights in (([0, 1], [3], [1]), ([0, 1], [0], [0]), ([0, 2], [0], [1]), ([1], [], [])):
        with pytest.raises(InvalidArgument, match="not a graph"):
            _core.assign(starts, columns, weights, 3)


def test_pw_mcc_in_closed_form() -> None:
    turn = math.pi / 6
    a = torch.eye(2)
    b = torch.tensor([[math.cos(turn), math.sin(turn)], [math.sin(turn), -math.cos(turn)]])
    # Atom 1 of b points away from atom 1 of a: signed, the other pairing is better.
    assert pw_mcc(a, b) == pytest.approx(math.sin(turn), abs=1e-6)
    assert pw_mcc(a, b, absolute=True) == pytest.approx(math.cos(turn), abs=1e-6)
    assert pw_mcc(a, a) == pytest.approx(1)
    assert pw_mcc(a, torch.cat([a, b])) == pytest.approx(1), "over the pairs of the smaller dictionary"


def test_shared_needs_encoder_and_decoder() -> None:
    matched = matched_mcs(torch.eye(4), torch.eye(4)[:3])
    near, far = [1.0, 0.9], [1.0, 1.1]  # cosines with [1, 0]: 0.74 and 0.67
    encoders = encoder_cosines(matched, torch.tensor([[2.0, 0.0]] * 4), torch.tensor([near, far, [0.0, 0.0]]))
    assert encoders.tolist() == pytest.approx([1 / math.hypot(*near), 1 / math.hypot(*far), 0, math.nan], nan_ok=True)
    assert shared(matched, encoders).tolist() == [True, False, False, False]
    assert shared(matched, torch.ones(4), 0.99).tolist() == [True, True, True, False]
