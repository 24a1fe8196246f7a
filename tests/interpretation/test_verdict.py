"""The verdict comes out every way."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecode.interpretation.verdict import differences, judge


def verdict(table: float = 0.2, **means: float) -> tuple[str, str]:
    generator = np.random.default_rng(0)
    groups = {name.replace("_", " "): mean for name, mean in means.items()}
    scores = {name: (mean + 0.1 * generator.standard_normal(40)).tolist() for name, mean in groups.items()}
    found = judge(scores, differences(scores, 200), [table] * 40)
    assert found.number
    return found.verdict, found.reason


def test_higher_partly_and_not_higher() -> None:
    assert verdict(found_again=0.6, neurons=0.3, random=0.2, pca=0.2, untrained=0.1)[0] == "higher"
    name, reason = verdict(found_again=0.6, neurons=0.62, random=0.2, pca=0.2)
    assert name == "partly" and "neurons" in reason and "PCA" not in reason
    assert verdict(found_again=0.2, neurons=0.4, random=0.4)[0] == "not higher"


def test_other_features_are_no_baseline() -> None:
    assert verdict(found_again=0.5, other_features=0.6, random=0.2)[0] == "higher"


def test_features_that_nothing_is_known_of_are_judged_alone() -> None:
    assert verdict(features=0.6, random=0.2)[0] == "higher"


@pytest.mark.parametrize(("random", "table"), [(0.75, 0.3), (0.3, 0.87)])
def test_where_random_directions_are_predicted_it_says_nothing(random: float, table: float) -> None:
    name, reason = verdict(table=table, found_again=0.9, random=random)
    assert name == "not informative" and "which token" in reason


def test_without_features_or_random_directions_nothing_is_tested() -> None:
    assert verdict(neurons=0.3, random=0.2)[0] == "not tested"
    assert verdict(found_again=0.6, neurons=0.3)[0] == "not tested"
    few = {"found again": [0.9] * 4, "random": [0.1] * 40}
    assert judge(few, differences(few, 100), [0.1]).verdict == "not tested"
