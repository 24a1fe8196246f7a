"""The same explanations as by the slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from planted_text import RULES, VOCABULARY, fires, noise, noisy, planted_dataset
from slow_rules import dense, slow_explain
from sparsecode.interpretation.atoms import find_atoms
from sparsecode.interpretation.rules import explain, simulate
from sparsecode.interpretation.sample import draw
from sparsecode.interpretation.scores import native, reduced

DATASET = planted_dataset(120)
SAMPLE = draw(DATASET, 10**9, 0)
ATOMS = find_atoms(SAMPLE, VOCABULARY)
TABLE = dense(ATOMS)
MIXTURES = [tuple(np.random.default_rng(i).permutation(list(RULES))[:3].tolist()) for i in range(8)]


@pytest.mark.parametrize("rules", [*((name,) for name in RULES), *MIXTURES], ids=" + ".join)
def test_rules_are_those_of_the_reference(rules: tuple[str, ...]) -> None:
    activations = noise(DATASET.rows, 9, 0.05).astype(np.float64)
    for i, name in enumerate(rules):
        activations += noisy(fires(DATASET, name), i) * (1 + i)
    halves = activations[SAMPLE.fitting], activations[~SAMPLE.fitting]
    for z in (reduced(*halves, 0.02)[0], native(*halves)[0]):
        found, expected = explain(ATOMS, z), slow_explain(ATOMS, z, TABLE)
        assert [rule.level for rule in found.rules] == pytest.approx([rule.level for rule in expected.rules])
        assert found.elsewhere == pytest.approx(expected.elsewhere)
        # Predicates may differ where they hold at the same rows: sums in another order have other last bits.
        for one, other in zip(
            simulate(ATOMS, ATOMS.fitting, found), simulate(ATOMS, ATOMS.fitting, expected), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)
