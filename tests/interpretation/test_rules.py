"""What explanations find: planted rules in words, nothing in noise, and nothing of the scoring half."""

from __future__ import annotations

import numpy as np
import pytest

from planted_text import RULES, VOCABULARY, PlantedDataset, fires, noise, noisy, planted_dataset
from sparsecode.interpretation.atoms import Atoms, find_atoms
from sparsecode.interpretation.groups import Direction
from sparsecode.interpretation.interpreting import Interpreted, interpreted
from sparsecode.interpretation.rules import explain, simulate
from sparsecode.interpretation.sample import Sample, draw
from sparsecode.interpretation.scores import Scorer
from sparsecode.interpretation.words import NOTHING, text_of

RATE = 0.02  # the text is short: the densest rule holds at 1.6 % of its tokens


class Planted:
    """The text with its sample, made once."""

    def __init__(self) -> None:
        self.dataset: PlantedDataset = planted_dataset()
        self.sample: Sample = draw(self.dataset, 10**9, 0)
        self.atoms: Atoms = find_atoms(self.sample, VOCABULARY)
        self.scorer = Scorer.of(self.sample, self.atoms, 0)

    def of(self, activations: np.ndarray) -> Interpreted:
        return interpreted(Direction("g", "d", 0), activations, self.sample, self.atoms, self.scorer, RATE)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted()


def test_planted_rules_are_found_and_named(planted: Planted) -> None:
    found = {name: planted.of(noisy(fires(planted.dataset, name), i)) for i, name in enumerate(RULES)}
    scores = {name: one.scores.correlation for name, one in found.items() if one.scores is not None}
    assert len(scores) == len(RULES) == 12
    assert sum(score >= 0.9 for score in scores.values()) >= 11, scores
    texts = {name: text_of(one.explanation) for name, one in found.items() if one.explanation is not None}
    named = {name: words in texts[name].split("; else ")[0] for name, (_, words) in RULES.items()}
    assert sum(named.values()) >= 11, texts
    permuted = [one.scores.permuted for one in found.values() if one.scores is not None]
    assert abs(np.mean(permuted)) <= 0.01


def test_in_noise_nothing_is_found(planted: Planted) -> None:
    found = [planted.of(noise(planted.dataset.rows, seed)) for seed in range(100, 300)]
    nothing = [text_of(one.explanation) == NOTHING for one in found if one.explanation is not None]
    assert len(nothing) == 200 and np.mean(nothing) >= 0.95
    scores = [one.scores.correlation for one in found if one.scores is not None]
    assert abs(np.mean(scores)) <= 0.03 and max(map(abs, scores)) < 0.1


def test_activations_of_the_scoring_half_change_no_explanation(planted: Planted) -> None:
    for number, name in enumerate(("self after (", "number", "in quotes")):
        activations = noisy(fires(planted.dataset, name), number)
        other = np.where(planted.sample.fitting, activations, activations[::-1] * 3 + 1).astype(np.float32)
        first, second = planted.of(activations), planted.of(other)
        assert first.explanation == second.explanation and first.threshold == second.threshold
        assert first.scores != second.scores


@pytest.mark.parametrize("scale", [1e-3, 0.37, 2.0, 1e6 / 3])
def test_scale_changes_nothing(planted: Planted, scale: float) -> None:
    activations = noisy(fires(planted.dataset, "the after of"), 1).astype(np.float64)
    first, second = planted.of(activations), planted.of(activations * scale)
    assert first.explanation == second.explanation and first.scores == second.scores
    assert second.threshold == pytest.approx(first.threshold * scale)


def test_levels_are_means_of_what_rules_cover_first(planted: Planted) -> None:
    active = fires(planted.dataset, "number") * 1.0 + 0.5 * fires(planted.dataset, "-ing")
    z = active[planted.sample.fitting]
    explanation = explain(planted.atoms, z)
    predicted, which = simulate(planted.atoms, planted.atoms.fitting, explanation)
    assert [rule.level for rule in explanation.rules] == [1.0, 0.5]
    np.testing.assert_allclose(predicted, z, atol=1e-6)
    assert set(which.tolist()) == {-1, 0, 1}
    assert text_of(explanation) == "any number, most; else any word in -ing, less"


def test_a_direction_that_is_never_active_is_left_out(planted: Planted) -> None:
    found = planted.of(np.zeros(planted.dataset.rows))
    assert found.left_out == "active on fewer than 20 rows of the fitting half" and found.scores is None
    only = noisy(fires(planted.dataset, "number"), 0) * planted.sample.fitting
    assert planted.of(only).left_out == "active on fewer than 20 rows of the scoring half"
