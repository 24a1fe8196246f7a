"""Flags come from the settings; a flag beats the preset, the preset beats the defaults."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sparsecode.cli import main
from sparsecode.cli.options import number
from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.config import (
    SITES,
    STAGES,
    BaselinesConfig,
    ClaimsConfig,
    EvalConfig,
    HarvestConfig,
    ReportConfig,
    ToyConfig,
    TrainDictsConfig,
    TrainGptConfig,
)
from sparsecode.pipeline.preset import load_preset, preset_names
from sparsecode.pipeline.replicate import STAGE_FUNCTIONS
from sparsecode.pipeline.settings import StageConfig


class Nothing(dict[str, Any]):
    """The result of a stage that did nothing: an empty result, or an empty comparison."""

    names: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {}


class Recorder:
    """Replaces all stage functions and remembers the last call."""

    def __init__(self) -> None:
        self.run: Any = None
        self.config: Any = None
        self.options: dict[str, Any] = {}

    def __call__(self, run: Any, config: Any, **options: Any) -> dict[str, Any]:
        self.run, self.config, self.options = run, config, options
        return Nothing()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    monkeypatch.delenv("SPARSECODE_PRESET", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))  # no run lies there whose settings would be taken
    stand_in = Recorder()
    functions = [*STAGE_FUNCTIONS.values(), ("browse", "browse_features"), ("toy", "toy")]  # `toy`: with its page
    modules = {package: types.ModuleType(f"sparsecode.pipeline.{package}") for package, _ in functions}
    for package, name in functions:
        setattr(modules[package], name, stand_in)
        monkeypatch.setitem(sys.modules, f"sparsecode.pipeline.{package}", modules[package])
    return stand_in


def call(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_has_its_flag_with_help(stage: str) -> None:
    shown = " ".join(call(stage, "--help").stdout.split())
    for field in dataclasses.fields(STAGES[stage]):
        assert f"--{field.name.replace('_', '-')}" in shown
        assert field.metadata["help"].split(";")[0][:30] in shown
        for choice in field.metadata["choices"] or ():
            assert choice in shown


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_takes_the_common_flags(stage: str) -> None:
    shown = call(stage, "--help").stdout
    for flag in ("--run DIR", "--preset NAME", "--force", "--quiet", "--debug"):
        assert flag in shown


@pytest.mark.parametrize("command", ["info", "compare", "report", "doctor", "verify"])
def test_json_is_offered(command: str) -> None:
    assert "--json" in call(command, "--help").stdout


def test_help_shows_what_happens_without_flags() -> None:
    shown = " ".join(call("train-gpt", "--help").stdout.split())
    default = load_preset("default").stage("train-gpt")
    assert isinstance(default, TrainGptConfig)
    assert f"takes about this long here. [default: {default.minutes}]" in shown
    assert "instead of stopping. [default: off]" in shown


def test_without_flags_the_default_preset_applies(recorder: Recorder) -> None:
    assert call("train-gpt").exit_code == 0
    assert recorder.config == load_preset("default").stage("train-gpt")
    assert recorder.run == Path("sparsecode-run")
    assert recorder.options == {"force": False, "quiet": False}


def test_common_flags_reach_the_stage(recorder: Recorder, tmp_path: Path) -> None:
    assert call("harvest", "--run", str(tmp_path / "r"), "--force", "--quiet").exit_code == 0
    assert recorder.run == tmp_path / "r"
    assert recorder.options == {"force": True, "quiet": True}


@pytest.mark.parametrize("preset", ["smoke", "paper"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_preset_applies_to_every_stage(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, preset: str, stage: str
) -> None:
    monkeypatch.setattr("sparsecode.pipeline.replicate.tell", lambda *_, **__: None)
    result = call(stage, "--preset", preset, "--quiet")
    assert result.exit_code == 0, result.output
    assert recorder.config == load_preset(preset).stage(stage)


def test_the_environment_names_a_preset_and_the_flag_beats_it(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECODE_PRESET", "smoke")
    call("harvest")
    assert recorder.config == load_preset("smoke").stage("harvest")
    call("harvest", "--preset", "paper")
    assert recorder.config == load_preset("paper").stage("harvest")


def test_a_flag_beats_the_preset_and_the_preset_the_default(recorder: Recorder, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[harvest]\nrows = 1000\nlayer = 4\ndtype = 'float32'\n")
    assert call("harvest", "--preset", str(preset), "--layer", "1").exit_code == 0
    assert recorder.config == HarvestConfig(rows=1000, layer=1, dtype="float32")


def test_a_flag_equal_to_the_default_still_beats_the_preset(recorder: Recorder, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[train-dicts]\ntied = true\nseeds = 3\nminutes = 7\n")
    assert call("train-dicts", "--preset", str(preset), "--no-tied", "--seeds", "1", "--minutes", "none").exit_code == 0
    assert recorder.config == TrainDictsConfig(tied=False, seeds=1, minutes=None)


@pytest.mark.parametrize(
    ("stage", "preset", "args", "expected"),
    [
        ("train-gpt", "minutes = 3", ["--steps", "9"], {"steps": 9, "minutes": None}),
        ("train-gpt", "steps = 40", ["--minutes", "9"], {"steps": TrainGptConfig().steps, "minutes": 9.0}),
        ("train-gpt", "minutes = 3", ["--steps", "9", "--minutes", "2"], {"steps": 9, "minutes": 2.0}),
        ("train-gpt", "hf_dataset = 'x'", ["--text", "a"], {"text": ("a",), "hf_dataset": None}),
        ("train-gpt", "text = ['a']", ["--hf-dataset", "x"], {"text": (), "hf_dataset": "x"}),
        ("train-gpt", "tokenizer = 'x'", ["--tokenizer", "none"], {"tokenizer": None}),
        ("harvest", "hook = 'blocks.1.hook_mlp_out'", ["--layer", "3"], {"hook": None, "layer": 3}),
        ("train-dicts", "epochs = 1.0", ["--samples", "9"], {"epochs": None, "samples": 9}),
        (
            "train-dicts",
            "minutes = 4\nsamples = 5",
            ["--epochs", "2"],
            {"epochs": 2.0, "samples": None, "minutes": None},
        ),
        ("train-dicts", "minutes = 4\nsamples = 5", ["--lr", "1"], {"samples": 5, "minutes": 4.0}),
        ("train-gpt", "steps = 40\nminutes = 3", ["--minutes", "none"], {"steps": 40, "minutes": None}),
        ("train-dicts", "samples = 5", ["--minutes", "none"], {"samples": 5, "minutes": None}),
        ("train-gpt", "text = ['a']", ["--hf-dataset", "none"], {"text": ("a",), "hf_dataset": None}),
    ],
)
def test_a_flag_beats_a_preset_that_says_it_otherwise(
    recorder: Recorder, tmp_path: Path, stage: str, preset: str, args: list[str], expected: dict[str, Any]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[{stage}]\n{preset}\n")
    result = call(stage, "--preset", str(file), *args)
    assert result.exit_code == 0, result.output
    assert {name: getattr(recorder.config, name) for name in expected} == expected


def test_keys_with_a_dash_are_the_same_in_a_preset(recorder: Recorder, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[train-dicts]\nbatch-size = 512\n")
    assert call("train-dicts", "--preset", str(preset)).exit_code == 0
    assert recorder.config.batch_size == 512


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[harvets]\nrows = 1\n", f"tables must be {', '.join(STAGES)}; found harvets"),
        ("rows = 1\n", "tables must be"),
        ("[harvest]\nrow = 1\n", "[harvest]: unknown setting 'row'; known: batch_size"),
        ("[harvest]\nrows = 'many'\n", "'rows' must be int, not 'many'"),
        ("[harvest]\nrows = -1\n", "'rows' must be at least 1, not -1"),
        ("[train-dicts]\nlr = nan\n", "'lr' must be finite, not nan"),
        ("[harvest]\nrows = true\n", "'rows' must be int, not True"),
        (
            "[harvest]\nsite = 'brain'\n",
            "'site' must be one of mlp, resid, mlp_out, attn, attn_out, resid_pre, resid_mid, not 'brain'",
        ),
        ("[harvest\n", "not valid TOML"),
        (f"rows = {'[' * 5000}{']' * 5000}\n", "not valid TOML"),
        ("[harvest]\nbatch-size = 4\nbatch_size = 8\n", "[harvest]: 'batch_size' appears twice, with - and with _"),
        ("[train-gpt]\ntext = [1, 2]\n", "[train-gpt]: 'text' must be tuple[str, ...], not (1, 2)"),
    ],
)
def test_a_bad_preset_is_wrong_usage_in_one_line(recorder: Recorder, tmp_path: Path, content: str, told: str) -> None:
    preset = tmp_path / "bad.toml"
    preset.write_text(content)
    # A table of another stage is wrong too: the file is checked as a whole.
    for command in ("harvest", "compare", "replicate"):
        result = call(command, "--preset", str(preset))
        assert result.exit_code == 2
        assert told in result.stderr
        assert str(preset) in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert recorder.config is None


def test_one_number_or_path_may_stand_where_several_may() -> None:
    assert TrainDictsConfig().changed(sizes=64, l1=0.023) == TrainDictsConfig(sizes="64", l1="0.023")
    assert TrainGptConfig().changed(text="notes/") == TrainGptConfig(text=("notes/",))
    assert ClaimsConfig().changed(l1=None).l1 is None
    with pytest.raises(InvalidSetting, match="train-dicts: --l1 must be str, not True"):
        TrainDictsConfig().changed(l1=True)


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        (TrainDictsConfig, {"sizes": [64, 128], "l1": (1e-3, 2)}, {"sizes": "64,128", "l1": "0.001,2"}),
        (TrainDictsConfig, {"sizes": range(3, 5), "lr": np.float32(0.5)}, {"sizes": "3,4", "lr": 0.5}),
        (TrainDictsConfig, {"sizes": ["2x", 64], "l1": np.array([0.1, 0.2])}, {"sizes": "2x,64", "l1": "0.1,0.2"}),
        (ClaimsConfig, {"l1": [0.1]}, {"l1": "0.1"}),
        (ToyConfig, {"sizes": [0.5]}, {"sizes": "0.5"}),
        (BaselinesConfig, {"kinds": ["pca", "ica"]}, {"kinds": "pca,ica"}),
        (HarvestConfig, {"layer": [0, 2], "site": ["mlp", "resid"]}, {"layer": "0,2", "site": "mlp,resid"}),
        (HarvestConfig, {"hook": ["a", "b"], "text": ["c"]}, {"hook": "a,b", "text": ("c",)}),
    ],
)
def test_python_may_give_a_list_where_a_text_has_commas(
    kind: type[StageConfig], given: dict[str, Any], text: dict[str, Any]
) -> None:
    assert kind().changed(**given) == kind(**text)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (TrainDictsConfig, {"seed": 2**64}, f"train-dicts: --seed must be below 2^64, not {2**64}"),
        (TrainDictsConfig, {"seeds": 0}, "train-dicts: --seeds must be at least 1, not 0"),
        (TrainDictsConfig, {"lr": 0}, "train-dicts: --lr must be above 0, not 0.0"),
        (ToyConfig, {"decay_fraction": 1.5}, "toy: --decay-fraction must be at most 1, not 1.5"),
        (ClaimsConfig, {"seed": 2**64}, f"claims: --seed must be below 2^64, not {2**64}"),
        (HarvestConfig, {"rows": -5}, "harvest: --rows must be at least 1, not -5"),
        (HarvestConfig, {"layer": -1}, "harvest: --layer must be at least 0, not -1"),
        (TrainGptConfig, {"minutes": float("inf")}, "train-gpt: --minutes must be finite, not inf"),
        (EvalConfig, {"batch_tokens": 0}, "eval: --batch-tokens must be at least 1, not 0"),
        (TrainDictsConfig, {"sizes": []}, "train-dicts: --sizes is empty; leave it out, or say what it is"),
        (HarvestConfig, {"site": ["mlp", "brain"]}, f"harvest: --site must be one of {', '.join(SITES)}, not 'brain'"),
        (ReportConfig, {"colour": 1}, "report: unknown setting 'colour'; known: features, images, tokens"),
    ],
)
def test_a_bad_value_is_told_by_its_flag(kind: type[StageConfig], value: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        kind().changed(**value)
    assert str(raised.value) == told


@pytest.mark.parametrize("kind", [*STAGES.values(), EvalConfig])
def test_defaults_are_within_their_limits(kind: type[StageConfig]) -> None:
    assert kind().changed() == kind()


@pytest.mark.parametrize("name", ["nothing", "nothing.toml"])
def test_an_unknown_preset_lists_those_there_are(recorder: Recorder, name: str) -> None:
    result = call("harvest", "--preset", name)
    assert result.exit_code == 2
    assert ", ".join(preset_names()) in result.stderr


def test_presets_shipped_say_their_cost() -> None:
    shown = call("replicate", "--help").stdout
    assert preset_names() == ["default", "paper", "smoke"]
    for name in preset_names():
        cost = load_preset(name).cost
        assert cost
        assert "\n" not in cost
        assert f"{name}  " in shown
        assert cost in shown


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--text", "a", "b", "c"], ("a", "b", "c")),
        (["--text", "a", "--text", "b"], ("a", "b")),
        (["--text", "a", "b", "--seed", "3", "--text", "c", "d"], ("a", "b", "c", "d")),
        (["--seed", "3", "--text=a"], ("a",)),
        (["--text", "-", "b"], ("-", "b")),
        (["--seed", "3"], ()),
    ],
)
def test_text_takes_several_values(recorder: Recorder, args: list[str], expected: tuple[str, ...]) -> None:
    result = call("train-gpt", *args)
    assert result.exit_code == 0, result.output
    assert recorder.config.text == expected
    assert recorder.config.seed == (3 if "--seed" in args else 0)


def test_an_empty_path_is_not_the_folder_one_is_in(recorder: Recorder) -> None:
    result = call("train-gpt", "--text", "")
    assert result.exit_code == 2
    assert "train-gpt: --text holds an empty name" in result.stderr
    assert recorder.config is None


@pytest.mark.parametrize("args", [["--text"], ["--text", "--seed", "3"], ["--text", "a", "--text"]])
def test_text_without_a_value_is_wrong_usage(recorder: Recorder, args: list[str]) -> None:
    result = call("train-gpt", *args)
    assert result.exit_code == 2
    assert "'--text' needs at least one value" in result.stderr
    assert recorder.config is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("6_000_000", 6_000_000), ("6M", 6_000_000), ("4.35M", 4_350_000), ("64k", 64_000), ("1e6", 1_000_000),
     ("9007199254740993", 9007199254740993), ("-1", -1)],
)  # fmt: skip
def test_whole_numbers_are_spelled_as_people_do(text: str, value: int) -> None:
    found = number(text, whole=True, optional=False)
    assert found == value
    assert isinstance(found, int)


def test_numbers_that_are_not_whole() -> None:
    assert number("3e-3", whole=False, optional=False) == 3e-3
    assert number("0.5k", whole=False, optional=False) == 500.0
    assert number("none", whole=False, optional=True) is None


@pytest.mark.parametrize("text", ["", "many", "1.5", "6MM", "M", "nan", "inf", "1e400", "none", "0x10", "²"])
def test_what_is_no_whole_number_is_wrong_usage(recorder: Recorder, text: str) -> None:
    result = call("harvest", "--rows", text)
    assert result.exit_code == 2
    assert f"Invalid value for '--rows': {text!r} is not a whole number" in result.stderr
    assert recorder.config is None


def test_wrong_choices_and_unknown_flags_are_wrong_usage(recorder: Recorder) -> None:
    for args in (["--site", "brain"], ["--lyer", "2"], ["--rows", "-5"], ["2"]):
        assert call("harvest", *args).exit_code == 2
        assert recorder.config is None


def test_run_may_not_be_a_file(recorder: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = call("harvest", "--run", str(file))
    assert result.exit_code == 2
    assert "'--run'" in result.stderr
    assert recorder.config is None


def test_the_stages_told_by_the_pipeline_are_those_with_settings() -> None:
    assert list(STAGE_FUNCTIONS) == [stage for stage in STAGES if stage != "browse"], "browse is asked for by itself"
