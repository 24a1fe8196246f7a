"""Measures against scipy and slow loops, and what they are where nothing can be measured."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from planted_text import VOCABULARY, noise, planted_dataset
from sparsecode.interpretation.atoms import find_atoms
from sparsecode.interpretation.rules import Explanation
from sparsecode.interpretation.sample import draw
from sparsecode.interpretation.scores import Scorer, auroc, correlation, covers, native, reduced, unseen

GENERATOR = np.random.default_rng(0)


def test_correlation_and_auroc_are_those_of_scipy() -> None:
    a, b = GENERATOR.standard_normal(300).round(1), GENERATOR.standard_normal(300)
    assert correlation(a, b + a) == pytest.approx(stats.pearsonr(a, b + a).statistic)
    active = b + a > 1
    u = stats.mannwhitneyu(a[active], a[~active]).statistic
    assert auroc(a, active) == pytest.approx(u / (active.sum() * (~active).sum()))


def test_nothing_is_ever_nan() -> None:
    empty, flat = np.zeros(0), np.full(50, 0.1)
    assert correlation(empty, empty) == correlation(flat, GENERATOR.random(50)) == 0
    assert correlation(GENERATOR.random(50), flat) == 0
    assert auroc(flat, flat > 1) == auroc(flat, flat > 0) == auroc(flat, np.arange(50) > 20) == 0.5
    assert covers(np.zeros(5, bool), np.ones(5, bool)) == covers(np.ones(5, bool), np.zeros(5, bool)) == (0, 0)
    assert covers(np.array([True, True, False, False]), np.array([True, False, True, True])) == (0.5, 1 / 3)


def test_the_rate_is_that_of_the_fitting_half() -> None:
    fitting, scoring = GENERATOR.exponential(size=(2, 20_000))
    z, z_scoring, threshold = reduced(fitting, scoring * 2, 0.01)
    assert (z > 0).mean() == pytest.approx(0.01, abs=1e-4)
    assert threshold == np.quantile(fitting, 0.99)
    assert (z_scoring > 0).mean() == pytest.approx((scoring * 2 > threshold).mean(), abs=1e-3)
    assert z.max() == 1
    rare = fitting * (np.arange(20_000) % 1000 == 0)
    z, _, threshold = reduced(rare, scoring, 0.01)
    assert threshold == 0 and (z > 0).sum() == 20, "what is rarer keeps its own threshold"
    a, _ = native(fitting, scoring)
    np.testing.assert_allclose(a, fitting / fitting.max(), atol=1e-6)
    for nothing in (np.zeros(100), -np.ones(100)):
        assert reduced(nothing, nothing, 0.01)[0].max() == 0


def test_unseen_is_as_a_loop_says() -> None:
    dataset = planted_dataset(120)
    sample = draw(dataset, 10**9, 0)
    grams: dict[bool, list[tuple[str, ...]]] = {True: [], False: []}
    for place, texts in enumerate(dataset.texts()):
        half = bool(sample.fitting[sample.context == place][0])
        padded = ["<before>"] * 4 + texts
        grams[half] += [tuple(padded[i : i + 5]) for i in range(len(texts))]
    known = set(grams[True])
    np.testing.assert_array_equal(unseen(sample), [gram not in known for gram in grams[False]])
    assert 0.5 < unseen(sample).mean() < 1


def test_a_scorer_measures_tokens_what_goes_beyond_them_and_chance() -> None:
    dataset = planted_dataset(300)
    sample = draw(dataset, 10**9, 0)
    atoms = find_atoms(sample, VOCABULARY)
    scorer = Scorer.of(sample, atoms, 0)
    ids = sample.ids
    by_token = np.random.default_rng(1).random(len(VOCABULARY.texts))[ids]  # a table of the token alone
    nothing = Explanation((), 0.0)
    found = scorer.score(nothing, by_token[sample.fitting], by_token[~sample.fitting])
    assert found.token_table > 0.99 and found.correlation == 0 and found.auroc == 0.5
    assert all(math.isfinite(value) for value in asdict(found).values())
    random = noise(sample.rows, 5).astype(np.float64)
    assert abs(scorer.score(nothing, random[sample.fitting], random[~sample.fitting]).token_table) < 0.05
    context = sample.context[~sample.fitting]
    assert sorted(scorer.moved.tolist()) == list(range(len(context)))
    assert (np.diff(context[scorer.moved]) != 0).sum() == len(np.unique(context)) - 1, "whole contexts are moved"
