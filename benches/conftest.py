"""Benchmarks run with `pytest --benchmark-only` and never with the tests."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--benchmark-only") else True
