"""Settings missing from a call come from the run: its record of the stage, or the preset that it remembers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparsecode.cli import main
from sparsecode.errors import CorpusEmpty, RunInvalid, SettingsDiffer
from sparsecode.pipeline.config import (
    STAGES,
    BaselinesConfig,
    ClaimsConfig,
    CompareConfig,
    HarvestConfig,
    ReportConfig,
    StageConfig,
    TrainDictsConfig,
    TrainGptConfig,
    load_preset,
)
from sparsecode.pipeline.hook_names import hook_names
from sparsecode.pipeline.recall import as_recorded, recalled, settings_for
from sparsecode.pipeline.run import Run

DEFAULT, SMOKE, PAPER = (load_preset(name) for name in ("default", "smoke", "paper"))


@pytest.fixture(autouse=True)
def no_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSECODE_PRESET", raising=False)


def do(run: Run, key: str, config: StageConfig, *, finish: bool = True) -> None:
    out = run.path / key.replace("/", "-")
    with run.stage(key, config, outputs=[out]) as stage:
        out.touch()
        if finish:
            stage.finish({})


def asked(run: Path | Run, stage: str, **given: Any) -> StageConfig:
    """As the command line does it without --preset."""
    return settings_for(Run(run), stage, given, default=DEFAULT)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "harvest"])
def test_what_comes_first(stage: str, tmp_path: Path) -> None:
    assert asked(tmp_path, stage) == DEFAULT.stage(stage)
    other = next(name for name in STAGES if name != stage and name != "harvest")
    do(Run(tmp_path, SMOKE), other, SMOKE.stage(other))
    assert asked(tmp_path, stage) == SMOKE.stage(stage), "the preset that the run remembers"
    changed = {"seed": 3} if "seed" in {f.name for f in dataclasses.fields(STAGES[stage])} else {}
    own = PAPER.stage(stage).changed(**changed)
    do(Run(tmp_path), stage, own)
    assert asked(tmp_path, stage) == own, "the stage's own record"
    found = settings_for(Run(tmp_path), stage, {}, preset=SMOKE, default=DEFAULT)
    assert found == SMOKE.stage(stage), "a preset that is named decides as a whole"


def test_a_flag_beats_the_record_also_where_it_says_the_same_otherwise(tmp_path: Path) -> None:
    do(Run(tmp_path), "train-dicts", TrainDictsConfig(sizes="32", seeds=2, epochs=2.0, hook="h"))
    assert asked(tmp_path, "train-dicts", sizes="64") == TrainDictsConfig(sizes="64", seeds=2, epochs=2.0, hook="h")
    assert asked(tmp_path, "train-dicts", samples=9).epochs is None  # type: ignore[attr-defined]
    assert asked(tmp_path, "train-dicts", dataset="d").hook is None  # type: ignore[attr-defined]
    assert asked(tmp_path, "train-dicts", minutes=None).epochs == 2.0  # type: ignore[attr-defined]


def test_an_unfinished_stage_is_taken_up_with_its_settings(tmp_path: Path) -> None:
    config = TrainGptConfig(steps=7, save_every=3)
    do(Run(tmp_path), "train-gpt", config, finish=False)
    assert asked(tmp_path, "train-gpt") == config


def test_where_the_data_are_is_remembered_and_the_machine_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    config = TrainDictsConfig(dataset="data", threads=3, log_every=7, save_every=9)
    do(Run("run"), "train-dicts", config)
    monkeypatch.chdir("/")
    found = asked(tmp_path / "run", "train-dicts")
    assert found == config.changed(dataset=str(tmp_path / "data"), threads=None)


def test_other_presets_are_remembered_with_their_contents(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[compare]\nbins = 7\n[train-gpt]\ntext = ['a', 'b']\n")
    do(Run(tmp_path / "run", load_preset(str(file))), "report", ReportConfig())
    file.unlink()
    assert asked(tmp_path / "run", "compare") == CompareConfig(bins=7)
    assert asked(tmp_path / "run", "train-gpt") == TrainGptConfig(text=("a", "b"))
    do(Run(tmp_path / "run", SMOKE), "report", ReportConfig())  # done: the preset is the one named last
    assert asked(tmp_path / "run", "claims") == SMOKE.stage("claims")


def test_a_failed_attempt_that_left_nothing_is_forgotten(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(CorpusEmpty), run.stage("train-gpt", TrainGptConfig(text=("typo",)), outputs=[tmp_path / "gpt"]):
        raise CorpusEmpty("no text")
    assert asked(tmp_path, "train-gpt") == DEFAULT.stage("train-gpt")
    with (
        pytest.raises(KeyboardInterrupt),
        run.stage("train-gpt", TrainGptConfig(text=("right",)), outputs=[tmp_path / "gpt"]),
    ):
        raise KeyboardInterrupt
    assert asked(tmp_path, "train-gpt") == TrainGptConfig(text=("right",)), "an interrupted one is gone on with"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, HarvestConfig(layer=1, site="resid", rows=50)),
        ({"layer": 1, "site": "resid"}, HarvestConfig(layer=1, site="resid", rows=50)),
        ({"layer": 3}, HarvestConfig(layer=3, site="resid", rows=50)),
        ({"rows": 9}, HarvestConfig(layer=1, site="resid", rows=9)),
        (
            {"hook": "blocks.0.hook_mlp_out"},
            HarvestConfig(layer=1, site="resid", hook="blocks.0.hook_mlp_out", rows=50),
        ),
    ],
)
def test_a_harvest_is_that_of_the_hook_point_that_is_meant(
    given: dict[str, Any], expected: HarvestConfig, tmp_path: Path
) -> None:
    do(Run(tmp_path), "harvest/blocks.1.hook_resid_post", HarvestConfig(layer=1, site="resid", rows=50))
    assert asked(tmp_path, "harvest", **given) == expected


def test_of_several_harvests_each_has_its_own_settings(tmp_path: Path) -> None:
    run = Run(tmp_path)
    do(run, "harvest/blocks.1.mlp.hook_post", HarvestConfig(layer=1, rows=50))
    do(run, "harvest/blocks.2.mlp.hook_post", HarvestConfig(layer=2, rows=50))
    together = asked(tmp_path, "harvest")
    assert isinstance(together, HarvestConfig)
    assert hook_names(together) == ["blocks.1.mlp.hook_post", "blocks.2.mlp.hook_post"]
    do(run, "harvest/blocks.3.mlp.hook_post", HarvestConfig(layer=3, rows=70))
    assert asked(tmp_path, "harvest", layer=1) == HarvestConfig(layer=1, rows=50)
    assert asked(tmp_path, "harvest", layer=3) == HarvestConfig(layer=3, rows=70)
    # A hook point by name is the same as by its layer, so that the command a message names is not another harvest.
    named = HarvestConfig(hook="blocks.3.mlp.hook_post", rows=70)
    assert as_recorded(run, "blocks.3.mlp.hook_post", named) == HarvestConfig(layer=3, rows=70)


def test_what_an_older_version_did_not_record_counts_as_the_default(tmp_path: Path) -> None:
    run = Run(tmp_path)
    do(run, "compare", CompareConfig(threshold=0.8))
    config = json.loads(run.config_path.read_text())
    record = config["stages"]["compare"]
    del record["settings"]["bins"], record["beside"]
    record["settings"]["gone"] = 1
    run.config_path.write_text(json.dumps(config))
    assert asked(tmp_path, "compare") == CompareConfig(threshold=0.8)
    do(run, "compare", CompareConfig(threshold=0.8))
    with pytest.raises(SettingsDiffer, match="bins null, not 7"):
        do(run, "compare", CompareConfig(threshold=0.8, bins=7))


@pytest.mark.parametrize("broken", [5, {"name": "x"}, {"name": "x", "stages": {"compare": {"bins": "many"}}}])
def test_a_broken_memory_is_one_line(tmp_path: Path, broken: Any) -> None:
    run = Run(tmp_path)
    do(run, "compare", CompareConfig())
    config = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps(config | {"preset": broken}))
    with pytest.raises(RunInvalid, match="name one with --preset"):
        asked(tmp_path, "report")
    config["stages"]["compare"]["settings"]["bins"] = "many"
    run.config_path.write_text(json.dumps(config))
    with pytest.raises(RunInvalid, match="'bins' must be int"):
        asked(tmp_path, "compare")


def test_python_and_the_command_line_agree_but_for_the_default(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert recalled(run, ClaimsConfig, None, {"draws": 200}) == ClaimsConfig(draws=200)
    do(Run(tmp_path, SMOKE), "claims", SMOKE.stage("claims"))
    assert recalled(run, ClaimsConfig, None, {}) == SMOKE.stage("claims")
    assert recalled(run, BaselinesConfig, None, {}) == SMOKE.stage("baselines")
    given = ClaimsConfig(rows=4)
    assert recalled(run, ClaimsConfig, given, {"draws": 300}) == given.changed(draws=300), (
        "settings that are given whole"
    )


def call(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


def test_the_help_says_where_settings_come_from() -> None:
    shown = " ".join(call("report", "--help").stdout.split())
    assert "[default: $SPARSECODE_PRESET, or what the run has, or default]" in shown
