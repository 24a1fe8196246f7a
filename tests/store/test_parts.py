"""Datasets written in parts: the bytes of one writer, however many parts there are and in whichever order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsecode.errors import DatasetComplete, InvalidArgument, RunLocked, SettingsDiffer
from sparsecode.store import Dataset
from sparsecode.store.parts import PartWriter
from store_trials import ROWS, SETTINGS, rows, write_all

BATCH = 64


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "data"
    write_all(folder)
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(folder: Path, part: tuple[int, int], *, batches: int | None = None, **changes: Any) -> Dataset | None:
    """Makes a part, or leaves it after so many batches."""
    with PartWriter(folder, part=part, **({"rows": ROWS} | SETTINGS | changes)) as writer:
        for number, start in enumerate(range(0, ROWS, BATCH)):
            if number == batches:
                return None
            for first, stop in writer.wanted(start, min(start + BATCH, ROWS)):
                writer.append(first, rows(first, stop), torch.arange(first, stop).numpy())
        return writer.finish({})


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_in_any_order_are_the_files_of_one_writer(tmp_path: Path, whole: dict[str, bytes], count: int) -> None:
    choose = random.Random(count)
    order = choose.sample(range(count), count)
    for part in order:
        for _ in range(3):
            assert make(tmp_path, (part, count), batches=choose.randrange(ROWS // BATCH)) is None
    found = [make(tmp_path, (part, count)) for part in order]
    assert found[-1] is not None and (count > 3 or found[:-1] == [None] * (count - 1))
    assert files(tmp_path) == whole


@pytest.mark.parametrize("parts_first", [True, False])
def test_one_writer_and_parts_go_on_from_each_other(tmp_path: Path, whole: dict[str, bytes], parts_first: bool) -> None:
    if parts_first:
        make(tmp_path, (1, 3))
        make(tmp_path, (0, 1))
    else:
        make(tmp_path, (0, 1), batches=30)
        assert [make(tmp_path, (part, 2)) is None for part in (1, 0)] == [True, False]
    assert files(tmp_path) == whole


def test_rows_that_are_not_known_before(tmp_path: Path, whole: dict[str, bytes]) -> None:
    make(tmp_path, (0, 1), batches=20, rows=None)
    make(tmp_path, (0, 1), rows=None)
    assert files(tmp_path) == whole
    with PartWriter(tmp_path, rows=None, **SETTINGS) as writer, pytest.raises(DatasetComplete):
        list(writer.wanted(ROWS, ROWS + 1))


def test_what_is_refused(tmp_path: Path) -> None:
    make(tmp_path, (0, 2))
    before = files(tmp_path)
    with pytest.raises(SettingsDiffer):
        make(tmp_path, (1, 2), shard_rows=77)
    for part in ((2, 2), (-1, 2)):
        with pytest.raises(InvalidArgument):
            make(tmp_path, part)
    with pytest.raises(InvalidArgument):
        make(tmp_path, (0, 2), rows=None)
    assert files(tmp_path) == before
    with PartWriter(tmp_path, part=(1, 2), rows=ROWS, **SETTINGS) as writer:
        first, stop = next(writer.wanted(0, ROWS))
        writer.append(first, rows(first, stop - 1), torch.arange(first, stop - 1).numpy())
        with pytest.raises(RunLocked):
            make(tmp_path, (1, 2))


def test_a_last_shard_of_fewer_rows_is_made_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with PartWriter(tmp_path, part=(1, 2), rows=ROWS - 100, **SETTINGS) as writer:
        for first, stop in writer.wanted(0, ROWS - 100):
            writer.append(first, rows(first, stop), torch.arange(first, stop).numpy())
    assert [make(tmp_path, (part, 2)) is None for part in (1, 0)] == [True, False]
    assert files(tmp_path) == whole


def test_the_manifest_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    with PartWriter(tmp_path, rows=200, **(SETTINGS | {"shard_rows": 1})) as writer:
        for row in range(200):
            writer.append(row, rows(row, row + 1), torch.tensor([row]).numpy())
            size = (tmp_path / "manifest.json").stat().st_size
            if not written or written[-1] != size:
                written.append(size)
        writer.finish({})
    last = (tmp_path / "manifest.json").stat().st_size
    assert sum(written) + last <= 3 * last
    assert len(files(tmp_path)) == 201
