"""Benchmarks run with `pytest --benchmark-only` and never with the tests.

Every module that ran leaves its rows in `benches/results`: bench_store.py in store.csv.
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from benches.rows import write_rows

RESULTS = Path(__file__).parent / "results"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if config.getoption("--benchmark-only") else True


def pytest_sessionfinish(session: pytest.Session) -> None:
    def module(row: Any) -> str:
        return Path(row.fullname.split("::")[0]).stem.removeprefix("bench_")

    benchmarks: Any = getattr(session.config, "_benchmarksession", None)
    measured = [row for row in benchmarks.benchmarks if not row.has_error] if benchmarks else []
    for name, rows in groupby(sorted(measured, key=module), key=module):
        write_rows(RESULTS / f"{name}.csv", table(list(rows)))


def table(measured: list[Any]) -> list[dict[str, Any]]:
    """Seconds, and times the fastest of the group, which `other` may better by a ratio of pairs."""
    fastest: dict[str, float] = {}
    for row in measured:
        fastest[row.group] = min(fastest.get(row.group, float("inf")), row.stats.median)
    return [
        {
            "group": row.group,
            "benchmark": row.name,
            "median_s": f"{row.stats.median:.4g}",
            "min_s": f"{row.stats.min:.4g}",
            "rounds": row.stats.rounds,
            "times_fastest": round(row.stats.median / fastest[row.group], 2),
            "other": json.dumps(row.extra_info) if row.extra_info else "",
        }
        for row in measured
    ]
