"""Tokens on disk: the text comes back, the split stays put, work is reused, nothing half-written is ever visible."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecode.corpus import TextSettings, Tokens, load_tokens, prepare, prepare_tokens, survey
from sparsecode.corpus.readers import SEPARATOR
from sparsecode.corpus.survey import choose
from sparsecode.corpus.tokenizer import train_tokenizer
from sparsecode.errors import CorpusEmpty, CorpusUnreadable, InvalidSetting, RunInvalid, StageMissing
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import TrainGptConfig
from sparsecode.pipeline.model_text import tokens_of
from sparsecode.pipeline.progress import Console
from sparsecode.pipeline.run import Run


def stories(count: int) -> list[str]:
    return [
        f"Story {number}: {'once upon a time ' * (number % 7 + 1)}é {number * number}.\n" for number in range(count)
    ]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(SEPARATOR.join(stories(60)))
    return path


def prepared(run: Path, *text: Path, **settings: Any) -> Tokens:
    settings = {"vocab_size": 300, "val_fraction": 0.2} | settings
    return prepare_tokens(run, TextSettings(text=tuple(map(str, text)), **settings))


def split(tokens: Tokens) -> tuple[list[str], list[str]]:
    """Documents of both sides, decoded."""
    sides = []
    for side in (tokens.train, tokens.val):
        assert side[-1] == tokens.eot
        sides.append([tokens.decode(ids[:-1]) for ids in np.split(side, np.flatnonzero(side == tokens.eot) + 1)[:-1]])
    return sides[0], sides[1]


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_every_document_is_on_one_side_and_comes_back(tmp_path: Path, text: Path) -> None:
    tokens = prepared(tmp_path / "run", text)
    train, val = split(tokens)
    assert sorted(train + val) == sorted(stories(60))
    assert 3 <= len(val) <= 25
    assert tokens.val_bytes == sum(len(story.encode()) for story in val)
    assert (tokens.corpus["documents"], tokens.corpus["val_documents"]) == (60, len(val))
    assert tokens.corpus["bytes"] == sum(len(story.encode()) for story in stories(60))
    assert tokens.train.dtype == np.uint16
    assert tokens.vocab_size == 300 > tokens.train.max()
    assert files(tmp_path / "run").keys() == {
        "tokenizer.json",
        "tokens/train.bin",
        "tokens/val.bin",
        "tokens/tokens.json",
    }


def test_same_text_gives_the_same_bytes_anywhere(tmp_path: Path, text: Path) -> None:
    prepared(tmp_path / "a", text)
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    shutil.copy(text, elsewhere)
    prepared(tmp_path / "b", elsewhere / text.name)
    ours, theirs = files(tmp_path / "a"), files(tmp_path / "b")
    ours_json, theirs_json = (json.loads(found.pop("tokens/tokens.json")) for found in (ours, theirs))
    assert ours == theirs
    assert ours_json["fingerprint"] == theirs_json["fingerprint"]
    assert ours_json["corpus"]["fingerprint"] == theirs_json["corpus"]["fingerprint"]


def test_more_documents_move_no_other(tmp_path: Path, text: Path) -> None:
    train, val = split(prepared(tmp_path / "a", text))
    text.write_text(SEPARATOR.join(["A new one.", *stories(90)]))
    more_train, more_val = split(prepared(tmp_path / "b", text))
    assert set(train) <= set(more_train)
    assert set(val) <= set(more_val)


def test_equal_documents_are_on_the_same_side(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text(SEPARATOR.join(stories(30) * 2))
    train, val = split(prepared(tmp_path / "run", path))
    assert not set(train) & set(val)


@pytest.mark.parametrize("fraction", [0.000001, 0.999999])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_both_sides_have_a_document(tmp_path: Path, count: int, fraction: float) -> None:
    path = tmp_path / "few.txt"
    path.write_text(SEPARATOR.join(stories(count)))
    train, val = split(prepared(tmp_path / "run", path, val_fraction=fraction))
    assert min(len(train), len(val)) == 1
    assert len(train) + len(val) == count


def test_a_single_document_is_split_by_its_tail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.md"
    path.write_text("".join(stories(50)))
    config = TrainGptConfig(text=(str(path),), vocab_size=300, val_fraction=0.1)
    tokens = prepare_tokens(tmp_path / "run", config.part(TextSettings), watch=Console())
    (train,), (val,) = split(tokens)
    assert train + val == "".join(stories(50))
    assert len(val) / len(train + val) == pytest.approx(0.1, abs=0.01)
    assert tokens.corpus["split"] == "tail of the only document"
    assert "its tail is the validation text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sides"), [("ab", ("a", "b")), ("é€", ("é", "€")), ("éa", ("é", "a")), ("€", None)]
)
def test_tiny_text(tmp_path: Path, content: str, sides: tuple[str, str] | None) -> None:
    path = tmp_path / "tiny.txt"
    path.write_text(content)
    if sides is None:
        with pytest.raises(CorpusEmpty, match="too little text"):
            prepared(tmp_path / "run", path)
        assert files(tmp_path / "run") == {}
    else:
        assert split(prepared(tmp_path / "run", path)) == ([sides[0]], [sides[1]])


def test_max_text_takes_documents_from_everywhere(tmp_path: Path) -> None:
    big = [f"Document {number:04d}. " + "é word " * 4000 for number in range(60)]
    path = tmp_path / "big.txt"
    path.write_text(SEPARATOR.join(big))
    tokens = prepared(tmp_path / "run", path, max_text_mb=1)
    chosen = [document for side in split(tokens) for document in side]
    assert 990_000 < tokens.corpus["bytes"] <= 1_000_000
    assert sum(len(document.encode()) for document in chosen) in range(tokens.corpus["bytes"] - 3, 1_000_001)
    assert tokens.corpus["available_documents"] == 60
    whole = [document for document in chosen if document in big]
    assert len(whole) >= len(chosen) - 1
    numbers = sorted(int(document[9:13]) for document in whole)
    assert numbers[-1] - numbers[0] > 40, "not the beginning of the file"
    assert prepared(tmp_path / "again", path, max_text_mb=1).fingerprint == tokens.fingerprint


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 5000)), min_size=1), st.integers(1, 50_000))
def test_choice_is_full_and_within_its_limit(documents: list[tuple[int, int]], most: int) -> None:
    keys = np.array([key for key, _ in documents], np.uint64)
    sizes = np.array([size for _, size in documents], np.int64)
    taken = choose(keys, sizes, most)
    assert (taken >= 0).all() and (taken <= sizes).all()
    assert taken.sum() <= most
    assert taken.sum() >= min(most - 1024, sizes.sum())
    assert ((taken > 0) & (taken < sizes)).sum() <= 1


def test_the_same_again_reads_nothing(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path / "run", text)
    before = files(tmp_path / "run")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("work that was done is done again")

    monkeypatch.setattr(prepare, "_encode", fail)
    text.touch()
    assert prepared(tmp_path / "run", text).fingerprint == first.fingerprint
    monkeypatch.setattr(prepare, "survey_text", fail)
    assert prepared(tmp_path / "run", text).fingerprint == first.fingerprint
    after = files(tmp_path / "run")
    assert before.pop("tokens/tokens.json") != after.pop("tokens/tokens.json"), "the new time was noted"
    assert before == after


@pytest.mark.parametrize("change", ["text", "vocab_size", "val_fraction", "tokenizer"])
def test_other_text_or_settings_are_done_anew(tmp_path: Path, text: Path, change: str) -> None:
    first = prepared(tmp_path / "run", text).fingerprint
    other: dict[str, Any] = {
        "vocab_size": 301,
        "val_fraction": 0.4,
        "text": None,
        "tokenizer": str(tmp_path / "t.json"),
    }
    train_tokenizer(iter(stories(5)), 290).save(str(tmp_path / "t.json"))
    if change == "text":
        text.write_text(text.read_text() + " More.")
    second = prepared(tmp_path / "run", text, **({} if change == "text" else {change: other[change]})).fingerprint
    assert second != first
    assert load_tokens(tmp_path / "run").fingerprint == second


def test_a_given_tokenizer_is_used_and_32_bits_where_needed(tmp_path: Path, text: Path) -> None:
    tokenizer = train_tokenizer(iter(stories(5)), 290)
    tokenizer.add_tokens([f"unused-{number}" for number in range(66_000)])
    tokenizer.save(str(tmp_path / "large.json"))
    tokens = prepared(tmp_path / "run", text, tokenizer=str(tmp_path / "large.json"))
    assert tokens.train.dtype == np.uint32
    assert tokens.vocab_size == 66_000 + len(train_tokenizer(iter(stories(5)), 290).get_vocab())
    assert sorted(document for side in split(tokens) for document in side) == sorted(stories(60))


class Killed(BaseException):
    """Represents a signal."""


@pytest.mark.parametrize("calls", [0, 1, 37])
def test_interrupted_leaves_nothing_visible_and_starts_again(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = prepared(tmp_path / "whole", text, vocab_size=310).fingerprint
    run = tmp_path / "run"
    prepared(run, text)
    left = iter(range(calls))
    add = prepare._Writer.add

    def dying(self: prepare._Writer, *args: Any) -> None:
        if next(left, None) is None:
            raise Killed
        add(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(prepare._Writer, "add", dying)
        with pytest.raises(Killed):
            prepared(run, text, vocab_size=310)
    assert not [name for name in files(run) if "tmp" in name]
    with pytest.raises(StageMissing, match="no tokens"):
        load_tokens(run)
    assert prepared(run, text, vocab_size=310).fingerprint == whole


@pytest.mark.parametrize("step", ["train.bin", "val.bin", "tokenizer.json", "tokens.json"])
def test_killed_at_each_commit_starts_again(tmp_path: Path, text: Path, step: str) -> None:
    whole = prepared(tmp_path / "whole", text)
    script = f"""
import os, pathlib
from sparsecode.pipeline.config import TrainGptConfig
from sparsecode.corpus import TextSettings, prepare_tokens
from sparsecode.pipeline.run import Run
replace = pathlib.Path.replace
def dying(self, target):
    if target.name == {step!r}:
        os._exit(9)
    return replace(self, target)
pathlib.Path.replace = dying
prepare_tokens({str(tmp_path / "run")!r}, TextSettings(text=({str(text)!r},), vocab_size=300, val_fraction=0.2))
"""
    assert subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL, timeout=60).returncode == 9
    with pytest.raises(StageMissing):
        load_tokens(tmp_path / "run")
    assert prepared(tmp_path / "run", text).fingerprint == whole.fingerprint
    ours, theirs = files(tmp_path / "run"), files(tmp_path / "whole")
    assert ours == theirs


def test_text_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = survey.plan_text

    def changing(*args: Any, **kwargs: Any) -> Any:
        text.write_text("Something else.")
        return plan(*args, **kwargs)

    monkeypatch.setattr(prepare, "plan_text", changing)
    with pytest.raises(CorpusUnreadable, match="changed while it was being read"):
        prepared(tmp_path / "run", text)


def test_broken_files_are_named_and_made_again(tmp_path: Path, text: Path) -> None:
    run = tmp_path / "run"
    fingerprint = prepared(run, text).fingerprint
    for name in ("tokens/train.bin", "tokens/val.bin", "tokens/tokens.json", "tokenizer.json"):
        whole = (run / name).read_bytes()
        for broken in (whole[:-2], b"{}", None):
            (run / name).unlink() if broken is None else (run / name).write_bytes(broken)
            if broken is not None or name != "tokens/tokens.json":
                with pytest.raises(RunInvalid, match=name) as raised:
                    advised(load_tokens)(run)
                assert "--force" in str(raised.value)
            assert prepared(run, text).fingerprint == fingerprint


def test_foolish_settings_are_refused(tmp_path: Path, text: Path) -> None:
    for wrong in ({"val_fraction": 0.0}, {"val_fraction": 1.0}, {"max_text_mb": 0}, {"vocab_size": 100}):
        with pytest.raises(InvalidSetting):
            prepared(tmp_path / "run", text, **wrong)


def test_no_tokens_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="run: sparsecode train-gpt --run"):
        tokens_of(Run(tmp_path))


def test_token_text_shows_bytes_of_split_characters(tmp_path: Path, text: Path) -> None:
    tokens = prepared(tmp_path / "run", text)
    euro = tokens.encode("\u20ac")
    assert [tokens.token_text(int(token)) for token in euro] == ["\\xe2", "\\x82", "\\xac"]
    assert tokens.token_text(int(tokens.encode("a")[0])) == "a"
    assert tokens.decode(euro) == "\u20ac"


def test_default_corpus_end_to_end(tmp_path: Path) -> None:
    config = TrainGptConfig(max_text_mb=1, vocab_size=300)
    tokens = prepare_tokens(tmp_path, config.part(TextSettings))
    assert tokens.corpus["available_bytes"] > 10_000_000
    assert 900_000 < tokens.corpus["bytes"] <= 1_000_000
    assert tokens.corpus["description"].startswith("Python sources")
    assert len(tokens.val) > 1000
