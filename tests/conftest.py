"""Settings of all tests; under `--benchmark-only` they are not even imported."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest

# The same examples every day: what a change breaks is what fails. `pytest -m hypothesis --hypothesis-profile=default`
# looks for others.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")

# A shell that runs the tests in background has them ignore Ctrl-C, and with them every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--benchmark-only") else None
