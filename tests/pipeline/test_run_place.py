"""Paths that `--run` may and may not name: one clear line each, from every command and from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparsecode import Run, compare_dicts, replicate, train_dicts, write_report
from sparsecode.cli import COMMANDS, main
from sparsecode.errors import InvalidSetting, IoFailed, RunInvalid
from sparsecode.pipeline.config import CompareConfig
from sparsecode.pipeline.opening import open_stage

TAKE_A_RUN = [name for name in COMMANDS if name not in ("convert", "merge", "stitch")]
FUNCTIONS = [replicate, train_dicts, compare_dicts, write_report]


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def place(kind: str, folder: Path) -> Path:
    """A path that no run can have."""
    path = folder / "run"
    if kind == "dangling":
        path.symlink_to(folder / "gone")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        path.write_text("")
        return path / "run"
    elif kind == "too long":
        return folder / ("x" * 300)
    elif kind == "link to a file":
        (folder / "file").write_text("")
        path.symlink_to(folder / "file")
    else:
        path.write_text("")
    return path


@pytest.mark.parametrize("command", TAKE_A_RUN)
def test_an_empty_path_is_not_the_folder_one_is_in(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(command, "--run", "")
    assert result.exit_code == 2
    assert "Invalid value for '--run': an empty path; leave it out, or name a folder" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", TAKE_A_RUN)
@pytest.mark.parametrize("kind", ["dangling", "loop", "below a file", "too long"])
def test_a_path_that_no_run_can_have_is_one_line(command: str, kind: str, tmp_path: Path) -> None:
    path = place(kind, tmp_path)
    before = sorted(tmp_path.iterdir())
    result = call(command, "--run", path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1), result.output
    assert str(path) in result.stderr
    assert "choose another run with --run" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", TAKE_A_RUN)
@pytest.mark.parametrize("kind", ["file", "link to a file"])
def test_a_file_is_wrong_usage(command: str, kind: str, tmp_path: Path) -> None:
    result = call(command, "--run", place(kind, tmp_path))
    assert result.exit_code == 2
    assert "is a file" in result.stderr


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["dangling", "loop", "below a file", "too long", "file", "link to a file"])
def test_the_same_from_python(function: Any, kind: str, tmp_path: Path) -> None:
    with pytest.raises(RunInvalid, match="choose another run"):
        function(place(kind, tmp_path))
    with pytest.raises(InvalidSetting, match="path given is empty"):
        function("")
    with pytest.raises(RunInvalid, match="null byte"):
        function("a\0b")


def test_the_folder_one_is_in_is_a_run_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_stage(Run("."), "compare", CompareConfig()) as stage:
        stage.finish({})
    assert Run(".").is_done("compare")
    assert Run(tmp_path).is_done("compare")


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with open_stage(Run(tmp_path / "link"), "compare", CompareConfig()) as stage:
        stage.finish({})
    assert Run(tmp_path / "real").is_done("compare")


class _Refusing:
    """The lock of a folder that cannot be written to."""

    def __init__(self, path: Path) -> None:
        raise IoFailed(f"{path}: Read-only file system (os error 30)")


def test_a_run_that_cannot_be_written_to_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    with open_stage(run, "compare", CompareConfig(), inputs={"a": "b"}) as stage:
        stage.finish({"found": 1})
    monkeypatch.setattr("sparsecode._core.FileLock", _Refusing)
    with open_stage(run, "compare", CompareConfig(), inputs={"a": "b"}) as stage:
        assert stage.done
        assert stage.result == {"found": 1}
    told = "this folder cannot be written to .*Read-only file system.*; choose another run with --run"
    for force in (True, False):
        with (
            pytest.raises(IoFailed, match=told),
            open_stage(run, "compare" if force else "claims", CompareConfig(), inputs={"a": "b"}, force=force),
        ):
            raise AssertionError("it was opened")
    result = call("toy", "--run", tmp_path, "--dim", "8", "--true-features", "16", "--active", "2")
    assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1), result.output
