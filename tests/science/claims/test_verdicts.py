"""Every rule can give either verdict, and says when the data cannot decide."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecode.science.claims import (
    c1_recurrence,
    c2_bimodality,
    c3_interpretability,
    c4_normalisation,
    c5_growth,
    c6_basis,
    c7_toy,
    verdicts,
)
from sparsecode.science.claims.trained import HARDLY_MOVED
from sparsecode.science.claims.verdicts import NOT_REPRODUCED, NOT_TESTED, PARTLY, REPRODUCED
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.dip import p_value
from sparsecode.science.statistics.mixture import two_modes


def around(value: float, width: float = 0.01) -> Interval:
    return Interval(value, value - width, value + width)


@pytest.mark.parametrize(
    ("seed", "larger", "chance", "expected"),
    [
        (around(190, 10), around(180, 10), 0.0, REPRODUCED),
        (around(190, 10), around(120, 10), 0.0, NOT_REPRODUCED),
        (around(130, 10), around(180, 10), 0.0, NOT_REPRODUCED),  # above, but within its noise
        (around(190, 10), around(180, 10), 30.0, NOT_REPRODUCED),  # chance would show a good part of it
    ],
)
def test_more_features_than_dimensions(seed: Interval, larger: Interval, chance: float, expected: str) -> None:
    counts = {"next larger size": larger, "another seed": seed}
    found = c1_recurrence.rule(counts, chance, 256, 128)
    assert found.verdict == expected and found.reason and "256" in found.number


def test_more_features_than_dimensions_needs_large_dictionaries() -> None:
    assert c1_recurrence.rule({}, 0, 0, 128).verdict == NOT_TESTED
    small = c1_recurrence.rule({"next larger size": around(60, 1)}, 0, 64, 128)
    assert small.verdict == NOT_TESTED and "train larger" in small.reason


def test_bimodal() -> None:
    assert c2_bimodality.bimodal(0.001, 4.0, (0.4, 0.6), 200) is True
    assert c2_bimodality.bimodal(0.02, 4.0, (0.4, 0.6), 200) is False
    assert c2_bimodality.bimodal(0.001, 1.5, (0.4, 0.6), 200) is False
    assert c2_bimodality.bimodal(0.001, 4.0, (0.02, 0.98), 200) is False
    assert c2_bimodality.bimodal(0.001, 4.0, (0.4, 0.6), 20) is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # MCS of 512 features with the next larger dictionary in steps of 0.1 from 0.1, as measured in a run whose
        # dictionaries left many features at their start: plainly two modes.
        ([0, 158, 105, 18, 4, 4, 25, 68, 130], True),
        ([0, 15, 10, 2, 0, 1, 3, 7, 13], True),  # a tenth of it is enough
        ([0, 0, 0, 0, 0, 4, 25, 68, 130], False),  # the features that come back alone
        ([0, 60, 60, 60, 60, 60, 60, 60, 60], False),
    ],
)
def test_the_rule_sees_two_modes_where_they_are(counts: list[int], expected: bool) -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate([0.1 + (i + generator.random(n)) / 10 for i, n in enumerate(counts)])
    fit, _ = two_modes(values)
    assert c2_bimodality.bimodal(p_value(values)[1], fit.ashman, fit.weights, len(values)) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([True, True, False], REPRODUCED),
        ([True, False], NOT_REPRODUCED),
        ([False, None], NOT_REPRODUCED),
        ([None, True], REPRODUCED),
        ([None], NOT_TESTED),
        ([], NOT_TESTED),
    ],
)
def test_two_modes(found: list[bool | None], expected: str) -> None:
    assert c2_bimodality.rule(found).verdict == expected


@pytest.mark.parametrize(
    ("live", "everything", "low_start", "expected", "word"),
    [
        ([False, False], [True, True], [], NOT_REPRODUCED, "dead"),
        ([False, False], [True, False], [], NOT_REPRODUCED, "no two"),
        ([False, False], [None, None], [], NOT_REPRODUCED, "no two"),
        ([True, True], [True, True], [HARDLY_MOVED - 0.01], REPRODUCED, "alone"),
        ([True, True], [False, False], [HARDLY_MOVED + 0.1, HARDLY_MOVED], PARTLY, "hardly moved"),
        ([None], [True], [], NOT_TESTED, "live features"),
    ],
)
def test_a_mode_of_features_that_were_not_trained_is_half_a_mode(
    live: list[bool | None], everything: list[bool | None], low_start: list[float], expected: str, word: str
) -> None:
    found = c2_bimodality.rule(live, everything, low_start)
    assert found.verdict == expected and word in found.reason


@pytest.mark.parametrize(
    ("values", "over", "expected"),
    [
        ([0.9] * 6 + [0.1] * 4, around(0.2, 0.1), REPRODUCED),
        ([0.9] * 4 + [0.1] * 6, around(0.2, 0.1), NOT_REPRODUCED),
        ([0.9] * 6 + [0.1] * 4, around(0.05, 0.1), NOT_REPRODUCED),
        ([0.9] * 4, around(0.2, 0.1), NOT_TESTED),
        ([0.9] * 9, None, NOT_TESTED),
    ],
)
def test_interpretable(values: list[float], over: Interval | None, expected: str) -> None:
    assert c3_interpretability.rule(values, over).verdict == expected


@pytest.mark.parametrize(
    ("plain", "divided", "expected"),
    [
        (around(0.2, 0.1), around(1.2, 0.1), REPRODUCED),
        (around(0.45, 0.1), around(1.4, 0.1), NOT_REPRODUCED),  # cannot be told from half a diagonal
        (around(0.9), around(1.9), NOT_REPRODUCED),  # diagonal without the division too
        (around(-0.9), around(0.1), NOT_REPRODUCED),  # no diagonal with it
        (around(-0.6), around(0.7), NOT_REPRODUCED),  # a diagonal the other way
        (None, around(1.0), NOT_TESTED),
        (around(0.0), None, NOT_TESTED),
    ],
)
def test_diagonal(plain: Interval | None, divided: Interval | None, expected: str) -> None:
    assert c4_normalisation.rule(plain, divided).verdict == expected


@pytest.mark.parametrize(
    ("before", "after", "sizes", "expected", "word"),
    [
        (around(0.2), around(0.01), 5, REPRODUCED, "stays"),
        (around(0.2), around(0.2), 5, NOT_REPRODUCED, "goes on"),
        (around(0.2), around(-0.2), 5, NOT_REPRODUCED, "falls"),
        (around(0.0), around(0.0), 5, NOT_REPRODUCED, "does not rise"),
        (around(0.06, 0.03), around(0.0), 5, NOT_REPRODUCED, "noise"),
        (around(0.2), around(0.01), 3, NOT_TESTED, "needs"),
        (None, None, 5, NOT_TESTED, "needs"),
    ],
)
def test_rises(before: Interval | None, after: Interval | None, sizes: int, expected: str, word: str) -> None:
    found = c5_growth.rule(before, after, sizes, 0.93)
    assert found.verdict == expected and word in found.reason
    assert ("0.93 at the smallest" in found.reason) == (word == "does not rise")


@pytest.mark.parametrize(
    ("as_random", "as_weighted", "features", "expected", "word"),
    [
        (around(0.9, 0.05), around(0.99), 40.0, REPRODUCED, "as random directions"),
        (around(0.52, 0.05), around(0.99), 44.0, NOT_REPRODUCED, "noise"),
        (around(0.1, 0.05), None, 8.0, NOT_REPRODUCED, "between"),
        (around(0.1, 0.05), around(0.4, 0.05), 8.0, NOT_REPRODUCED, "between"),
        (around(0.1, 0.05), around(0.53, 0.05), 8.0, NOT_REPRODUCED, "between"),  # within its noise
        (around(0.1, 0.05), around(0.7, 0.05), 8.0, PARTLY, "as much as it varies"),
        (None, None, 8.0, NOT_TESTED, "found again"),
    ],
)
def test_not_sparse(
    as_random: Interval | None, as_weighted: Interval | None, features: float, expected: str, word: str
) -> None:
    ratio = {"features": features, "random": 43.0} | ({"weighted": 15.0} if as_weighted else {})
    found = c6_basis.rule(as_random, as_weighted, ratio)
    assert found.verdict == expected and word in found.reason
    assert ("15.0" in found.number) == (as_weighted is not None)


@pytest.mark.parametrize(
    ("best", "regrets", "expected", "word"),
    [
        (around(0.98), [0.0, 0.04], REPRODUCED, "and similarity"),
        (around(0.98), [0.0, 0.06], PARTLY, "but similarity"),
        (around(0.905), [0.0], PARTLY, "not recovered, but"),  # within its noise
        (around(0.5), [0.3], NOT_REPRODUCED, "and similarity"),
        (around(0.98), [], PARTLY, "could not be tested"),
        (None, [], NOT_TESTED, "No dictionary"),
    ],
)
def test_truth_and_its_sign(best: Interval | None, regrets: list[float], expected: str, word: str) -> None:
    found = c7_toy.rule(best, regrets)
    assert found.verdict == expected and word in found.reason and found.number


def test_an_interval_is_spelled_out() -> None:
    assert Interval(0.314, 0.2, 0.4).text() == "0.31 (0.20 to 0.40)"


def test_a_verdict_that_another_seed_may_turn_says_so() -> None:
    """Intervals across a rule's bound are within noise, those beside it are not; what is not tested never is."""

    def doubts(*found: verdicts.Verdict) -> list[bool]:
        assert all((verdicts.WITHIN_NOISE in one.reason) == one.within_noise for one in found)
        return [one.within_noise for one in found]

    def counts(value: float) -> verdicts.Verdict:
        return c1_recurrence.rule({"next": around(value, 10)}, 0.0, 256, 128)

    assert doubts(counts(190), counts(130), counts(125), counts(90)) == [False, True, True, False]
    modes = [c2_bimodality.rule([True] * two + [False] * (6 - two)) for two in (6, 4, 3, 2, 1)]
    assert doubts(*modes) == [False, True, True, True, False]
    contexts = [
        c3_interpretability.rule([1.0] * many + [0.0] * (50 - many), over)
        for many, over in ((45, around(0.2)), (27, around(0.2)), (24, around(0.2)), (5, around(0.2)), (45, around(0)))
    ]
    assert doubts(*contexts) == [False, True, True, False, True]
    lines = [
        c4_normalisation.rule(plain, divided)
        for plain, divided in (
            (around(0.05), around(1.2)), (around(0.35), around(1.2)), (around(0.5), around(1.2)),
            (around(0.7), around(1.2)), (around(1), around(1.2)), (around(0.2), around(0.5)),
        )
    ]  # fmt: skip
    assert doubts(*lines) == [False, True, True, True, False, True]
    curves = [
        c5_growth.rule(before, after, 6, 0.4)
        for before, after in (
            (around(0.2), around(0.0)), (around(0.05), around(0.0)), (around(0.2), around(0.05)),
            (around(0.2), around(-0.05)), (around(0.2), around(0.2)), (around(0.01, 0.001), around(0.0)),
        )
    ]  # fmt: skip
    assert doubts(*curves) == [False, True, True, True, False, False]
    ratio = {"features": 20.0, "random": 40.0, "weighted": 30.0}
    basis = [
        c6_basis.rule(plain, weighted, ratio)
        for plain, weighted in (
            (around(0.9), None), (around(0.5), None), (around(0.1), around(0.5)), (around(0.1), around(0.9)),
            (around(0.1), around(0.2)),
        )
    ]  # fmt: skip
    assert doubts(*basis) == [False, True, True, False, False]
    toys = [c7_toy.rule(best, [0.0]) for best in (around(0.95), around(0.905), around(0.5))]
    assert doubts(*toys, verdicts.not_tested("nothing")) == [False, True, False, False]
