"""Sizes and L1 coefficients as people type them."""

from __future__ import annotations

import doctest
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecode.errors import InvalidSetting
from sparsecode.sweep import dictionary_name, grid, parse_l1, parse_sizes, rates, schedule, settings


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("64-4096", [64, 128, 256, 512, 1024, 2048, 4096]),
        ("64,100,512", [64, 100, 512]),
        ("2x-32x", [24, 48, 96, 192, 384]),
        ("512, 100 ,64", [64, 100, 512]),
        ("1-4,3x,0.5x,2", [1, 2, 4, 6, 36]),
        ("7", [7]),
    ],
)
def test_sizes(text: str, sizes: list[int]) -> None:
    assert parse_sizes(text, 12) == sizes


@pytest.mark.parametrize(
    "text",
    ["", "64-", "-64", "a", "0", "64-100", "100-200", "4096-64", "64-64", "2x-64", "64-4x", "1.5", "1e3", "0.3x",
     "64,,2", "64 128", "99999999999", "1-99999999999999999999", "nan", "٣٤x-", "0x-4x"],
)  # fmt: skip
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(InvalidSetting, match="sizes '"):
        parse_sizes(text, 12)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3", [1e-3]),
        ("1e-2,1e-3", [1e-3, 1e-2]),
        ("0", [0.0]),
        ("1e-4:1e-1:4", [1e-4, 1e-3, 1e-2, 1e-1]),
        ("1e-4:1e-2:3,5", [1e-4, 1e-3, 1e-2, 5.0]),
    ],
)
def test_l1(text: str, values: list[float]) -> None:
    assert parse_l1(text) == values


def test_eight_log_spaced_values() -> None:
    values = parse_l1("1e-4:1e-2:8")
    assert (len(values), values[0], values[-1]) == (8, 1e-4, 1e-2)
    ratios = [b / a for a, b in pairwise(values)]
    assert max(ratios) / min(ratios) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "nan", "inf", "1e-3,", "1e-4:1e-2", "1e-2:1e-4:3", "0:1:3", "1:2:1", "1:2:x", "1:2:-3", "1:2:3:4",
     "1:1e999:3", "1:2:99999"],
)  # fmt: skip
def test_bad_l1_is_named(text: str) -> None:
    with pytest.raises(InvalidSetting, match="l1 '"):
        parse_l1(text)


@given(text=st.text(max_size=20), width=st.integers(1, 4096))
def test_any_text_gives_values_or_the_named_error(text: str, width: int) -> None:
    for parse in (lambda: parse_sizes(text, width), lambda: parse_l1(text)):
        try:
            values = parse()
        except InvalidSetting:
            continue
        assert values == sorted(set(values))
        assert min(values) >= 0


def test_grid_is_every_setting_and_names_are_file_names() -> None:
    entries = grid([64, 128], [1e-3, 2.5e-2], [0, 1])
    assert len(entries) == 8
    assert entries[0] == (64, 1e-3, 0)
    assert dictionary_name(*entries[-1]) == "n128_l1-0.025_s1"


def test_coefficients_that_would_share_a_name_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="three digits"):
        grid([64], parse_l1("0.10001,0.10002"), [0])


@pytest.mark.parametrize("module", [settings, schedule], ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    assert doctest.testmod(module)[0] == 0
    assert doctest.testmod(module)[1] > 0


def test_rates_fall_with_the_root_of_the_size() -> None:
    """Four times the features: half the rate; 1,024 have the rate itself."""
    assert rates(8e-3, [256, 1024, 4096]) == pytest.approx([16e-3, 8e-3, 4e-3], rel=1e-15)
    assert rates(8e-3, [256, 1024, 4096], "none") == [8e-3] * 3
    with pytest.raises(InvalidSetting, match="lr_scaling must be one of sqrt, none, not 'linear'"):
        rates(8e-3, [256], "linear")
