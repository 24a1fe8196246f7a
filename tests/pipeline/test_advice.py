"""The library says what is the matter, the pipeline what to do: every remedy that an error names has its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsecode.errors import DatasetMissing, DictionaryInvalid, InvalidSetting, RunLocked
from sparsecode.pipeline.advice import REMEDIES, advice, advise, advised, told
from sparsecode.pipeline.train_dicts import train_dicts

PACKAGE = Path(__file__).parents[2] / "python/sparsecode"


def test_remedies_and_their_words_belong_together() -> None:
    named = re.compile(r'\bremedy(?:: str)? ?= ?"(\w+)"(?: if .* else "(\w+)")?')
    texts = [file.read_text() for file in PACKAGE.rglob("*.py")]
    used = {name for text in texts for found in named.findall(text) for name in found if name}
    used |= {"fast_tokenizer"}  # handed to a function that names it
    assert used == set(REMEDIES)


def test_words_are_added_once() -> None:
    error = DictionaryInvalid("x holds NaN", remedy="diverged")
    assert told(error) == "x holds NaN; its training diverged, lower --lr" and str(error) == "x holds NaN"
    advise(error)
    advise(error)
    assert str(error) == "x holds NaN; its training diverged, lower --lr"
    assert told(RunLocked("busy")) == "busy; or choose another run with --run"
    assert told(InvalidSetting("no such thing")) == "no such thing"


def test_a_function_of_the_pipeline_gives_advice() -> None:
    @advised
    @advised
    def fails() -> None:
        raise DictionaryInvalid("x holds NaN", remedy="diverged")

    with pytest.raises(DictionaryInvalid, match=r"^x holds NaN; its training diverged, lower --lr$"):
        fails()
    with pytest.raises(InvalidSetting, match=r"^wrong; do right$"), advice("do right", InvalidSetting):
        raise InvalidSetting("wrong")


def test_a_dataset_that_is_not_there_is_said_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no dataset here \(no manifest.json\); run: sparsecode harvest"):
        train_dicts(tmp_path / "run", dataset=str(tmp_path), quiet=True)
