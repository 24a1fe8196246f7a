"""Every command and every snippet of the README runs, in order, as a reader would type them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# make installs and tests this very tree: `make test` is what runs this file, and CI runs the other targets.
# sourcing a virtual environment is what the PATH below does.
ELSEWHERE = ("make ", "source ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "README.md", folder)
    return folder


def environment() -> dict[str, str]:
    # The reader's preset is `default`, minutes long; the same commands with the smoke preset take seconds.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SPARSECODE_PRESET": "smoke"}


@pytest.mark.slow
def test_commands_run_in_order(place: Path) -> None:
    assert len(commands()) >= 10
    for command in commands():
        done = subprocess.run(
            shlex.split(command),
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (place / "sparsecode-run/report.html").exists()
    assert (place / "smoke-run/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_snippets_run(place: Path, number: int) -> None:
    script = place / f"snippet{number}.py"
    script.write_text(blocks("python")[number])
    done = subprocess.run(
        [sys.executable, script],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr


def test_every_target_is_one_that_make_knows() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"demo", "test"} <= named <= targets


def test_every_link_leads_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name}: {target}"
