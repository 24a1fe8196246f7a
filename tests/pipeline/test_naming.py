"""A text by another name is still the same text: relative and absolute, through links, with . and .. and slashes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsecode.corpus import TextSettings, prepare_tokens
from sparsecode.corpus.tokenizer import train_tokenizer
from sparsecode.errors import SettingsDiffer
from sparsecode.pipeline.config import TextConfig, TrainGptConfig
from sparsecode.pipeline.naming import as_recorded, full_path
from sparsecode.pipeline.run import Run

KEY = "tokens"


def read(run: Run, *text: str, tokenizer: str | None = None) -> None:
    """Opens and finishes a stage like those that read text."""
    config = TrainGptConfig(text=text, vocab_size=300, tokenizer=tokenizer)
    with run.stage(KEY, as_recorded(run, KEY, config)) as stage:
        prepare_tokens(run, config.part(TextSettings))
        stage.finish({})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in: book/a.txt, book/b.txt, and links to both."""
    (tmp_path / "book").mkdir()
    for name in ("a", "b"):
        (tmp_path / "book" / f"{name}.txt").write_text(f"{name} is what it says, and says again. " * 20)
    (tmp_path / "linked").symlink_to("book")
    (tmp_path / "b.txt").symlink_to("book/b.txt")
    (tmp_path / "other.txt").write_text("another text, of other words. " * 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES: dict[str, list[Callable[[Path], tuple[str, ...]]]] = {
    "a file": [
        lambda here: ("book/b.txt",),
        lambda here: (str(here / "book/b.txt"),),
        lambda here: ("./book//b.txt",),
        lambda here: ("book/../book/b.txt",),
        lambda here: ("linked/b.txt",),
        lambda here: ("b.txt",),
        lambda here: ("book/b.txt", str(here / "linked/b.txt")),
    ],
    "a folder": [
        lambda here: ("book",),
        lambda here: ("book/",),
        lambda here: ("./book/.",),
        lambda here: ("linked/",),
        lambda here: (str(here / "book"),),
        lambda here: (os.path.relpath(here / "book"),),
    ],
    "a glob": [
        lambda here: ("book/*.txt",),
        lambda here: ("./book/*.txt",),
        lambda here: ("linked/*.txt",),
        lambda here: (str(here / "book/*.txt"),),
    ],
    "several": [
        lambda here: ("book/a.txt", "b.txt"),
        lambda here: ("book/b.txt", "linked/a.txt"),
    ],
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_of_a_text_goes_on_with_it(place: Path, kind: str) -> None:
    run = Run("run")
    first, *others = NAMES[kind]
    read(run, *first(place))
    tokens = (run.tokens_path / "train.bin").read_bytes()
    for name in others:
        read(run, *name(place))
        assert (run.tokens_path / "train.bin").read_bytes() == tokens
    with pytest.raises(SettingsDiffer, match="text"):
        read(run, "other.txt")


def test_from_another_folder_it_is_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(Run("run"), "book")
    monkeypatch.chdir(place / "book")
    read(Run("../run"), ".")
    read(Run(place / "run"), "../book")
    with pytest.raises(SettingsDiffer):
        read(Run("../run"), "a.txt")


def test_a_run_and_its_text_move_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "here").mkdir()
    shutil.move("book", "here/book")
    monkeypatch.chdir(place / "here")
    read(Run("run"), "book")
    monkeypatch.chdir(place)
    shutil.move("here", "there")
    monkeypatch.chdir(place / "there")
    read(Run("run"), "book")
    shutil.move("book", "book2")
    with pytest.raises(SettingsDiffer):
        read(Run("run"), "book2")


def test_what_an_earlier_version_recorded_is_known(place: Path) -> None:
    run, config = Run("run"), TextConfig(text=("book/b.txt",))
    with run.stage(KEY, config) as stage:  # the path as it was typed
        stage.finish({})
    assert as_recorded(run, KEY, config) == config
    assert as_recorded(run, KEY, TextConfig(text=(str(place / "linked/b.txt"),))) == config


def test_a_tokenizer_by_another_name_is_the_same(place: Path) -> None:
    for name in ("one.json", "copy.json"):
        train_tokenizer(iter(["some words of it " * 50]), 270).save(name)
    train_tokenizer(iter(["nothing like this " * 50]), 270).save("else.json")
    run = Run("run")
    read(run, "book", tokenizer="one.json")
    for same in (str(place / "one.json"), "./one.json", "copy.json"):
        read(run, "book", tokenizer=same)
    with pytest.raises(SettingsDiffer, match="tokenizer"):
        read(run, "book", tokenizer="else.json")


def test_the_full_path_of_a_linked_file_keeps_its_ending(place: Path) -> None:
    blob = place / "5f3a"
    shutil.copy("book/a.txt", blob)
    (place / "linked.jsonl").symlink_to(blob)
    assert full_path("linked.jsonl") == str(place.resolve() / "linked.jsonl")
    assert full_path("~") == str(Path.home().resolve())
    assert full_path(".") == full_path("") == str(place.resolve())
