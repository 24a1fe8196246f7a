"""Which process trains which dictionaries: a pure function whose largest load is close to the mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecode.sweep.spread import owners


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("coefficients", [8, 12])
def test_a_sweep_is_spread_evenly(ranks: int, coefficients: int) -> None:
    sizes = [64 << i for i in range(7) for _ in range(coefficients)]
    loads = [0] * ranks
    for size, rank in zip(sizes, owners(sizes, ranks), strict=True):
        loads[rank] += size
    assert max(loads) <= 1.05 * sum(sizes) / ranks


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(1, 9))
def test_every_rank_has_work_where_there_is_enough_and_no_load_is_far_from_the_best(
    loads: list[int], ranks: int
) -> None:
    found = owners(loads, ranks)
    assert found == owners(list(loads), ranks)
    assert len(found) == len(loads) and set(found) <= set(range(ranks))
    assert len(set(found)) == min(ranks, len(loads))
    sums = [sum(load for load, rank in zip(loads, found, strict=True) if rank == one) for one in range(ranks)]
    assert max(sums) <= max(sum(loads) / ranks + max(loads), max(loads))
