"""The CSV files of benchmarks."""

from __future__ import annotations

import csv
from pathlib import Path

from benches.rows import write_rows

from sparsecode.machine import describe


def test_every_row_has_the_machine_and_the_context_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "results" / "readers.csv"
    write_rows(path, [{"reader": "a, b", "ms": 1.5}, {"reader": "c", "ms": 2}], rows=4096)
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["reader"], first["ms"], second["reader"], second["ms"]) == ("a, b", "1.5", "c", "2")
    assert first["rows"] == second["rows"] == "4096"
    assert {key: first[key] for key in describe()} == {key: str(value) for key, value in describe().items()}


def test_rows_replace_those_of_the_run_before(tmp_path: Path) -> None:
    path = tmp_path / "readers.csv"
    write_rows(path, [{"reader": "a"}, {"reader": "b"}])
    write_rows(path, [{"reader": "c"}])
    with path.open(newline="") as file:
        assert [row["reader"] for row in csv.DictReader(file)] == ["c"]
