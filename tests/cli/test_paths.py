"""Paths without a name: every command refuses an empty one, and a dot means the current folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from sparsecode.cli import COMMANDS, main
from sparsecode.comparison import write_matches
from sparsecode.errors import DictionaryInvalid, InvalidArgument, InvalidSetting
from sparsecode.harvest import harvest_module
from sparsecode.pipeline.config import TrainDictsConfig, TrainGptConfig
from sparsecode.sweep import Dictionary


def paths() -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of every command that is a path."""
    group = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(group, name)
        assert command is not None
        yield from ((name, one) for one in command.params if isinstance(one.type, click.Path))


PATHS = list(paths())


def test_there_are_paths_to_try() -> None:
    assert {name for name, _ in PATHS} >= set(COMMANDS) - {"convert", "doctor"}


@pytest.mark.parametrize(("name", "parameter"), PATHS, ids=lambda value: getattr(value, "name", value))
def test_an_empty_path_is_refused_and_nothing_is_written(
    name: str, parameter: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [parameter.opts[0], ""] if isinstance(parameter, click.Option) else [""] * max(2, parameter.nargs)
    result = CliRunner().invoke(main, [name, *given])
    assert result.exit_code == 2
    assert "an empty path" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", [{"tokenizer": ""}, {"hf_dataset": ""}, {"text": ("",)}])
def test_a_setting_that_is_empty_is_refused(setting: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match="empty"):
        TrainGptConfig().changed(**setting)
    with pytest.raises(InvalidSetting, match="train-dicts: --dataset is empty"):
        TrainDictsConfig().changed(dataset="")


def test_a_dictionary_is_not_looked_for_in_a_path_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eye = torch.eye(3, 2) + 0.5
    (tmp_path / "inside").mkdir()
    Dictionary(eye, torch.zeros(3), eye).save(tmp_path / "inside")
    monkeypatch.chdir(tmp_path / "inside")
    for path in (".", "", "../inside"):
        assert Dictionary.load(path).dict_size == 3, "the files beside the folder have its name"
    with pytest.raises(DictionaryInvalid, match="the root of all folders"):
        Dictionary.load("/")
    with pytest.raises(DictionaryInvalid, match="no such file"):
        Dictionary.load("..")


def test_matches_and_modules_are_not_written_to_a_path_without_a_name() -> None:
    for path in (".", "", "/"):
        with pytest.raises(InvalidSetting, match=r"as \.csv or \.safetensors"):
            write_matches(None, Path(path))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="folder of a module is empty"):
        harvest_module(nn.Linear(2, 2), [torch.ones(1, 2)], {"": ""})
