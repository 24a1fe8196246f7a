"""Gathering what a browser shows: two passes over rows for 1,024 features of 128 dimensions, 1 % of which are active.

The baseline encodes the rows twice and keeps nothing. A default run (18 dictionaries, 9,250 features, a million rows)
is 450 times this.
"""

from __future__ import annotations

import functools

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fake_run import FakeDataset
from sparsecode.browser.gather import Text, codes_of, gather, read_text
from sparsecode.dictionary import Dictionary

ROWS, D, F = 20_000, 128, 1024


@functools.cache
def made() -> tuple[FakeDataset, Dictionary, Text]:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(F, D, generator=generator))
    ids = torch.randint(0, 4096, (ROWS,), generator=generator).int().numpy()
    dataset = FakeDataset(torch.randn(ROWS, D, generator=generator), ids, {"context": 256})
    return dataset, Dictionary(atoms, torch.full((F,), -2.33), atoms), read_text(dataset, ROWS)


def passes() -> None:
    dataset, dictionary, text = made()
    gather(dataset, dictionary, text, contexts=12, bands=4, seed=0)


def encoding() -> None:
    dataset, dictionary, _ = made()
    for start in (*range(0, ROWS, 4096), *range(0, ROWS, 4096)):
        codes_of(dictionary, dataset.read(start, min(start + 4096, ROWS)))


CONTENDERS = {"encoding twice": encoding, "sparsecode": passes}


@pytest.mark.benchmark(group=f"browser: {ROWS:,} rows, {F:,} features of {D} dimensions")
@pytest.mark.parametrize("name", list(CONTENDERS))
def test_gather(benchmark: BenchmarkFixture, name: str) -> None:
    made()
    benchmark.pedantic(CONTENDERS[name], rounds=3)
