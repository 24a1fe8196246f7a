"""`replicate` with recording stand-ins for the stages: their order, what it skips and what it prints."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sparsecode.sweep.settings  # noqa: F401  (the forecast reads it; the stand-ins below hide its package)
from sparsecode.cli import main
from sparsecode.errors import SettingsDiffer
from sparsecode.pipeline import forecast
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.preset import load_preset
from sparsecode.pipeline.replicate import STAGE_FUNCTIONS, headline, replicate
from sparsecode.pipeline.run import Run

STAGES = list(STAGE_FUNCTIONS)

RESULTS: dict[str, dict[str, Any]] = {
    "train-gpt": {"steps": 60, "val_loss": 4.6712, "bits_per_byte": 1.25},
    "harvest": {"rows": 6_000_000, "hook_point": "blocks.2.mlp.hook_post"},
    "train-dicts": {"dictionaries": ["n32", "n64"], "samples": 1000},
    "compare": {"dictionaries": ["n32", "n64"]},
    "claims": {"verdicts": {"1": "reproduced", "4": "not tested"}},
    "baselines": {"baselines": ["pca", "ica"], "eval_rows": 4096},
    "interpret": {"explained": 40, "verdict": "higher", "number": "0.61"},
    "toy": {"dictionaries": ["n32", "n64"], "samples": 2000, "mmcs_truth": {"n32": 0.5, "n64": 0.98765}},
    "report": {"page": "report.html", "bytes": 2_100_000, "summary": ["41 of 64 features come back."]},
}


class Stages:
    """Stand-ins for all stages, which write to the run like real ones and remember their calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked: list[str] = []
        self.broken: str | None = None
        self.hook: str | None = None
        modules = {
            package: types.ModuleType(f"sparsecode.pipeline.{package}") for package, _ in STAGE_FUNCTIONS.values()
        }
        for stage, (package, name) in STAGE_FUNCTIONS.items():
            setattr(modules[package], name, self.stand_in(stage))
            monkeypatch.setitem(sys.modules, f"sparsecode.pipeline.{package}", modules[package])

    def stand_in(self, stage: str) -> Any:
        def work(run: Run, config: Any, *, force: bool, quiet: bool) -> Any:
            with open_stage(run, stage, config, force=force) as opened:
                self.hook = getattr(config, "hook", None) if stage == "train-dicts" else self.hook
                if not opened.done:
                    if stage == self.broken:
                        raise KeyboardInterrupt
                    self.worked.append(stage)
                    opened.finish(RESULTS[stage])
                # compare gives an object, whose figures are those recorded
                return object() if stage == "compare" else opened.result

        return work


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.delenv("SPARSECODE_PRESET", raising=False)
    return Stages(monkeypatch)


def test_all_stages_in_order(stages: Stages, tmp_path: Path) -> None:
    found = replicate(tmp_path, "smoke", quiet=True)
    assert stages.worked == STAGES
    assert found["stages"] == RESULTS
    assert list(found["seconds"]) == STAGES
    assert found["report"] == str(tmp_path / "report.html")
    recorded = Run(tmp_path).config()["stages"]
    for stage in STAGES:
        assert recorded[stage]["settings"] == load_preset("smoke").stage(stage).record()


def test_what_is_done_is_not_done_again(stages: Stages, tmp_path: Path) -> None:
    first = replicate(tmp_path, "smoke", quiet=True)
    stages.worked.clear()
    second = replicate(tmp_path, "smoke", quiet=True)
    assert stages.worked == []
    assert second["stages"] == first["stages"]


def test_it_goes_on_where_it_was_interrupted(stages: Stages, tmp_path: Path) -> None:
    stages.broken = "train-dicts"
    with pytest.raises(KeyboardInterrupt):
        replicate(tmp_path, "smoke", quiet=True)
    stages.broken = None
    replicate(tmp_path, "smoke", quiet=True)
    assert stages.worked == STAGES  # each once


def test_another_preset_in_the_same_run_is_refused_unless_forced(stages: Stages, tmp_path: Path) -> None:
    replicate(tmp_path, "smoke", quiet=True)
    with pytest.raises(SettingsDiffer, match="--force"):
        replicate(tmp_path, "default", quiet=True)
    replicate(tmp_path, "default", force=True, quiet=True)
    assert stages.worked == [*STAGES, *STAGES]


def seeds(run: Path) -> dict[str, int]:
    recorded = Run(run).config()["stages"]
    return {stage: recorded[stage]["settings"]["seed"] for stage in STAGES if "seed" in recorded[stage]["settings"]}


def test_one_seed_is_that_of_every_stage_and_is_remembered(stages: Stages, tmp_path: Path) -> None:
    replicate(tmp_path / "a", "smoke", seed=5, quiet=True)
    drawing = ["train-gpt", "harvest", "train-dicts", "claims", "baselines", "interpret", "toy"]
    assert seeds(tmp_path / "a") == dict.fromkeys(drawing, 5)
    for again in ({}, {"seed": 5}, {"preset": "smoke", "seed": 5}):
        replicate(tmp_path / "a", quiet=True, **again)
    assert stages.worked == STAGES  # each once
    for other in ({"seed": 6}, {"preset": "smoke"}):
        with pytest.raises(SettingsDiffer, match=r"train-gpt was done with seed 5, not [06]; add --force"):
            replicate(tmp_path / "a", quiet=True, **other)
    replicate(tmp_path / "a", seed=6, force=True, quiet=True)
    assert seeds(tmp_path / "a") == dict.fromkeys(drawing, 6)


def test_an_interrupted_run_goes_on_with_its_seed(stages: Stages, tmp_path: Path) -> None:
    stages.broken = "train-dicts"
    with pytest.raises(KeyboardInterrupt):
        replicate(tmp_path, seed=5, quiet=True)
    stages.broken = None
    replicate(tmp_path, quiet=True)
    assert set(seeds(tmp_path).values()) == {5}


@pytest.mark.parametrize(("seed", "told"), [("-1", "at least 0, not -1"), (str(2**64), f"below 2^64, not {2**64}")])
def test_a_seed_that_no_stage_takes_is_refused_before_anything_is_written(
    stages: Stages, tmp_path: Path, seed: str, told: str
) -> None:
    result = CliRunner().invoke(main, ["replicate", "--seed", seed, "--run", str(tmp_path / "r")])
    assert (result.exit_code, stages.worked) == (2, [])
    assert f"train-gpt: --seed must be {told}" in result.stderr
    assert not (tmp_path / "r").exists()


def test_dictionaries_are_trained_on_what_was_harvested(stages: Stages, tmp_path: Path) -> None:
    # A run may hold further hook points, harvested by hand.
    replicate(tmp_path, "smoke", quiet=True)
    assert stages.hook == "blocks.2.mlp.hook_post"


def test_no_endpoint_is_asked_for_what_is_done_again(stages: Stages, tmp_path: Path) -> None:
    replicate(tmp_path, "smoke", quiet=True)
    run = Run(tmp_path)
    asked = load_preset("smoke").stage("interpret").changed(endpoint="http://localhost:8000/v1", llm="small")
    with open_stage(run, "interpret", asked, force=True) as opened:
        opened.finish({})
    replicate(tmp_path, quiet=True)
    assert run.config()["stages"]["interpret"]["settings"]["llm"] == "small", "what is done stays"
    replicate(tmp_path, force=True, quiet=True)
    assert "endpoint" not in run.config()["stages"]["interpret"]["settings"]


def test_it_says_a_headline_per_stage_and_the_result(
    stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {"train-gpt": 0.5}  # where the rate is known; stand-ins have none
    monkeypatch.setattr(forecast, "measured_speed", lambda stage, *_: speeds.get(stage))
    replicate(tmp_path, "smoke")
    lines = capsys.readouterr().err.splitlines()
    forecasts = [line for line in lines if line.startswith("replicate: about 0:")]
    assert lines[0] == forecasts[0] and "said again when its rate is known" in lines[0]
    assert len(forecasts) == 2 and lines[lines.index(forecasts[1]) - 1].startswith("train-gpt:")
    assert forecasts[1].endswith("left at the rate seen here")
    told = [line for line in lines if line not in forecasts]
    assert told[0].startswith("train-gpt: 60 steps, validation loss 4.671, 1.250 bits per byte, in 0:0")
    headlines, rest = told[: len(STAGES)], told[len(STAGES) :]
    assert [line.partition(":")[0] for line in headlines] == STAGES
    assert headlines[-1].startswith("report: report.html, 2.1 MB, in 0:0")
    assert rest[0] == "41 of 64 features come back."
    assert rest[1].startswith("all stages done in 0:0")
    assert rest[2:] == [f"report: {tmp_path / 'report.html'}"]
    replicate(tmp_path, "smoke")
    again = capsys.readouterr().err.splitlines()
    assert again == [rest[0], again[1], rest[2]]  # no stage claims to have worked


def test_quiet_is_quiet(stages: Stages, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replicate(tmp_path, "smoke", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_the_command_does_the_same(stages: Stages, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["replicate", "--preset", "smoke", "--run", str(tmp_path / "r")])
    assert (result.exit_code, stages.worked) == (0, STAGES)
    assert f"report: {tmp_path / 'r' / 'report.html'}" in result.stderr
    assert result.stdout == ""


def test_the_command_as_json(stages: Stages, tmp_path: Path) -> None:
    import json

    result = CliRunner().invoke(main, ["replicate", "--preset", "smoke", "--run", str(tmp_path), "--json", "--quiet"])
    found = json.loads(result.stdout)
    assert found["stages"] == RESULTS
    assert found["preset"] == "smoke"
    assert result.stderr == ""


def test_the_headline_of_a_sweep_spans_its_dictionaries() -> None:
    metrics = {"n32": {"fvu": 0.5, "l0": 3.0, "dead": 1}, "n64": {"fvu": 0.25, "l0": None, "dead": 7}}
    told = headline("train-dicts", {"hook_point": "h", "dictionaries": ["n32", "n64"], "metrics": metrics})
    assert told == "train-dicts: h, 2 dictionaries, FVU 0.250-0.500, L0 3.0-3.0, dead 1-7"


def test_a_result_without_figures_is_done() -> None:
    assert headline("report", {}) == "report: done"
    assert headline("compare", object()) == "compare: done"
