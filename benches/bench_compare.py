"""Max cosine similarity both ways in tiles, beside the whole matrix in plain torch."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from sparsecode.compare.mcs import best_of_tiles, unit_rows

D = 128


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        unit_rows(torch.randn(4096, D, generator=generator)),
        unit_rows(torch.randn(8192, D, generator=generator)),
    )


@pytest.mark.benchmark(group="compare: MCS both ways, 4096 x 8192 atoms, D=128")
def test_torch_full_matrix(benchmark: BenchmarkFixture) -> None:
    a, b = pair()

    def full() -> None:
        cosines = a @ b.T
        cosines.max(dim=1)
        cosines.max(dim=0)

    benchmark.pedantic(full, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="compare: MCS both ways, 4096 x 8192 atoms, D=128")
def test_sparsecode_tiles(benchmark: BenchmarkFixture) -> None:
    a, b = pair()
    benchmark.pedantic(best_of_tiles, args=(a, b), rounds=5, warmup_rounds=1)
