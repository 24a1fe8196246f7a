"""How long a person waits for `sparsecode --help`, beside an interpreter that does nothing. The aim: under 300 ms."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "sparsecode --version": ["-m", "sparsecode", "--version"],
    "sparsecode --help": ["-m", "sparsecode", "--help"],
    "sparsecode train-dicts --help": ["-m", "sparsecode", "train-dicts", "--help"],
}


@pytest.mark.benchmark(group="help, seconds until it is there")
@pytest.mark.parametrize("name", COMMANDS)
def test_help(benchmark: Any, name: str) -> None:
    command = [sys.executable, *COMMANDS[name]]
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), rounds=15, warmup_rounds=2
    )
