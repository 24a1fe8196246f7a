"""All pairs of a sweep, and the exact one-to-one matching, beside blocked torch and scipy's dense solver.

`ratio` in a row's extra info is the median over rounds in which every contender ran once, one after the other, of its
baseline's time by its own. Contenders of a group use the same cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from benches.interleave import interleaved
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsecode.comparison import best_of_all, matched_mcs
from sparsecode.comparison.cosine import unit_rows

D = 128
SIZES = [64 * 2**i for i in range(7)] * 8  # 56 dictionaries, N = 65,024
BLOCK = 512  # 1 MB of products stays in the cache; 256 and 1024 were no faster for sure (docs/compare.md)
MATCHED = 8192


def random_atoms(n: int, seed: int) -> Tensor:
    return unit_rows(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)))


# All pairs of a sweep


@functools.cache
def sweep() -> list[Tensor]:
    return [random_atoms(size, k) for k, size in enumerate(SIZES)]


def torch_blocks() -> list[list[Tensor]]:
    """Row and column maxima of blocks of products: each computed once for both directions, in float32."""
    atoms = sweep()
    best = [[torch.full((len(rows),), -torch.inf) for _ in atoms] for rows in atoms]
    where = [[torch.zeros(len(rows), dtype=torch.int64) for _ in atoms] for rows in atoms]
    room = torch.empty(BLOCK * BLOCK)
    for k, a in enumerate(atoms):
        for j in range(k + 1, len(atoms)):
            for i in range(0, len(a), BLOCK):
                for l in range(0, len(atoms[j]), BLOCK):  # noqa: E741
                    rows, columns = a[i : i + BLOCK], atoms[j][l : l + BLOCK]
                    products = room[: len(rows) * len(columns)].view(len(rows), len(columns))
                    torch.mm(rows, columns.T, out=products)
                    keep(best[k][j][i : i + BLOCK], where[k][j][i : i + BLOCK], products.max(dim=1), l)
                    keep(best[j][k][l : l + BLOCK], where[j][k][l : l + BLOCK], products.max(dim=0), i)
    return best


def keep(values: Tensor, indices: Tensor, found: torch.return_types.max, offset: int) -> None:
    better = found.values > values
    torch.where(better, found.values, values, out=values)
    torch.where(better, found.indices + offset, indices, out=indices)


def sweep_contenders() -> dict[str, Callable[[], object]]:
    return {"torch-blocks": torch_blocks, "sparsecode": lambda: best_of_all(sweep())}


@functools.cache
def sweep_ratios() -> dict[str, float]:
    best_of_all(sweep()[:7])
    return interleaved(sweep_contenders(), "torch-blocks", 3)


@pytest.mark.benchmark(group="compare: all pairs of 56 dictionaries, N = 65,024, D = 128, maxima both ways")
@pytest.mark.parametrize("name", ["torch-blocks", "sparsecode"])
def test_all_pairs(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.extra_info["ratio"] = round(sweep_ratios()[name], 2)
    benchmark.pedantic(sweep_contenders()[name], rounds=1 if name == "torch-blocks" else 3)


# The one-to-one matching


@functools.cache
def pair() -> tuple[Tensor, Tensor]:
    """Two dictionaries that share half of their atoms, slightly rotated, like two seeds of a sweep."""
    a, b = random_atoms(MATCHED, 1), random_atoms(MATCHED, 2)
    held = torch.randperm(MATCHED, generator=torch.Generator().manual_seed(3))[: MATCHED // 2]
    b[held] = unit_rows(a[: MATCHED // 2] + 0.3 * b[held])
    return a, b


def scipy_dense() -> float:
    a, b = pair()
    cosines = (a @ b.T).numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float(cosines[rows, columns].sum())


def matching_contenders() -> dict[str, Callable[[], object]]:
    return {"scipy-dense": scipy_dense, "sparsecode": lambda: matched_mcs(*pair())}


@functools.cache
def matching_ratios() -> dict[str, float]:
    assert abs(float(matched_mcs(*pair()).values.double().sum()) - scipy_dense()) < 1e-2
    return interleaved(matching_contenders(), "scipy-dense", 2)


@pytest.mark.benchmark(group="compare: exact one-to-one matching, 8,192 x 8,192 atoms, D = 128")
@pytest.mark.parametrize("name", ["scipy-dense", "sparsecode"])
def test_matching(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark.extra_info["ratio"] = round(matching_ratios()[name], 2)
    benchmark.pedantic(matching_contenders()[name], rounds=1 if name == "scipy-dense" else 3)
