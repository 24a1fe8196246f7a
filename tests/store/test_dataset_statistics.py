"""Statistics of a dataset against exact fractions, whatever the data, the shards and the interruptions."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsecode.evaluation.sums import Reconstruction
from sparsecode.store import Dataset, DatasetWriter, merge_datasets
from sparsecode.sweep.metrics import Deviations

D = 3


def rows(massive: int | None, count: int = 1500) -> torch.Tensor:
    x = torch.randn(count, D, generator=torch.Generator().manual_seed(1)) + 0.5
    if massive is not None:
        x[massive] *= 1e7
    return x


def exact(x: torch.Tensor) -> tuple[list[float], float, float]:
    """mean [D], variance and rms in exact arithmetic, rounded once."""
    columns = [[Fraction(value) for value in x[:, d].tolist()] for d in range(x.shape[1])]
    n, means = len(x), [sum(column) / len(x) for column in columns]
    squares = sum(sum((v - mean) ** 2 for v in column) for column, mean in zip(columns, means, strict=True))
    total = sum(sum(v * v for v in column) for column in columns)
    values = n * len(columns)
    return [float(mean) for mean in means], float(squares / values), math.sqrt(total / values)


def write(path: Path, x: torch.Tensor, batch: int = 1500, **options: Any) -> Dataset:
    given: dict[str, Any] = {"activation_dim": D, "dtype": "float32", "provenance": {}, "durable": False} | options
    with DatasetWriter(path, **given) as writer:
        for start in range(writer.rows, len(x), batch):
            part = x[start : start + batch]
            writer.append(part, np.zeros(len(part), np.int32))
        return writer.finish()


@pytest.mark.parametrize("massive", [None, 0, 1, 700, 1499])
@pytest.mark.parametrize("shard_rows", [400, 10_000])
def test_a_massive_row_costs_no_precision(tmp_path: Path, massive: int | None, shard_rows: int) -> None:
    x = rows(massive)
    mean, variance, rms = exact(x)
    found = write(tmp_path / "a", x, shard_bytes=shard_rows * 16).statistics
    assert found["mean"] == pytest.approx(mean, rel=1e-12)
    assert found["variance"] == pytest.approx(variance, rel=1e-12)
    assert found["rms"] == pytest.approx(rms, rel=1e-12)
    # Batches, an interruption and a merge change no bit, or only the last ones.
    with DatasetWriter(
        tmp_path / "b", activation_dim=D, dtype="float32", provenance={}, shard_bytes=shard_rows * 16
    ) as writer:
        writer.append(x[:900], np.zeros(900, np.int32))
    assert write(tmp_path / "b", x, batch=77, shard_bytes=shard_rows * 16).statistics == found
    write(tmp_path / "c", x[:601])
    write(tmp_path / "d", x[601:])
    merged = merge_datasets(tmp_path / "e", [tmp_path / "c", tmp_path / "d"]).statistics
    assert merged["mean"] == pytest.approx(mean, rel=1e-12)
    assert merged["variance"] == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("massive", [0, 700])
def test_what_an_evaluation_sums_keeps_its_precision(massive: int) -> None:
    x = rows(massive)
    _, variance, _ = exact(x)
    found, whole = Reconstruction(), Deviations.of(x)
    for part in torch.split(x, 128):
        found.add(part, part, part)
    assert found.spread is not None
    for spread in (found.spread, whole):
        assert spread.total / x.numel() == pytest.approx(variance, rel=1e-12)
