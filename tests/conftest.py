"""What all tests share: under `--benchmark-only` they are not even imported."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--benchmark-only") else None
