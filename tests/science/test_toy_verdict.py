"""The verdict on claim 7 follows its rule and can be either."""

from __future__ import annotations

import pytest

from claim_cases import GOOD, Rows, record
from sparsecode.science.toy_verdict import verdict
from sparsecode.science.verdicts import RECOVERED, REGRET


def test_both_halves_make_it_reproduced() -> None:
    found = verdict(record(GOOD))
    assert found["verdict"] == "reproduced"
    assert found["recovered"]["name"] == "n1024"
    assert [(size["dict_size"], size["regret"]) for size in found["sign"]["sizes"]] == [(512, 0.0), (1024, 0.0)]


def test_recovery_that_is_uncertain_is_not_enough() -> None:
    width = 0.98 - RECOVERED
    assert verdict(record(GOOD, width - 0.001))["verdict"] == "reproduced"
    assert verdict(record(GOOD, width + 0.001))["verdict"] == "partly"


@pytest.mark.parametrize(("loss", "expected"), [(REGRET - 0.01, "reproduced"), (REGRET + 0.01, "partly")])
def test_a_choice_that_costs_too_much_is_not_a_sign(loss: float, expected: str) -> None:
    rows = GOOD | {(1024, 0.3): (0.98 - loss, 0.9)}  # most similar to the larger one, but not the best
    assert verdict(record(rows))["verdict"] == expected


def test_neither_half_is_not_reproduced() -> None:
    rows = {key: (truth / 2, None if larger is None else 1 - larger) for key, (truth, larger) in GOOD.items()}
    assert verdict(record(rows))["verdict"] == "not reproduced"


def test_where_l1_hardly_matters_nothing_was_tested() -> None:
    rows: Rows = {(512, 0.1): (0.95, 0.9), (512, 0.2): (0.94, 0.8), (1024, 0.1): (0.96, None)}
    found = verdict(record(rows))
    assert (found["verdict"], found["sign"]) == ("partly", {"held": False, "sizes": []})


def test_no_dictionary_at_all_is_not_tested() -> None:
    assert verdict({"settings": {"true_features": 4}, "dictionaries": [{"name": "n"}]})["verdict"] == "not tested"
