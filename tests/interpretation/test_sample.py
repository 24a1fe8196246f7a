"""The halves: whole contexts, by a hash of the seed and their number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from planted_text import PlantedDataset, planted_dataset
from sparsecode import store
from sparsecode.errors import ContextsUnknown, DatasetUnfit
from sparsecode.interpretation.sample import chunks, draw, hashed, in_fitting


@pytest.fixture(scope="module")
def dataset() -> PlantedDataset:
    made = planted_dataset(300)
    made.activations = torch.arange(made.rows, dtype=torch.float32)[:, None].repeat(1, 2)
    return made


def test_a_context_of_any_length_is_in_one_half(dataset: PlantedDataset) -> None:
    sample = draw(dataset, 8000, 3)
    for place, (number, first, behind) in enumerate(sample.contexts.tolist()):
        rows = sample.context == place
        assert rows.sum() == behind - first, "whole contexts"
        np.testing.assert_array_equal(sample.ids[rows], dataset.ids[first:behind])
        np.testing.assert_array_equal(sample.place[rows], np.arange(behind - first))
        assert set(sample.fitting[rows].tolist()) == {in_fitting(int(hashed(np.array([number]), 3)[0]))}
    for half in (sample.fitting, ~sample.fitting):
        assert 4000 <= half.sum() < 4000 + 160


def test_the_half_of_a_context_depends_on_the_seed_and_its_number_alone(dataset: PlantedDataset) -> None:
    few, all_of_them = draw(dataset, 5000, 0), draw(dataset, 10**9, 0)
    assert all_of_them.rows == dataset.rows and len(few.contexts) < len(all_of_them.contexts)
    halves = [
        {int(number): bool(one.fitting[one.context == place][0]) for place, number in enumerate(one.contexts[:, 0])}
        for one in (few, all_of_them, draw(dataset, 10**9, 1))
    ]
    assert all(halves[1][number] == half for number, half in halves[0].items())
    differing = np.mean([halves[1][number] != halves[2][number] for number in halves[1]])
    assert 0.35 < differing < 0.65


def test_hashes_are_even() -> None:
    for seed in (0, 1, 2**63):
        bits = hashed(np.arange(20_000), seed) & np.uint64(1)
        assert abs(float(bits.mean()) - 0.5) < 0.015
        assert abs(float((bits[1:] ^ bits[:-1]).mean()) - 0.5) < 0.015


def test_repeated_text_is_taken_once() -> None:
    made = planted_dataset(200)
    ids = np.concatenate([made.ids, made.ids])
    bounds = np.concatenate([made.bounds, made.bounds[1:] + made.rows])
    twice = PlantedDataset(ids, bounds, np.arange(400))
    sample = draw(twice, 10**9, 0)
    assert (len(sample.contexts), sample.repeated) == (200, 200)


def test_chunks_are_the_rows_of_the_sample(dataset: PlantedDataset) -> None:
    sample = draw(dataset, 5000, 0)
    found = np.full(sample.rows, -1.0)
    for place, x in chunks(dataset, sample, 50):
        assert len(x) <= 50
        found[place] = x[:, 1].numpy()
    np.testing.assert_array_equal(dataset.ids[found.astype(int)], sample.ids)


def test_too_few_contexts_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnfit, match="10 contexts are too few"):
        draw(planted_dataset(10), 10**9, 0)
    with store.DatasetWriter(tmp_path / "d", activation_dim=2, dtype="float32", provenance={}) as writer:
        writer.append(torch.ones(100, 2), np.zeros(100, np.int32))
        unknown = writer.finish()
    with pytest.raises(ContextsUnknown):
        draw(unknown, 100, 0)
