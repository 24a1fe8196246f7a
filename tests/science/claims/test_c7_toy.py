"""The verdict on claim 7 follows its rule and can be either."""

from __future__ import annotations

import json

import pytest

from claim_cases import GOOD, Rows, record
from sparsecode.science.claims.c7_toy import RECOVERED, REGRET, as_json, from_json, judge


def test_both_halves_make_it_reproduced() -> None:
    found = judge(record(GOOD))
    assert found.verdict.verdict == "reproduced"
    assert found.numbers is not None and found.numbers.recovered is not None and found.numbers.sign is not None
    assert found.numbers.recovered.name == "n1024"
    assert [(size.dict_size, size.regret) for size in found.numbers.sign.sizes] == [(512, 0.0), (1024, 0.0)]
    assert from_json(json.loads(json.dumps(as_json(found)))) == found


def test_recovery_that_is_uncertain_is_not_enough() -> None:
    width = 0.98 - RECOVERED
    assert judge(record(GOOD, width - 0.001)).verdict.verdict == "reproduced"
    assert judge(record(GOOD, width + 0.001)).verdict.verdict == "partly"


@pytest.mark.parametrize(("loss", "expected"), [(REGRET - 0.01, "reproduced"), (REGRET + 0.01, "partly")])
def test_a_choice_that_costs_too_much_is_not_a_sign(loss: float, expected: str) -> None:
    rows = GOOD | {(1024, 0.3): (0.98 - loss, 0.9)}  # most similar to the larger one, but not the best
    assert judge(record(rows)).verdict.verdict == expected


def test_neither_half_is_not_reproduced() -> None:
    rows = {key: (truth / 2, None if larger is None else 1 - larger) for key, (truth, larger) in GOOD.items()}
    assert judge(record(rows)).verdict.verdict == "not reproduced"


def test_where_l1_hardly_matters_nothing_was_tested() -> None:
    rows: Rows = {(512, 0.1): (0.95, 0.9), (512, 0.2): (0.94, 0.8), (1024, 0.1): (0.96, None)}
    found = as_json(judge(record(rows)))
    assert (found["verdict"], found["sign"]) == ("partly", {"held": False, "sizes": []})


def test_no_dictionary_at_all_is_not_tested() -> None:
    found = judge({"settings": {"true_features": 4}, "dictionaries": [{"name": "n"}]})
    assert found.verdict.verdict == "not tested"
    assert from_json(as_json(found)) == found and "sign" not in as_json(found)
