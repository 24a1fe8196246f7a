"""Commands are loaded only when they are called, which keeps `--help` fast."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sparsecode import cli
from sparsecode.cli import COMMANDS, main

HEAVY = {"torch", "numpy", "scipy", "sklearn", "plotly", "jinja2", "tokenizers", "safetensors", "triton"}
# Modules of the command line that are no command.
PARTS = {"__init__", "lazy", "failures", "options", "output", "describe", "reference"}


def loaded_by(*args: str) -> set[str]:
    """Top-level modules in a fresh interpreter after the command line has run with `args`."""
    script = (
        "import json, sys\n"
        "from sparsecode.cli import main\n"
        "try:\n    main(json.loads(sys.argv[1]), prog_name='sparsecode')\n"
        "except SystemExit as ended:\n    assert not ended.code, ended.code\n"
        "print('MODULES ' + json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(args)], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.rpartition("MODULES ")[2]))


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["train-dicts", "--help"], ["replicate", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    loaded = loaded_by(*args)
    assert not HEAVY & loaded
    assert "sparsecode._core" not in loaded


# What the standard library has for other things: together half of what `import click` takes, or more.
IDLE = {"importlib.metadata", "importlib.resources", "email", "zipfile", "csv", "ctypes", "platform",
        "tempfile", "subprocess", "multiprocessing", "concurrent.futures", "asyncio", "difflib"}  # fmt: skip


@pytest.mark.parametrize("args", [["--help"], ["train-dicts", "--help"], ["harvest", "--help"]])
def test_help_loads_nothing_idle(args: list[str]) -> None:
    script = "import click, json, sys\nprint(json.dumps(sorted(sys.modules)))"
    click_alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = loaded_by(*args) - set(json.loads(click_alone.stdout))
    assert not IDLE & loaded
    if args == ["--help"]:
        assert not {"sparsecode.pipeline.run", "sparsecode.pipeline.config", "sparsecode.machine"} & loaded


def test_help_of_all_commands_loads_no_command() -> None:
    loaded = loaded_by("--help")
    assert not {f"sparsecode.cli.{name.replace('-', '_')}" for name in COMMANDS} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_needs_torch_for_its_help(name: str) -> None:
    # In this process torch may be loaded by other tests: what the command's file itself imports is what counts.
    source = importlib.import_module(f"sparsecode.cli.{name.replace('-', '_')}")
    assert not HEAVY & set(vars(source))
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name} ")


def test_every_file_is_listed_and_every_listed_command_has_a_file() -> None:
    files = {file.stem for file in Path(cli.__file__).parent.glob("*.py")}
    assert files - PARTS == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_listed_help_is_the_commands_own(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name]


def test_help_lists_the_commands_in_the_order_of_the_pipeline() -> None:
    shown = CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in shown.splitlines()[1:] if line.startswith("  ")][: len(COMMANDS)] == list(
        COMMANDS
    )


def test_version() -> None:
    import sparsecode

    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"sparsecode {sparsecode.__version__}\n")


@pytest.mark.parametrize(
    ("typed", "meant"), [("hravest", "harvest"), ("train_dicts", "train-dicts"), ("compere", "compare")]
)
def test_an_unknown_command_suggests_a_near_one(typed: str, meant: str) -> None:
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2
    assert f"no such command '{typed}'; did you mean '{meant}'?" in result.stderr


def test_an_unknown_command_far_from_all_lists_them() -> None:
    result = CliRunner().invoke(main, ["xyzzy"])
    assert result.exit_code == 2
    assert f"commands: {', '.join(COMMANDS)}" in result.stderr


def test_no_command_shows_help_and_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_python_m_is_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "sparsecode", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: sparsecode ")
