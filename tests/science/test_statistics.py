"""The statistics behind the verdicts, each against a closed form or a slow definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import gamma

from sparsecode.comparison import chance
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.changepoint import bend, bend_of_means
from sparsecode.science.statistics.dip import dip, p_value, uniform_dips
from sparsecode.science.statistics.l0_contours import local_slopes, slope
from sparsecode.science.statistics.mixture import ashman, two_modes
from sparsecode.science.statistics.sparsity import kurtosis, l1_over_l2, participation_ratio

Array = npt.NDArray[np.float64]


def dip_by_definition(values: Array) -> float:
    """Smallest distance to a distribution function that is convex up to some sample and concave after: n linear
    programs. Unknown: the function at each sample, at the mode before and after a jump, and the distance."""
    x = np.sort(values)
    n, best = len(x), 1.0
    jump, distance = n, n + 1  # columns of the function after the jump, and of the distance
    for mode in range(n):
        rows: list[Array] = []
        bounds: list[float] = []

        def at_most(bound: float, **coefficients: float) -> None:
            row = np.zeros(n + 2)
            for name, value in coefficients.items():
                row[int(name[1:])] += value
            rows.append(row)  # noqa: B023
            bounds.append(bound)  # noqa: B023

        for i in range(n):
            steps = [(i, i / n), (i, (i + 1) / n)] if i != mode else [(i, i / n), (jump, (i + 1) / n)]
            for column, height in steps:
                at_most(height, **{f"c{column}": 1, f"c{distance}": -1})
                at_most(-height, **{f"c{column}": -1, f"c{distance}": -1})
        at_most(0, **{f"c{mode}": 1, f"c{jump}": -1})
        place = [*x, x[mode]]
        for part, sign in (([*range(mode + 1)], 1.0), ([jump, *range(mode + 1, n)], -1.0)):
            for a, b in pairwise(part):
                at_most(0, **{f"c{a}": 1, f"c{b}": -1})
            for a, b, c in zip(part, part[1:], part[2:], strict=False):
                left, right = sign / (place[b] - place[a]), sign / (place[c] - place[b])
                at_most(0, **{f"c{a}": -left, f"c{b}": left + right, f"c{c}": -right})
        cost = np.eye(n + 2)[distance]
        found = linprog(cost, np.array(rows), bounds, bounds=[(0, 1)] * (n + 1) + [(0, None)], method="highs")
        best = min(best, found.fun)
    return best


@pytest.mark.parametrize("seed", range(24))
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(3, 12))
    x = [
        generator.random(n),
        generator.normal(size=n),
        np.r_[generator.normal(size=n // 2), generator.normal(6, 1, n - n // 2)],
    ][seed % 3]
    assert dip(x) == pytest.approx(dip_by_definition(x), abs=1e-9)


def test_dips_that_are_known() -> None:
    assert dip([0.0] * 5 + [1.0] * 5) == pytest.approx(0.25), "two equal points: the largest there is"
    assert dip(np.arange(20)) == pytest.approx(1 / 40), "evenly spaced: the smallest"
    assert dip([3.0, 3.0, 3.0]) == pytest.approx(1 / 6)
    # The asymptotic 95 % quantile of the root of n times the dip of a uniform sample is near 0.53.
    assert np.quantile(uniform_dips(512, 300), 0.95) * np.sqrt(512) == pytest.approx(0.53, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 60), scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_the_dip_does_not_depend_on_place_scale_or_order(seed: int, n: int, scale: float, shift: float) -> None:
    x = np.random.default_rng(seed).normal(size=n)
    found = dip(x)
    assert 1 / (2 * n) - 1e-12 <= found <= 0.25 + 1e-12
    assert dip(np.random.default_rng(0).permutation(x) * scale + shift) == pytest.approx(found, abs=1e-6)
    assert dip(-x) == pytest.approx(found, abs=1e-9)


def test_the_dip_test_finds_two_modes_and_only_these() -> None:
    generator = np.random.default_rng(1)
    two = np.r_[generator.normal(0.3, 0.05, 150), generator.normal(0.9, 0.05, 150)]
    assert p_value(two)[1] < 0.01
    for one in (generator.normal(size=300), generator.random(300), generator.exponential(size=300)):
        assert p_value(one)[1] > 0.05
    # Under the uniform, p is nearly uniform, and not smaller: 5 % of samples below 5 %.
    small = [p_value(generator.random(40), draws=300)[1] <= 0.05 for _ in range(300)]
    assert 0.01 <= np.mean(small) <= 0.09


def test_two_modes_are_those_that_were_put_in() -> None:
    generator = np.random.default_rng(0)
    low, high = generator.normal(0.3, 0.04, 300), generator.normal(0.95, 0.02, 100)
    fit, upper = two_modes(np.r_[low, high])
    assert fit.means == pytest.approx((0.3, 0.95), abs=0.01)
    assert fit.spreads == pytest.approx((0.04, 0.02), abs=0.006)
    assert fit.weights == pytest.approx((0.75, 0.25), abs=0.01)
    assert fit.ashman == pytest.approx(np.sqrt(2) * 0.65 / np.sqrt(0.04**2 + 0.02**2), rel=0.15) and fit.bic_gain > 100
    assert upper[:300].max() < 0.01 and upper[300:].min() > 0.99
    assert two_modes(generator.normal(size=400))[0].bic_gain < 10
    assert ashman(0, 3, 1, 1) == pytest.approx(3)
    assert two_modes([0.5] * 10)[0].weights[0] >= 0  # no spread at all: no failure


@pytest.mark.parametrize("seed", range(4))
def test_two_modes_equal_scikit_learn(seed: int) -> None:
    from sklearn.mixture import GaussianMixture

    generator = np.random.default_rng(seed)
    x = np.r_[generator.normal(0.35, 0.05, 120), generator.beta(20, 2, 200)]
    theirs = GaussianMixture(2, reg_covar=1e-5, tol=1e-9, max_iter=5000, random_state=0).fit(x[:, None])
    (ours, _), order = two_modes(x), np.argsort(theirs.means_[:, 0])
    assert ours.means == pytest.approx(theirs.means_[order, 0], abs=1e-3)
    assert ours.weights == pytest.approx(theirs.weights_[order], abs=3e-3)
    assert ours.spreads == pytest.approx(np.sqrt(theirs.covariances_[order, 0, 0]), abs=1e-3)
    one = GaussianMixture(1, reg_covar=1e-5).fit(x[:, None])
    assert ours.bic_gain == pytest.approx(one.bic(x[:, None]) - theirs.bic(x[:, None]), abs=0.1)


def test_a_bend_is_found_where_it_is() -> None:
    x = np.arange(6.0)
    y = np.where(x < 2, 0.1 + 0.3 * x, 0.7 + 0.01 * (x - 2))
    found = bend(x, y)
    assert (found.at, found.before, found.after) == pytest.approx((2, 0.3, 0.01))
    assert found.squared_error < 1e-20


def test_a_bend_of_means_has_intervals_that_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    true = [0.2, 0.5, 0.8, 0.8, 0.8]
    values = {2**x: generator.normal(mean, 0.1, 200) for x, mean in enumerate(true, 4)}
    found = bend_of_means(values, draws=300)
    assert found.at == 64 and found.share_at["64"] > 0.95
    assert found.before.low < 0.3 < found.before.high < 0.33
    assert -0.02 < found.after.low < 0 < found.after.high < 0.02


@pytest.mark.parametrize("true", [0.0, 0.4, 1.0])
def test_slopes_of_equal_l0_are_those_that_were_put_in(true: float) -> None:
    sizes, l1 = (32, 64, 128, 256), np.geomspace(1e-3, 1, 8)
    grid = {n: [(value, 10 * (value * n**-true) ** -0.6) for value in l1] for n in sizes}
    found = local_slopes(grid)
    assert {(one.size, one.larger) for one in found} == {(32, 64), (64, 128), (128, 256)}
    assert [one.slope for one in found] == pytest.approx([true] * len(found), abs=1e-6)
    interval = slope(found)
    assert interval is not None and interval.value == pytest.approx(true, abs=1e-6)


def test_no_common_l0_means_no_slope() -> None:
    assert slope(local_slopes({32: [(1.0, 5.0), (2.0, 4.0)], 64: [(1.0, 50.0), (2.0, 40.0)]})) is None
    assert local_slopes({32: [(1.0, 5.0)]}) == []
    assert local_slopes({32: [(1.0, 5.0), (2.0, 0.0)], 64: [(1.0, 5.0), (2.0, 0.0)]}) == []


def test_chance_is_what_random_directions_show() -> None:
    generator = np.random.default_rng(0)
    for dim, others in ((8, 20), (128, 256)):
        unit = generator.standard_normal((others, dim))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        probe = generator.standard_normal((4000, dim))
        best = (probe / np.linalg.norm(probe, axis=1, keepdims=True) @ unit.T).max(1)
        assert chance.expected_mmcs(others, dim) == pytest.approx(best.mean(), abs=0.02)
    assert chance.share_above(0.5, 20, 8) == pytest.approx(1 - float(chance.cosine_cdf(0.5, 8)) ** 20, rel=1e-9)
    assert 0 < chance.share_above(0.9, 2048, 128) < 1e-40, "the far tail is not rounded to nothing"
    # In three dimensions the cosine of two directions is uniform (Archimedes).
    assert chance.cosine_cdf([-0.5, 0.0, 0.5], 3) == pytest.approx([0.25, 0.5, 0.75])
    assert chance.expected_mmcs(1, 3) == pytest.approx(0, abs=1e-6)
    assert chance.expected_mmcs(3, 3) == pytest.approx(0.5, abs=1e-6), "the largest of three uniform on [-1, 1]"


def test_measures_of_sparsity_at_their_ends_and_by_chance() -> None:
    D = 128
    neuron, even = np.eye(D)[:1], np.ones((1, D))
    for measure, of_neuron, of_even in ((kurtosis, D, 1), (l1_over_l2, 1, D**0.5), (participation_ratio, 1, D)):
        assert measure(neuron)[0] == pytest.approx(of_neuron)
        assert measure(even)[0] == pytest.approx(of_even)
        assert measure(-3 * even)[0] == pytest.approx(of_even), "scale and sign do not matter"
    random = np.random.default_rng(0).standard_normal((20_000, D))
    assert kurtosis(random).mean() == pytest.approx(3 * D / (D + 2), rel=0.005)
    mean_l1 = D * gamma(D / 2) / (np.sqrt(np.pi) * gamma((D + 1) / 2))
    assert l1_over_l2(random).mean() == pytest.approx(mean_l1, rel=0.002)
    x = np.array([[0.5, -2.0, 1.0]])
    assert participation_ratio(x)[0] == pytest.approx(sum(v**2 for v in x[0]) ** 2 / sum(v**4 for v in x[0]))


def test_bootstrap_intervals_have_their_level() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        found = bootstrap.interval(generator.normal(2, 1, 60), draws=200, seed=trial)
        inside += found.low <= 2 <= found.high
    assert 0.88 <= inside / 200 <= 0.99
    assert bootstrap.interval([1, 2, 3], np.median).value == 2
    one, other = bootstrap.interval([1, 2, 9], seed=3), bootstrap.interval([1, 2, 9], seed=3)
    assert one == other


def test_resamples_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=70)
    whole = values[np.random.default_rng(5).integers(0, 70, (100, 70))].mean(1)
    for room in (1, 70 * 7, 1 << 21):
        monkeypatch.setattr(bootstrap, "_ROOM", room)
        assert np.array_equal(bootstrap.resamples(values, 100, np.random.default_rng(5)), whole)


def test_a_count_is_binomial() -> None:
    found = bootstrap.count(50, 100)
    assert (found.value, found.low, found.high) == (50, 40, 60)
    drawn = np.random.default_rng(0).binomial(100, 0.5, 100_000)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([found.low, found.high])
    assert bootstrap.count(0, 10) == Interval(0, 0, 0)


def test_a_difference_of_means() -> None:
    generator = np.random.default_rng(0)
    found = bootstrap.difference(generator.normal(1, 1, 400), generator.normal(0, 1, 400))
    assert found.low < 1 < found.high and found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 400), rel=0.15)
