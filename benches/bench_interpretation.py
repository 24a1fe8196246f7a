"""Explaining and scoring a direction on 30,000 + 30,000 rows with a vocabulary of 30,000, on one core.

The baseline finds the same explanations with every predicate as a column of a dense matrix.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from slow_rules import dense, slow_explain
from sparsecode.interpretation.atoms import Atoms, find_atoms
from sparsecode.interpretation.groups import Direction
from sparsecode.interpretation.interpreting import interpreted
from sparsecode.interpretation.rules import explain
from sparsecode.interpretation.sample import Sample
from sparsecode.interpretation.scores import Scorer, reduced
from sparsecode.interpretation.vocabulary import Vocabulary

ROWS, T, V, DIRECTIONS = 60_000, 120, 30_000, 8


@functools.cache
def made() -> tuple[Sample, Atoms, Scorer, np.ndarray[Any, np.dtype[np.float64]]]:
    """Zipf's text, and activations [DIRECTIONS, ROWS] that follow ten tokens and noise."""
    generator = np.random.default_rng(0)
    texts = [f" {chr(97 + i % 26)}{i:x}{('ing', 'ed', 's', '')[i % 4]}" for i in range(V)]
    weights = 1 / np.arange(1, V + 1)
    ids = generator.choice(V, ROWS, p=weights / weights.sum())
    contexts = ROWS // T
    bounds = np.arange(contexts) * T
    sample = Sample(
        np.stack([np.arange(contexts), bounds, bounds + T], axis=1), ids, np.arange(ROWS) // T, np.arange(ROWS) % T,
        (np.arange(ROWS) // T) % 2 == 0, 0,
    )  # fmt: skip
    atoms = find_atoms(sample, Vocabulary(texts, [True] * V))
    activations = np.abs(generator.standard_normal((DIRECTIONS, ROWS)))
    for own in activations:
        own += 3 * np.isin(ids, generator.integers(20, 500, 10))
    return sample, atoms, Scorer.of(sample, atoms, 0), activations


def whole() -> None:
    sample, atoms, scorer, activations = made()
    for own in activations:
        interpreted(Direction("g", "d", 0), own, sample, atoms, scorer, 0.01)


def rules(*, slow: bool) -> None:
    sample, atoms, _, activations = made()
    for own in activations:
        z, _, _ = reduced(own[sample.fitting], own[~sample.fitting], 0.01)
        if slow:
            slow_explain(atoms, z, table())
        else:
            explain(atoms, z)


@functools.cache
def table() -> np.ndarray[Any, np.dtype[np.bool_]]:
    return dense(made()[1])


CONTENDERS = {"dense columns": functools.partial(rules, slow=True), "sparsecode": functools.partial(rules, slow=False)}


@pytest.mark.benchmark(group=f"interpretation: rules of {DIRECTIONS} directions, 30,000 rows, vocabulary of 30,000")
@pytest.mark.parametrize("name", list(CONTENDERS))
def test_rules(benchmark: BenchmarkFixture, name: str) -> None:
    made(), table()
    benchmark.pedantic(CONTENDERS[name], rounds=1 if name == "dense columns" else 5)


@pytest.mark.benchmark(group=f"interpretation: {DIRECTIONS} directions explained and scored, both thresholds")
def test_directions(benchmark: BenchmarkFixture) -> None:
    made()
    benchmark.pedantic(whole, rounds=3)
