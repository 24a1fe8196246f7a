"""The same explanations as by the slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from planted_text import RULES, VOCABULARY, fires, noise, noisy, planted_dataset
from slow_rules import dense, slow_explain
from sparsecode.interpretation.atoms import find_atoms
from sparsecode.interpretation.rules import explain
from sparsecode.interpretation.sample import draw
from sparsecode.interpretation.scores import native, reduced

DATASET = planted_dataset(120)
SAMPLE = draw(DATASET, 10**9, 0)
ATOMS = find_atoms(SAMPLE, VOCABULARY)
TABLE = dense(ATOMS)
MIXTURES = [tuple(np.random.default_rng(i).permutation(list(RULES))[:3].tolist()) for i in range(8)]


@pytest.mark.parametrize("rules", [*((name,) for name in RULES), *MIXTURES], ids=" + ".join)
def test_rules_are_those_of_the_reference(rules: tuple[str, ...]) -> None:
    activations = sum(noisy(fires(DATASET, name), i) * (1 + i) for i, name in enumerate(rules))
    activations = np.asarray(activations, np.float64) + noise(DATASET.rows, 9, 0.05)
    halves = activations[SAMPLE.fitting], activations[~SAMPLE.fitting]
    for z in (reduced(*halves, 0.02)[0], native(*halves)[0]):
        found, expected = explain(ATOMS, z), slow_explain(ATOMS, z, TABLE)
        # Sums in another order differ in their last bits, which decides between predicates that gain the same.
        assert [rule.level for rule in found.rules] == pytest.approx([rule.level for rule in expected.rules])
        assert found.elsewhere == pytest.approx(expected.elsewhere)
        assert [rule.atoms for rule in found.rules] == [rule.atoms for rule in expected.rules]
