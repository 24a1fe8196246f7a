"""The record of a run and its files: neither a lost folder nor a failed attempt is a dead end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparsecode.errors import CorpusEmpty, SettingsDiffer
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.pipeline.opening import Stage, open_stage
from sparsecode.pipeline.run import Run

KEY = "train-dicts"


def do(run: Run, seed: int, *, fail: bool = False, write: str | None = None, inputs: str = "a") -> Stage:
    """One attempt at a stage that writes `out/`, and what it found."""
    out = run.path / "out"
    config = TrainDictsConfig(seed=seed)
    with open_stage(run, KEY, config, inputs={"data": inputs}, outputs=[out], needs=[out / "result"]) as stage:
        if not stage.done:
            out.mkdir(exist_ok=True)
            if write is not None:
                (out / write).touch()
            if fail:
                raise CorpusEmpty("no text")
            stage.finish({"seed": seed})
    return stage


def test_a_stage_whose_files_are_gone_is_done_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert not do(run, 1, write="result").done
    assert do(run, 1).done
    shutil.rmtree(tmp_path / "out")
    again = do(run, 1, write="result")
    assert not again.done
    assert again.resuming
    assert do(run, 1).done
    with pytest.raises(SettingsDiffer, match="was done with seed 1, not 2"):
        do(run, 2)


def test_a_failed_attempt_that_left_nothing_asks_for_no_force(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(CorpusEmpty):
        do(run, 1, fail=True)
    with pytest.raises(CorpusEmpty):
        do(run, 2, fail=True, inputs="b", write=".out.lock")  # a lock, or a file half written, is nothing
    stage = do(run, 3, write="result")
    assert not stage.resuming
    assert run.config()["stages"][KEY]["settings"]["seed"] == 3
    assert run.config()["stages"][KEY]["inputs"] == {"data": "a"}


def test_what_an_interrupted_attempt_left_is_not_thrown_away_unasked(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(CorpusEmpty):
        do(run, 1, fail=True, write="state")
    with pytest.raises(SettingsDiffer, match="was begun with seed 1, not 2; add --force"):
        do(run, 2)
    assert do(run, 1, write="result").resuming


def test_the_old_name_of_its_module_leads_to_it() -> None:
    from sparsecode.run import Run as Old

    assert Old is Run
