"""A stage needs a number of tokens, rows or steps, and continues until it has them, whatever its minutes."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsecode import corpus, store
from sparsecode.gpt.batches import validation_starts
from sparsecode.gpt.evaluate import unigram_loss
from sparsecode.pipeline import forecast, sweeps, training
from sparsecode.pipeline.config import ClaimsConfig, ToyConfig, TrainDictsConfig
from sparsecode.pipeline.preset import load_preset
from sparsecode.pipeline.replicate import replicate
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.toy import toy_models
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import fitted_steps, train_gpt
from sparsecode.sweep.schedule import Budget
from stopping import Stopped, StoppingEngine, outcome
from tiny_gpt import TINY, StubTokens, walk

MOMENT = 1e-6  # minutes: ends before the second step


def planned(budget: Budget, seconds_per_step: float) -> tuple[int, int]:
    """The total, and the step at which it was fixed, of steps that take equally long."""
    for step in range(1, 10_000):
        total = budget.total(step, step * seconds_per_step)
        if total is not None:
            return total, step
    raise AssertionError("never planned")


@pytest.mark.parametrize(
    ("per_step", "most", "least", "expected"),
    [
        (0.1, None, 0, 100),
        (0.1, None, 50, 100),  # the time allows more
        (0.1, None, 400, 400),  # the floor wants more
        (0.1, 30, 0, 30),
        (0.1, 30, 400, 30),  # who asked for 30 steps gets 30
        (60.0, None, 400, 400),  # the very first step is over the time
        (60.0, None, 0, 2),
    ],
)
def test_a_budget_of_seconds_has_a_floor_and_a_ceiling(
    per_step: float, most: int | None, least: int, expected: int
) -> None:
    budget = Budget(10.0, most, least)
    total, step = planned(budget, per_step)
    assert total == expected and step <= max(1, 0.4 * 10 / per_step + 1)


def test_a_floor_is_told_only_where_it_decides() -> None:
    budget = Budget(10.0, None, 400)
    assert budget.guess(20, 2.0) == 400, "a progress bar does not shrink below the floor"
    total, _ = planned(budget, 0.1)
    told = budget.extension(total, 1000)
    assert told == (
        "0.167 minutes would end after 100k rows here; going on to 400k, the least that was asked for, about 0:30 more"
    )
    enough = Budget(10.0, None, 50)
    assert enough.guess(20, 2.0) == 100
    assert enough.extension(planned(enough, 0.1)[0], 1000) is None


@pytest.mark.parametrize(
    ("seconds", "most", "least", "expected"),
    [(10.0, 5000, 0, 100), (10.0, 5000, 488, 488), (10.0, 40, 488, 40), (-3.0, 5000, 0, 1), (-3.0, 5000, 488, 488)],
)
def test_steps_fitted_to_seconds_have_a_floor_and_a_ceiling(
    seconds: float, most: int, least: int, expected: int
) -> None:
    assert fitted_steps(seconds, 0.1, most, least) == expected


def test_the_unigram_is_that_of_the_tokens_that_validation_reads() -> None:
    train, val = walk(500, 0), walk(300, 1)
    val[-1], vocab = 41, 42  # a token that the training text does not have
    targets = [int(val[start + i]) for start in validation_starts(300, 16, 200) for i in range(1, 17)]
    assert 41 in targets
    probability = {token: (1 + int((train == token).sum())) / (500 + vocab) for token in range(vocab)}
    slow = -sum(math.log(probability[token]) for token in targets) / len(targets)
    assert unigram_loss(train, val, vocab, 16, 200) == pytest.approx(slow)


def test_a_gpt_trains_on_its_tokens_however_short_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(corpus, "prepare_tokens", lambda home, settings, *, watch: StubTokens(), raising=False)
    settings = TINY | {"steps": 1000, "minutes": MOMENT}
    assert train_gpt(tmp_path / "none", quiet=True, **settings)["steps"] == 1
    result = train_gpt(tmp_path / "floor", min_tokens=2000, **settings)
    assert (result["steps"], result["tokens_seen"]) == (32, 2048), "the first whole step at or above"
    assert "planned 32 steps" in (told := capsys.readouterr().err) and "would end after 1)" in told
    assert result["unigram_loss"] == pytest.approx(math.log(40), abs=0.2), "all tokens are about as frequent"
    same = train_gpt(tmp_path / "steps", quiet=True, **TINY | {"steps": 32})
    assert same == result, "as if the steps had been asked for"


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("floors") / "activations"
    with store.DatasetWriter(folder, activation_dim=8, dtype="float32", provenance={"hook_point": "h"}) as writer:
        writer.append(
            torch.relu(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))), np.zeros(2000, dtype=np.int32)
        )
        writer.finish()
    return folder


SWEEP: dict[str, Any] = {
    "sizes": "8,16", "l1": "1e-2", "batch_size": 100, "warmup_steps": 2, "eval_rows": 200, "engine": "reference",
    "minutes": MOMENT,
}  # fmt: skip


def test_dictionaries_train_on_their_rows_however_short_their_minutes(
    tmp_path: Path, activations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train_dicts(tmp_path / "floor", dataset=str(activations), min_samples=3050, **SWEEP)
    assert (result["steps"], result["samples"]) == (31, 3100)
    assert "going on to 3.1k, the least" in capsys.readouterr().err
    assert Run(tmp_path / "floor").config()["stages"]["train-dicts"]["plan"]["steps"] == 31
    few = train_dicts(tmp_path / "few", dataset=str(activations), quiet=True, min_samples=3050, samples=500, **SWEEP)
    assert few["samples"] == 500, "who asked for 500 rows gets 500"


def test_a_training_that_stopped_on_its_way_to_the_floor_ends_in_the_same_bytes(
    tmp_path: Path, activations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SWEEP | {"dataset": str(activations), "min_samples": 3050, "save_every": 10, "quiet": True}
    train_dicts(tmp_path / "whole", **settings)
    engine = StoppingEngine()
    engine.stop = 17
    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_, **__: engine)
        with pytest.raises(Stopped):
            train_dicts(tmp_path / "broken", **settings)
    assert train_dicts(tmp_path / "broken", **settings)["steps"] == 31
    whole, broken = outcome(tmp_path / "whole"), outcome(tmp_path / "broken")
    assert broken["result"] == whole["result"]
    decays = {json.loads(own["files"]["n8_l1-0.01_s0.json"])["training"]["decay_steps"] for own in (whole, broken)}
    assert decays == {6} and broken["files"] == whole["files"]


def test_both_sweeps_of_the_claims_have_their_floor_and_not_that_of_the_run(tmp_path: Path, activations: Path) -> None:
    settings = TrainDictsConfig(eval_rows=200, engine="reference", min_samples=10**9).record()
    config = ClaimsConfig(sizes="4,8", l1="0.1", minutes=MOMENT, min_samples=950, batch_size=100, warmup_steps=2)
    found = sweeps.train_both(Run(tmp_path / "run"), config, str(activations), settings, 8, quiet=True)
    assert [own.finished("train-dicts", "")["samples"] for own, _ in found] == [1000, 1000]


def test_toy_models_train_for_their_steps_however_short_their_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ToyConfig(dim=16, true_features=24, active=2.0, draw_rows=64, sizes="24,48", l1="2e-3", steps=1000,
                       batch_size=128, warmup_steps=5, eval_rows=500, threads=1, minutes=MOMENT)  # fmt: skip
    assert toy_models(tmp_path / "floor", config, min_steps=37)["steps"] == 37
    assert "the least that was asked for" in capsys.readouterr().err
    assert toy_models(tmp_path / "few", config, quiet=True, min_steps=37, steps=20)["steps"] == 20


def test_the_default_preset_has_floors_that_its_minutes_reach_and_the_others_plan_no_minutes() -> None:
    floors = {"train-gpt": "min_tokens", "train-dicts": "min_samples", "claims": "min_samples", "toy": "min_steps"}
    for stage, name in floors.items():
        assert getattr(load_preset("default").stage(stage), name) > 0
        for preset in ("smoke", "paper"):
            config = load_preset(preset).stage(stage)
            assert getattr(config, name) == 0 and getattr(config, "minutes", None) is None


@pytest.mark.slow
def test_a_replication_of_moments_goes_on_until_its_floors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_TELLING", 0.0)  # on a fast machine these stages are too short to tell its rate
    text = (resources.files("sparsecode.pipeline") / "presets" / "smoke.toml").read_text()
    for counted, floor in (
        ("steps = 40\n", "min_tokens = 40_960"),
        ("samples = 60_000\n", "min_samples = 60_000"),
        ("samples = 20_000\n", "min_samples = 20_000"),
        ("steps = 300\n", "min_steps = 60"),
    ):
        assert f"\n{counted}" in text
        text = text.replace(f"\n{counted}", f"\nminutes = 1e-6\n{floor}\n")
    preset = tmp_path / "moments.toml"
    preset.write_text(text)
    run = Run(tmp_path / "run")
    found = replicate(run, str(preset))
    stages, told = found["stages"], capsys.readouterr().err
    assert (stages["train-gpt"]["steps"], stages["toy"]["steps"]) == (40, 60)
    assert 60_000 <= stages["train-dicts"]["samples"] < 60_512
    for scale in ("plain", "per-size"):
        assert 20_000 <= Run(run.path / "science" / scale).finished("train-dicts", "")["samples"] < 20_512
    assert told.startswith("replicate: about ") and "left at the rate seen here" in told
    assert "(--min-tokens" in told and told.count("the least that was asked for") >= 3
    assert "60 steps are fewer than 500" in found["not_tested"]["7"] and found["thin"]["toy"]
    assert "not tested: claim" in told and 'id="thin"' in run.report_path.read_text()
