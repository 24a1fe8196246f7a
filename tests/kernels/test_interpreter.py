"""Runs the kernels' and the GPU engine's tests under Triton's interpreter, which needs processes of its own.

To see one test: TRITON_INTERPRET=1 pytest tests/interpreted/kernels.py -k NAME
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: the kernels cannot run here")
TESTS = Path(__file__).parents[1]
# The longest first, so that neither of two processes is left with one at the end.
SUITES = (
    "sweep/test_engines",
    "interpreted/mutants",
    "interpreted/sparse",
    "interpreted/kinds",
    "interpreted/engine",
    "interpreted/kernels",
)
Done = subprocess.CompletedProcess[str]


def run(suite: str) -> Done:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / f"{suite}.py")]
    # One thread: numpy's and torch's pools fight over tiles that are far too small for either.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = os.environ | single | {"TRITON_INTERPRET": "1"}
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Future[Done]]]:
    """All suites, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {suite: pool.submit(run, suite) for suite in SUITES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("suite", SUITES)
def test_under_the_interpreter(suite: str, running: dict[str, Future[Done]]) -> None:
    done = running[suite].result()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
