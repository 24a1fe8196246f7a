"""Runs the kernels' tests under Triton's interpreter, which needs a process of its own.

To see one test: TRITON_INTERPRET=1 pytest tests/interpreted_kernels.py -k NAME
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: the kernels cannot run here")
HERE = Path(__file__).parent


@pytest.mark.parametrize("suite", ["kernels", "engine", "mutants"])
def test_under_the_interpreter(suite: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"interpreted_{suite}.py")]
    # One thread: numpy's and torch's pools fight over tiles that are far too small for either.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=HERE.parent, env=os.environ | single | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
