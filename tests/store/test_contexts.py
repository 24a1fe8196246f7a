"""Which rows belong to one context: numbered, of a fixed length, merged, resumed, or not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecode.errors import ContextsUnknown, InvalidArgument, SettingsDiffer, ShardCorrupt
from sparsecode.store import Dataset, DatasetWriter, merge_datasets
from sparsecode.store.contexts import RowContexts

D = 3
ROW = D * 2 + 8


def write(path: Path, numbers: list[int], *, shard_rows: int = 7, batch: int = 5, **options: Any) -> Dataset:
    given = {"contexts": True, "provenance": {}, "durable": False, "shard_bytes": shard_rows * ROW} | options
    with DatasetWriter(path, activation_dim=D, dtype="float16", **given) as writer:  # type: ignore[arg-type]
        for start in range(writer.rows, len(numbers), batch):
            own = np.array(numbers[start : start + batch])
            contexts = own if given["contexts"] else None
            writer.append(torch.full((len(own), D), 0.5), np.arange(start, start + len(own)), contexts)
        return writer.finish()


def spans(numbers: list[int]) -> list[list[int]]:
    """(number, first row, row after the last), found by reading every row."""
    found: list[list[int]] = []
    for row, number in enumerate(numbers):
        if not found or found[-1][0] != number:
            found.append([number, row, row])
        found[-1][2] = row + 1
    return found


def test_numbered_contexts_come_back_whatever_the_shards_and_batches(tmp_path: Path) -> None:
    numbers = [0] * 3 + [1] + [4] * 20 + [5] * 2 + [9]
    dataset = write(tmp_path / "a", numbers)
    assert dataset.contexts_known and dataset.contexts_stored and len(dataset.shards) == 4
    assert dataset.context_of(np.arange(27)).tolist() == numbers
    assert dataset.context_of([26, 0, 3, 3]).tolist() == [9, 0, 1, 1]
    assert dataset.context_of([]).tolist() == []
    for number, first, behind in spans(numbers):
        assert all(dataset.context_bounds(row) == (first, behind) for row in range(first, behind)), number
    assert np.concatenate(list(dataset.contexts())).tolist() == spans(numbers)
    assert torch.unique(dataset.read(0, 27)).tolist() == [0.5] and dataset.tokens(0, 27).tolist() == list(range(27))
    other = write(tmp_path / "b", numbers, batch=1)
    assert other.fingerprint == dataset.fingerprint
    for wrong in ([27], [-1], [[0]]):
        with pytest.raises(InvalidArgument, match="context_of takes a list of rows"):
            dataset.context_of(wrong)
    pread = Dataset(tmp_path / "a", access="pread")
    assert pread.context_of(np.arange(27)).tolist() == numbers and pread.verify() == []


class InMemory:
    has_contexts = True

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = np.array(numbers, np.int32)

    def contexts_into(self, rows: Any, out: Any) -> None:
        out.view(np.int32)[:] = self.numbers[rows.view(np.int64)]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 700), min_size=1, max_size=6), at_once=st.integers(1, 900))
def test_bounds_and_pieces_equal_looking_at_every_row(lengths: list[int], at_once: int) -> None:
    numbers = [2 * number for number, length in enumerate(lengths) for _ in range(length)]
    found = RowContexts("here", cast(Any, InMemory(numbers)), len(numbers), None)
    assert np.concatenate(list(found.each(at_once))).tolist() == spans(numbers)
    for row in {0, len(numbers) - 1, len(numbers) // 2, lengths[0] - 1, min(lengths[0], len(numbers) - 1)}:
        _, first, behind = next(span for span in spans(numbers) if span[1] <= row < span[2])
        assert found.bounds(row) == (first, behind)


def test_contexts_of_one_length_follow_from_the_provenance(tmp_path: Path) -> None:
    dataset = write(tmp_path, [0] * 11, contexts=False, provenance={"context": 4})
    assert dataset.contexts_known and not dataset.contexts_stored
    assert dataset.context_of([0, 3, 4, 10]).tolist() == [0, 0, 1, 2]
    assert [dataset.context_bounds(row) for row in (2, 7, 8)] == [(0, 4), (4, 8), (8, 11)]
    assert np.concatenate(list(dataset.contexts())).tolist() == [[0, 0, 4], [1, 4, 8], [2, 8, 11]]
    manifest = (tmp_path / "manifest.json").read_text()
    assert '"format": 1' in manifest and "left_out" not in manifest  # what earlier versions read


@pytest.mark.parametrize(
    "provenance", [{}, {"context": 11, "context_tokens": 4}, {"context": None}, {"context": True}, {"context": 0}]
)
def test_a_dataset_that_does_not_say_is_not_guessed_at(tmp_path: Path, provenance: dict[str, Any]) -> None:
    """The second is what harvests wrote where contexts gave different numbers of rows: the number of all of them."""
    dataset = write(tmp_path, [0] * 11, contexts=False, provenance=provenance)
    assert not dataset.contexts_known
    for call in (lambda: dataset.context_of([1]), lambda: dataset.context_bounds(1), lambda: list(dataset.contexts())):
        with pytest.raises(ContextsUnknown, match="does not say which rows belong to one context"):
            call()


def test_dropped_rows_take_their_numbers_with_them(tmp_path: Path) -> None:
    x = torch.zeros(9, D)
    x[4, 1] = torch.nan
    for name, contexts in (("fixed", None), ("numbered", np.arange(9) // 3)):
        with DatasetWriter(
            tmp_path / name, activation_dim=D, dtype="float16", provenance={"context": 3}, non_finite="drop",
            contexts=contexts is not None,
        ) as writer:  # fmt: skip
            writer.append(x, np.arange(9), contexts)
            writer.finish()
    assert not Dataset(tmp_path / "fixed").contexts_known  # row r is no longer row r of the text
    assert Dataset(tmp_path / "numbered").context_of(np.arange(8)).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_killed_writer_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    numbers = sorted(np.random.default_rng(0).integers(0, 12, 60).tolist())
    whole = write(tmp_path / "whole", numbers)
    options: dict[str, Any] = {"activation_dim": D, "dtype": "float16", "provenance": {}, "shard_bytes": 7 * ROW}
    with DatasetWriter(tmp_path / "cut", contexts=True, durable=False, **options) as writer:
        writer.append(torch.full((25, D), 0.5), np.arange(25), np.array(numbers[:25]))
    again = write(tmp_path / "cut", numbers)
    assert again.fingerprint == whole.fingerprint
    for file in sorted(tmp_path.glob("whole/*")):
        assert file.read_bytes() == (tmp_path / "cut" / file.name).read_bytes()
    with pytest.raises(SettingsDiffer, match="numbers of contexts true, not false"):
        DatasetWriter(tmp_path / "cut", **options)


def test_a_changed_number_is_corruption(tmp_path: Path) -> None:
    dataset = write(tmp_path, [0] * 5 + [1] * 5)
    shard = tmp_path / dataset.shards[0].file
    content = bytearray(shard.read_bytes())
    content[-4] ^= 1  # of the last row's number
    shard.write_bytes(content)
    with pytest.raises(ShardCorrupt):
        Dataset(tmp_path).context_of([0])


def test_what_append_is_given_must_fit(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "n", activation_dim=D, dtype="float16", provenance={}, contexts=True) as writer:
        for wrong in (np.array([1, 0]), np.array([-1, 0]), np.array([0]), np.array([0.0, 1.0]), np.array([0, 2**31])):
            with pytest.raises(InvalidArgument, match="contexts"):
                writer.append(torch.zeros(2, D), np.arange(2), wrong)
        with pytest.raises(InvalidArgument, match="append was given no numbers"):
            writer.append(torch.zeros(2, D), np.arange(2))
    with (
        DatasetWriter(tmp_path / "p", activation_dim=D, dtype="float16", provenance={}) as writer,
        pytest.raises(InvalidArgument, match="opened without contexts=True"),
    ):
        writer.append(torch.zeros(2, D), np.arange(2), np.arange(2))


def test_merging_keeps_sources_apart(tmp_path: Path) -> None:
    write(tmp_path / "a", [0, 0, 1, 5])
    write(tmp_path / "b", [0, 1, 1])
    merged = merge_datasets(tmp_path / "ab", [tmp_path / "a", tmp_path / "b"])
    assert merged.context_of(np.arange(7)).tolist() == [0, 0, 1, 5, 6, 7, 7]
    # Of a fixed length: a source that ends within a context moves all that comes after it.
    for name, rows in (("c", 8), ("d", 6)):
        write(tmp_path / name, [0] * rows, contexts=False, provenance={"context": 4})
    whole = merge_datasets(tmp_path / "cd", [tmp_path / "c", tmp_path / "d"])
    assert not whole.contexts_stored and whole.context_of(np.arange(14)).tolist() == [r // 4 for r in range(14)]
    cut = merge_datasets(tmp_path / "dc", [tmp_path / "d", tmp_path / "c"])
    assert cut.contexts_stored
    assert cut.context_of(np.arange(14)).tolist() == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 4


def test_merging_adds_up_what_was_left_out(tmp_path: Path) -> None:
    for name, counts in (("a", {"padding": 3, "special": 0}), ("b", {"padding": 1, "unknown": 2})):
        with DatasetWriter(tmp_path / name, activation_dim=D, dtype="float16", provenance={"context": 2}) as writer:
            writer.append(torch.zeros(4, D), np.arange(4))
            writer.note_left_out({"special": 99})  # what was noted before is forgotten
            writer.note_left_out(counts)
            assert writer.finish().left_out == {name: count for name, count in counts.items() if count}
    merged = merge_datasets(tmp_path / "c", [tmp_path / "a", tmp_path / "b"])
    assert merged.left_out == {"padding": 4, "unknown": 2} and merged.rows == 8
