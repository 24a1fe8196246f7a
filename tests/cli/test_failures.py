"""A foreseen failure is one line on stderr and its exit code; anything else keeps its traceback."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparsecode import errors
from sparsecode.cli import main
from sparsecode.errors import SparsecodeError
from sparsecode.pipeline.advice import REMEDIES

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, SparsecodeError)]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def stage(*_: Any, **__: Any) -> None:
        raise error

    stand_in = types.ModuleType("sparsecode.pipeline.harvest")
    stand_in.harvest_activations = stage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparsecode.pipeline.harvest", stand_in)


def call(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_named_error_is_one_line(monkeypatch: pytest.MonkeyPatch, error: type[SparsecodeError]) -> None:
    failing(monkeypatch, error("here: what\n happened; what next"))
    result = call("harvest")
    assert result.exit_code == error.exit_code
    advice = f"; {REMEDIES[error.remedy]}" if error.remedy else ""
    assert result.stderr == f"sparsecode: here: what happened; what next{advice}\n"
    assert result.stdout == ""


def test_exit_codes_are_those_documented() -> None:
    assert errors.InvalidSetting.exit_code == 2
    assert errors.CheckFailed.exit_code == 1
    assert {error.exit_code for error in CLASSES} == {1, 2, 3}
    assert "1 a check failed, 2 wrong usage, 3" in " ".join(call("--help").stdout.split())


def test_debug_shows_the_traceback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errors.RunInvalid("broken"))
    result = call("harvest", "--debug")
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("\nsparsecode: broken\n")


def test_an_unforeseen_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("a bug"))
    result = call("harvest")
    assert isinstance(result.exception, ZeroDivisionError)


def test_interrupted_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    result = call("harvest")
    assert result.exit_code == 130
    assert result.stderr == "sparsecode: interrupted; run the same command again, it resumes\n"


def test_interrupted_with_force_does_not_advise_to_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    result = call("harvest", "--force")
    assert result.exit_code == 130
    assert "run the same command without --force, it resumes" in result.stderr


def test_a_stage_before_is_missing(tmp_path: Path) -> None:
    result = call("harvest", "--run", str(tmp_path), "--layer", "2")
    assert result.exit_code == 3
    assert (
        result.stderr == f"sparsecode: {tmp_path}: train-gpt was not run; run: sparsecode train-gpt --run {tmp_path}\n"
    )


def test_the_command_to_run_can_be_pasted(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    told = call("harvest", "--run", str(run)).stderr
    assert told.endswith(f"; run: sparsecode train-gpt --run '{run}'\n")


@pytest.mark.parametrize(
    "stages",
    [[], {"train-gpt": 5}, {"train-gpt": {}}, {"train-gpt": {"status": "done", "settings": {}}},
     {"train-gpt": {"status": "running", "settings": None}}],
)  # fmt: skip
def test_a_run_whose_record_is_broken(tmp_path: Path, stages: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "stages": stages}))
    for command in (["info", str(tmp_path)], ["harvest", "--run", str(tmp_path)]):
        result = call(*command)
        assert result.exit_code == 3
        assert "not a run's record" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    plain = Path.iterdir

    def refused(folder: Path) -> Any:  # as the system does it for all but root
        if folder == locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return plain(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    for command in (["info"], ["compare", str(locked)], ["convert", "--to", "saelens", str(tmp_path / "out")]):
        result = call(*command[:1], str(tmp_path), *command[1:])
        assert result.exit_code == 3
        assert result.stderr == f"sparsecode: {locked}: Permission denied; ask its owner, or name another place\n"


@pytest.mark.parametrize("name", ["a" * 300, "file/below", "loop"])
def test_what_the_system_says_of_a_path_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for command in ("info", "verify", "convert"):
        more = ["--to", "saelens", str(tmp_path / "out")] if command == "convert" else []
        result = call(command, str(tmp_path / name), *more)
        assert result.exit_code == 3
        assert result.stderr.startswith("sparsecode: ")
        assert result.stderr.count("\n") == 1


def test_a_name_that_cannot_be_printed_is_told_as_well_as_it_can_be(tmp_path: Path) -> None:
    script = "import sys; from sparsecode.cli import main; main(['info', sys.argv[1]], prog_name='sparsecode')"
    folder = os.fsencode(tmp_path) + b"/\xff\xc3\xa9"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder), "config.json").write_text('{"format": 1, "stages": {}}')
    for encoding in ("utf-8", "ascii"):
        told = subprocess.run(
            [sys.executable, "-c", script, folder], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
        )
        assert (told.returncode, told.stderr) == (0, b"")
        escaped = b"\\udcff" if encoding == "utf-8" else b""  # click has a way of its own where there is ASCII alone
        assert told.stdout.startswith(b"run " + os.fsencode(tmp_path) + b"/" + escaped)


def test_a_run_of_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": 99, "stages": {}}')
    result = call("info", str(tmp_path))
    assert result.exit_code == 3
    assert "run format 99" in result.stderr
    (tmp_path / "config.json").write_text("{")
    assert call("info", str(tmp_path)).exit_code == 3


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_real_interrupt_is_one_line_and_130(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "import types\n"
        "stand_in = types.ModuleType('sparsecode.pipeline.harvest')\n"
        "def harvest_activations(*a, **k):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(300)\n"
        "stand_in.harvest_activations = harvest_activations\n"
        "sys.modules['sparsecode.pipeline.harvest'] = stand_in\n"
        "from sparsecode.cli import main\n"
        "main(['harvest'], prog_name='sparsecode')\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert told == "sparsecode: interrupted; run the same command again, it resumes\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("args", [["train-gpt", "--help"], ["info", "RUN", "--json"]])
def test_a_reader_that_left_is_no_error(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "config.json").write_text('{"format": 1, "stages": {}}')
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "sparsecode", *(str(tmp_path) if arg == "RUN" else arg for arg in args)],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 141
    assert done.stderr == ""
