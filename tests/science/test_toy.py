"""The toy generator against its own definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from sparsecode.science.toy.data import ToyData, ToySettings, correlation_matrix

SMALL = ToySettings(dim=16, n_features=32, active=2.0, batch_size=2000, seed=3)


def test_features_are_unit_vectors_in_uniform_directions() -> None:
    features = ToyData(ToySettings()).features
    assert features.shape == (512, 256)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(512))
    cosines = (features @ features.T)[~torch.eye(512, dtype=torch.bool)]
    assert abs(float(cosines.mean())) < 1e-3
    assert float(cosines.std()) == pytest.approx(256**-0.5, rel=0.02)


def test_correlation_matrix_is_the_uniform_one_with_a_raised_diagonal() -> None:
    matrix = correlation_matrix(64, np.random.default_rng(0))
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix)[0] > 0
    off = matrix[np.triu_indices(64, 1)]
    assert off.min() >= 0 and off.max() < 1
    assert (
        kstest(off, lambda v: np.where(v < 0.5, 2 * v**2, 1 - 2 * (1 - v) ** 2)).pvalue > 1e-3
    )  # mean of two uniforms
    uniform = np.random.default_rng(0).random((64, 64))
    raised = np.diag(matrix) - np.diag(uniform)
    smallest = np.linalg.eigvalsh((uniform + uniform.T) / 2)[0]
    np.testing.assert_allclose(raised, -1.001 * smallest)


def test_probabilities_average_to_the_asked_for_share_and_decay() -> None:
    data = ToyData(SMALL)
    drawn = np.stack([data.probabilities(i) for i in range(2000)])
    np.testing.assert_allclose(drawn.mean(axis=1), SMALL.active / SMALL.n_features)
    np.testing.assert_array_equal(drawn[5], data.probabilities(5))
    # ndtr(g_i) is symmetric about 1/2 for every i, so the average falls as 0.99 ** i but for the rescaling.
    slope = np.polyfit(np.arange(SMALL.n_features), np.log(drawn.mean(axis=0)), 1)[0]
    assert slope == pytest.approx(np.log(0.99), rel=0.3)


def test_codes_fire_with_their_probabilities_and_no_row_is_empty() -> None:
    data = ToyData(SMALL)
    codes = data.codes(7).numpy()
    assert codes.shape == (2000, 32)
    assert codes.min() >= 0 and codes.max() < 1
    assert (codes.max(axis=1) > 0).all()
    probability = data.probabilities(7)
    empty = np.prod(1 - probability)
    expected = probability + empty / SMALL.n_features  # rows given one feature at random
    spread = np.sqrt(expected * (1 - expected) / len(codes))
    assert (np.abs((codes > 0).mean(axis=0) - expected) < 4.5 * spread + 1e-9).all()


def test_values_are_products_of_two_uniforms() -> None:
    settings = ToySettings(dim=8, n_features=4, active=4.0, batch_size=4000, seed=1)
    data = ToyData(settings)
    i = int(np.argmax([data.probabilities(b).min() for b in range(20)]))
    values = data.codes(i).numpy()
    assert kstest(values[values > 0], lambda v: v * (1 - np.log(v))).pvalue > 1e-3  # P(UV <= v) = v (1 - ln v)


def test_batches_are_pure_functions_of_seed_and_number() -> None:
    data = ToyData(SMALL)
    stream = data.batches(3)
    assert torch.equal(next(stream), data.batch(3))
    assert torch.equal(next(stream), ToyData(SMALL).batch(4))
    assert not torch.equal(data.batch(3), data.batch(4))
    torch.testing.assert_close(data.batch(3), data.codes(3) @ data.features)


def test_blocks_add_random_directions_in_their_subspaces_and_nothing_else_changes() -> None:
    settings = ToySettings(dim=32, n_features=20, active=2.0, batch_size=64)
    plain, blocked = ToyData(settings), ToyData(replace(settings, blocks=3, block_rank=4))
    assert torch.equal(plain.features, blocked.features) and torch.equal(plain.codes(5), blocked.codes(5))
    assert blocked.blocks.shape == (3, 4, 32)
    whole = blocked.blocks.reshape(-1, 32)
    assert torch.allclose(whole @ whole.T, torch.eye(12), atol=1e-6)
    added = torch.cat([blocked.batch(i) - plain.batch(i) for i in range(40)])
    assert torch.equal(blocked.batch(7), blocked.batch(7))
    assert torch.allclose(added @ whole.T @ whole, added, atol=1e-5)
    on = (added.norm(dim=1) > 0).double().mean()
    assert float(on) == pytest.approx(1 - 0.9**3, abs=0.05)
