"""The way in without a run folder: `fit`, `compare` and `evaluate` on tensors, arrays, datasets and iterators."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sparsecode as sc
from sparsecode import store
from sparsecode.errors import DatasetUnfit, InvalidArgument, InvalidSetting, MissingExtra, TrainingDiverged
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.sweep import fit
from sparsecode.watch import Task, Watch

D, ROWS = 12, 4000
SMALL: dict[str, Any] = {"samples": 20_000, "batch_size": 128, "threads": 1, "engine": "cpu"}


@pytest.fixture(scope="module")
def x() -> Tensor:
    """[ROWS, D] sparse sums of 20 directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    codes = torch.rand(ROWS, 20, generator=generator) * (torch.rand(ROWS, 20, generator=generator) < 0.1)
    return codes @ directions + 0.1


@pytest.fixture(scope="module")
def made(x: Tensor) -> list[sc.Dictionary]:
    return sc.fit(x, sizes=[16, 24], l1=[1e-2, 3e-2], seeds=2, **SMALL)


def same(one: list[sc.Dictionary], other: list[sc.Dictionary]) -> bool:
    return all(torch.equal(a.W_dec, b.W_dec) for a, b in zip(one, other, strict=True))


def test_a_dictionary_for_every_size_coefficient_and_seed(x: Tensor, made: list[sc.Dictionary]) -> None:
    assert [(one.dict_size, one.meta["l1"], one.meta["seed"]) for one in made] == [
        (size, l1, seed) for size in (16, 24) for l1 in (0.01, 0.03) for seed in (0, 1)
    ]
    for one in made:
        assert one.encode(x).shape == (ROWS, one.dict_size)
        assert one.meta["metrics"]["rows"] == ROWS // 4 and one.meta["metrics"]["fvu"] < 0.9
        assert one.features["density"].shape == (one.dict_size,)
    assert repr(made[0]) == "Dictionary(16 features of 12 dimensions, relu, l1 0.01, seed 0)"


@pytest.mark.parametrize(
    "given",
    [lambda x: x.numpy(), lambda x: x.view(40, 100, D), lambda x: list(torch.split(x, 300)), lambda x: x.double()],
    ids=["array", "more dimensions", "batches", "float64"],
)
def test_what_the_rows_come_in_changes_nothing(
    x: Tensor, made: list[sc.Dictionary], given: Callable[[Tensor], Any]
) -> None:
    assert same(sc.fit(given(x), sizes="16,24", l1="1e-2,3e-2", seeds=[0, 1], **SMALL), made)


def test_a_dataset_gives_what_the_command_line_gives(x: Tensor, tmp_path: Path) -> None:
    with store.DatasetWriter(tmp_path / "d", activation_dim=D, dtype="float32", provenance={"hook_point": "h"}) as one:
        one.append(x, np.arange(ROWS, dtype=np.int32))
        dataset = one.finish()
    settings = SMALL | {"eval_rows": 500}
    sc.train_dicts(tmp_path / "run", dataset=str(tmp_path / "d"), sizes="16,24", l1="1e-2", quiet=True, **settings)
    for own in sc.fit(dataset, sizes=[16, 24], l1=1e-2, **settings):
        kept = sc.Dictionary.load(tmp_path / "run" / "dictionaries" / f"n{own.dict_size}_l1-0.01_s0")
        assert torch.equal(own.W_dec, kept.W_dec) and torch.equal(own.b_enc, kept.b_enc)
        assert own.meta == {name: kept.meta[name] for name in own.meta}


def test_the_defaults_are_those_of_the_command_line() -> None:
    config = {field.name: field.default for field in dataclasses.fields(TrainDictsConfig)}
    own = {name: one.default for name, one in inspect.signature(fit).parameters.items()}
    shared = own.keys() & config.keys() - {"l1", "start", "sizes"}
    assert {"lr", "batch_size", "decay_fraction", "l1_warmup", "eval_rows", "normalize", "warmup_steps"} <= shared
    assert {name: own[name] for name in shared} == {name: config[name] for name in shared}
    assert own["l1"] == float(str(config["l1"])) and config["start"] == "calibrated"


def test_batches_that_come_once(x: Tensor) -> None:
    def batches() -> Iterator[Tensor]:
        while True:
            yield from torch.split(x, 200)

    (one,) = sc.fit(batches(), sizes=[16], samples=10_000, eval_rows=400, threads=1)
    assert one.meta["samples_seen"] == 10_000 and one.meta["metrics"]["rows"] == 400
    with pytest.raises(InvalidArgument, match="name samples"):
        sc.fit(batches(), sizes=[16])
    with pytest.raises(DatasetUnfit, match="the batches ended after"):
        sc.fit(iter(torch.split(x, 200)), sizes=[16], samples=10_000, eval_rows=400, threads=1)
    with pytest.raises(InvalidArgument, match="too few batches"):
        sc.fit(iter([x]), sizes=[16], samples=100, eval_rows=400)


def test_what_cannot_be_used_is_named(x: Tensor) -> None:
    for given, error, named in (
        ({"sizes": []}, InvalidArgument, "at least one size"),
        ({"sizes": [8], "samples": 0}, InvalidArgument, "samples must be above 0"),
        ({"sizes": "many"}, InvalidSetting, "sizes"),
        ({"sizes": [8], "l1": 1e41, "l1_warmup": 0.0, "samples": 5000, "batch_size": 100}, TrainingDiverged, "all 1"),
    ):
        with pytest.raises(error, match=named):
            sc.fit(x, **given)
    for rows, failure, named in (
        (torch.ones(3, 4, dtype=torch.int64), InvalidArgument, "must be floats"),
        (torch.ones(400, 4), DatasetUnfit, "all rows are equal"),
        (torch.full((400, 4), torch.nan), InvalidArgument, "NaN"),
        (torch.ones(2, 4), DatasetUnfit, "2 rows are too few"),
    ):
        with pytest.raises(failure, match=named):
            sc.fit(rows, sizes=[8])


def test_nothing_is_printed_and_whoever_watches_is_told(x: Tensor, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    class Told(Task):
        def advance(self, amount: int, **values: str) -> None:
            told.append(f"{self.label} {amount}")

    class Watching(Watch):
        def task(self, label: str, total: int | None, unit: str, *, done: int = 0) -> Task:
            return Told(label, total, unit, done=done)

    sc.fit(x, sizes=[8], watch=Watching(), **SMALL)
    assert told and told[0].startswith("fit ")
    sc.fit(x, sizes=[8], **SMALL)
    assert capfd.readouterr() == ("", "")


def test_notes_go_to_the_log(x: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sparsecode"):
        kept = sc.fit(x, sizes=[8], l1=[1e-2, 1e41], l1_warmup=0.0, **SMALL)
    assert len(kept) == 1 and "1 dictionaries ran into NaN" in caplog.text


def test_a_comparison_of_dictionaries(made: list[sc.Dictionary]) -> None:
    found = sc.compare(made)
    assert found.names[:2] == ["n16_l1-0.01_s0", "n16_l1-0.01_s1"] and len(found.names) == 8
    assert found.mmcs.shape == (8, 8) and torch.allclose(found.mmcs.diagonal(), torch.ones(8, dtype=torch.float64))
    a, b = found.names[:2]
    assert float(found.mmcs[0, 1]) == pytest.approx(float(found.cosine(a, b).mean()), abs=1e-6)
    counts = found.found_again()
    for name in found.names:
        expected = sum((found.cosine(name, other) > 0.9).long() for other in found.names if other != name)
        assert torch.equal(counts[name], torch.as_tensor(expected))
        assert torch.allclose(found.stability[name], counts[name] / 7)
    assert all(bool((few <= counts[name]).all()) for name, few in found.found_again(0.99).items())
    assert repr(found).startswith("Comparison of 8 dictionaries: n16")
    assert "PW-MCC" in found.table()


def test_names_of_ones_own_and_numbers_where_there_are_none(made: list[sc.Dictionary]) -> None:
    assert sc.compare({"one": made[0], "other": made[1]}).names == ["one", "other"]
    assert sc.compare([made[0], made[0]]).names == ["0", "1"]
    with pytest.raises(InvalidSetting, match="two or more"):
        sc.compare(made[:1])
    with pytest.raises(InvalidSetting, match="threshold"):
        sc.compare(made, threshold=1.5)


def test_a_table_of_matches(made: list[sc.Dictionary]) -> None:
    found = sc.compare(made[:3])
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(MissingExtra, match="pip install pandas"):
            found.to_frame()
        return
    frame = found.to_frame()
    assert len(frame) == 2 * (16 + 16 + 16)
    assert list(frame.columns) == ["dictionary", "other", "feature", "nearest", "cosine", "matched", "matched_cosine"]


def test_rows_are_measured_alike_however_they_come(x: Tensor, made: list[sc.Dictionary]) -> None:
    found = sc.evaluate(made[0], x)
    codes = made[0].encode(x)
    error = (made[0].decode(codes) - x).double()
    assert found.mse == pytest.approx(float(error.square().mean()), rel=1e-6)
    assert found.fvu == pytest.approx(float(error.square().sum() / (x.double() - x.double().mean(0)).square().sum()))
    assert found.l0 == pytest.approx(float((codes > 0).sum()) / ROWS) and found.rows == ROWS
    assert found.explained_variance == 1 - found.fvu
    assert torch.allclose(found.density, (codes > 0).float().mean(0))
    for given in (x.numpy(), iter(torch.split(x, 100))):
        assert sc.evaluate(made[0], given).as_json() == pytest.approx(found.as_json(), rel=1e-9)
