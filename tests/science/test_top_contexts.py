"""The streaming search for strongest contexts, against sorting everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_run import FakeDataset, dictionary, true_features
from sparsecode.errors import ContextsUnknown
from sparsecode.science.top_contexts import (
    Probes,
    consistency,
    contexts,
    directions,
    features,
    neurons,
    top_rows,
)
from sparsecode.sweep import Dictionary


def plain(ids: Sequence[int], peak: int, start: int, stop: int) -> list[str]:
    assert start <= peak < stop
    return [str(token) for token in ids[start:stop]]


def data(rows: int, dim: int = 6, seed: int = 0) -> FakeDataset:
    generator = torch.Generator().manual_seed(seed)
    ids = np.random.default_rng(seed).integers(0, 9, rows).astype(np.int32)
    return FakeDataset(torch.randn(rows, dim, generator=generator), ids, {"context": 8})


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 300), chunk=st.integers(1, 120), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_streaming_top_k_equals_sorting_everything(rows: int, chunk: int, k: int, seed: int) -> None:
    dataset = data(rows, seed=seed)
    probes = Probes(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)), torch.tensor([0.0, -1, -99, 1]))
    top = top_rows(dataset, probes, k, chunk=chunk)
    codes = probes.encode(dataset.read(0, rows))
    assert top.searched == rows
    assert top.fired.tolist() == (codes > 0).sum(0).tolist()
    for f in range(4):
        values, order = codes[:, f].sort(descending=True, stable=True)
        expected = [int(row) for value, row in zip(values[:k], order[:k], strict=True) if value > 0]
        found = [row for row in top.rows[f].tolist() if row >= 0]
        torch.testing.assert_close(codes[found, f], codes[expected, f], atol=1e-5, rtol=0)
        torch.testing.assert_close(top.values[f][: len(found)], codes[found, f], atol=1e-5, rtol=0)
        assert len(set(found)) == len(found) == len(expected)


def test_it_keeps_features_times_k_whatever_the_rows() -> None:
    top = top_rows(data(5000), Probes(torch.randn(7, 6), torch.zeros(7)), 5, chunk=64)
    assert top.values.shape == top.rows.shape == (7, 5)
    assert top_rows(data(5000), Probes(torch.randn(7, 6), torch.zeros(7)), 5, rows=100).searched == 100


def test_features_encode_as_their_dictionary_does() -> None:
    own, _ = dictionary(32, 0)
    shifted = Dictionary(
        own.W_enc, own.b_enc + 0.3, own.W_dec, b_dec=torch.randn(32), mean=torch.randn(32), scale=2.5
    )  # fmt: skip
    x = torch.randn(50, 32)
    for one in (own, shifted):
        torch.testing.assert_close(features(one, [5, 2]).encode(x), one.encode(x)[:, [5, 2]], atol=1e-5, rtol=1e-5)


def test_neurons_and_directions() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0]])
    assert neurons([2, 1], 3).encode(x).tolist() == [[3.0, 0.0]]
    mean = torch.tensor([1.0, 0.0, 0.0])
    assert directions(torch.eye(3), mean).encode(x).tolist() == [[0.0, 0.0, 3.0]]
    joined = Probes.joined([neurons([0], 3), directions(torch.eye(3), mean)])
    assert len(joined) == 4 and joined[0].encode(x).tolist() == [[1.0]]


def test_contexts_stay_in_their_window_and_repeat_once() -> None:
    ids = np.tile(np.arange(8, dtype=np.int32), 4)  # four times the same window
    dataset = FakeDataset(torch.eye(8).repeat(4, 1), ids, {"context": 8})
    probes = neurons([6], 8)
    top = top_rows(dataset, probes, 8)
    found = contexts(dataset, plain, probes, top, 0, count=4, shown=4)
    assert len(found.examples) == found.distinct == 1, "the same context four times"
    example = found.examples[0]
    assert example.tokens == [str(i) for i in range(8)] and example.peak == 6
    assert example.activations == [0, 0, 0, 0, 0, 0, 1, 0]
    assert found.density == pytest.approx(4 / 32) and found.consistency == 1
    off = Probes(probes.weight, torch.tensor([-9.0]))
    silent = contexts(dataset, plain, off, top_rows(dataset, off, 8), 0, count=4, shown=4)
    assert silent.examples == [] and silent.consistency is None and silent.density == 0


class Uneven(FakeDataset):
    """Contexts of 3 rows and of 5, in turns."""

    def context_bounds(self, row: int) -> tuple[int, int]:
        first = row // 8 * 8
        return (first, first + 3) if row < first + 3 else (first + 3, min(first + 8, self.rows))


class Unknown(FakeDataset):
    def context_bounds(self, row: int) -> tuple[int, int]:
        raise ContextsUnknown("nobody knows")


@pytest.mark.parametrize(
    ("kind", "expected", "peak"),
    [(Uneven, ["3", "4", "5", "6", "7"], 3), (Unknown, [str(i % 8) for i in range(12)], 6)],
)
def test_contexts_end_where_the_dataset_says(kind: type[FakeDataset], expected: list[str], peak: int) -> None:
    ids = np.arange(16, dtype=np.int32) % 8
    dataset = kind(torch.eye(8).repeat(2, 1), ids, {})
    probes = neurons([6], 8)
    (example,) = contexts(dataset, plain, probes, top_rows(dataset, probes, 1), 0, count=1, shown=1).examples
    assert (example.tokens, example.peak, example.row) == (expected, peak, 6)
    assert len(example.activations) == len(expected)


def test_consistency_by_hand() -> None:
    assert consistency([]) is None
    assert consistency([(1, 5)]) == 1
    assert consistency([(1, 5), (1, 6), (1, 7), (2, 7)]) == 0.75, "the token before agrees more often"
    assert consistency([(None, 5), (None, 6)]) == 1, "both are the first of their window"
    assert consistency([(i, 10 + i) for i in range(10)]) == pytest.approx(0.1)


def test_true_features_are_found_by_their_tokens() -> None:
    ids = np.random.default_rng(0).integers(0, 40, 3000).astype(np.int32)
    dataset = FakeDataset(true_features()[torch.from_numpy(ids.astype(np.int64))], ids, {"context": 30})
    probes = Probes(true_features()[:3], torch.full((3,), -0.5))
    top = top_rows(dataset, probes, 20)
    for f in range(3):
        found = contexts(dataset, plain, probes, top, f, count=5, shown=0)
        assert found.consistency == 1 and found.distinct == 5 and found.examples == []
