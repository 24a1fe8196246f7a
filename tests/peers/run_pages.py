"""Runs every block of the docs/coming-from-*.md pages, in order, as a reader would: part of `make interop`.

    python tests/peers/run_pages.py FOLDER --libraries saelens=PYTHON dictionary_learning=PYTHON sparsify=PYTHON

Runs in the environment of sparsecode. A Python block that begins with "# with LIBRARY" runs in that library's.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the page's blocks that run."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path, python: str, folder: Path) -> list[list[str]]:
    """What to run for each block; blocks of Python are written to files in `folder`."""
    found = []
    for number, (language, text) in enumerate(blocks(page)):
        if language == "sh":
            found += [[sys.executable, "-m", *shlex.split(line)] for line in text.splitlines()]
            continue
        script = folder / f"block{number}.py"
        script.write_text(text)
        found.append([python if text.startswith("# with ") else sys.executable, "-W", "ignore", script.name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--libraries", nargs="+", required=True)
    arguments = parser.parse_args()
    failed = []
    for entry in arguments.libraries:
        library, python = entry.split("=")
        page = DOCS / f"coming-from-{library}.md"
        folder = arguments.folder / library
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment = os.environ | {"SPARSIFY_DISABLE_TRITON": "1", "WANDB_MODE": "disabled"}
        if "/" in python:
            python = str(Path(python).absolute())  # not resolved: a virtual environment's python is a link
        for command in commands(page, python, folder):
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            shown = " ".join(command[1:])
            print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {library}: {shown}", flush=True)
            print("".join(f"         {line}\n" for line in done.stdout.splitlines()[-6:]), end="")
            if done.returncode:
                print(done.stderr[-3000:])
                failed.append(f"{library}: {shown}")
                break
    if failed:
        sys.exit("pages: " + "; ".join(failed))


if __name__ == "__main__":
    main()
