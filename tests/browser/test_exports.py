"""Files for other programs, beside what SAEDashboard makes of the same folder (tests/peers/make_dashboards.py)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import small_book
from sparsecode.browser.exports import Book, export_neuronpedia, export_saedashboard

GOLDEN = Path(__file__).parents[1] / "fixtures/neuronpedia"


@pytest.fixture
def book(tmp_path: Path) -> Book:
    small_book.write(tmp_path / "browse")
    return Book.open(tmp_path / "browse")


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_a_batch_is_what_saedashboard_writes_after_reading_it(book: Book, tmp_path: Path) -> None:
    (folder,) = export_saedashboard(book, small_book.write(book.folder), tmp_path / "out")
    assert json.loads((folder / "batch-0.json").read_text()) == json.loads((GOLDEN / "batch-0.json").read_text())
    assert json.loads((folder / "skipped_indexes.json").read_text()) == {"skipped_indexes": []}


@pytest.mark.parametrize("kind", ["features", "activations"])
def test_lines_are_those_of_its_own_exporter(book: Book, tmp_path: Path, kind: str) -> None:
    own = small_book.write(book.folder)
    (folder,) = export_neuronpedia(book, own, tmp_path / "out", created="2026-01-31T12:00:00Z")
    ours = lines(gzip.decompress((folder / kind / "batch-0.jsonl.gz").read_bytes()))
    theirs = lines((GOLDEN / f"{kind}.jsonl").read_bytes())
    assert [{key: value for key, value in row.items() if key not in ("id", "createdAt")} for row in ours] == theirs


def test_the_other_files_have_its_keys(book: Book, tmp_path: Path) -> None:
    (folder,) = export_neuronpedia(
        book, small_book.write(book.folder), tmp_path / "out", created="2026-01-31T12:00:00Z"
    )
    for name, keys in json.loads((GOLDEN / "keys.json").read_text()).items():
        assert sorted(lines((folder / f"{name}.jsonl").read_bytes())[0]) == keys


def test_what_is_shown_of_a_feature(book: Book, tmp_path: Path) -> None:
    (folder,) = export_saedashboard(book, small_book.write(book.folder), tmp_path / "out")
    live, dead = json.loads((folder / "batch-0.json").read_text())["features"]
    assert [(one["bin_min"], one["bin_max"], one["bin_contains"]) for one in live["activations"]] == [
        (-1, 2, -1), (-1, 2, -1), (1, 2, 0.25), (0, 1, 0.75),
    ]  # fmt: skip
    first = live["activations"][0]
    assert first["values"] == [0, 2, 0.4] and first["qualifying_token_index"] == 1
    assert first["tokens"] == ["</b>", "\ufffd", "é"], "no zero byte, which Neuronpedia's database cannot hold"
    assert live["frac_nonzero"] == 4 / 1280 and live["correlated_neurons_l1"] == [-0.70711, 0]
    assert dead["activations"] == [] and dead["frac_nonzero"] == 0
