"""A disk that is full while training saves: one named error, nothing half written, and the same command resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparsecode.checkpoint import load_tensors, save_tensors, write_atomic, write_json
from sparsecode.errors import IoFailed, OutOfSpace
from sparsecode.pipeline.run import Run

resource = pytest.importorskip("resource", reason="limits of POSIX stand for a full disk")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Limits files to `size` bytes: writing then fails as on a full disk (EFBIG for ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tensors(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"x": torch.ones(10)})
    with room_for(4096), pytest.raises(OutOfSpace, match="run the same command again"):
        save_tensors(path, {"x": torch.zeros(5000)})
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
    assert load_tensors(path)[0]["x"].tolist() == [1.0] * 10


def test_json_and_metrics(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with room_for(4096):
        with pytest.raises(OutOfSpace):
            write_json(tmp_path / "facts.json", "x" * 5000)
        with pytest.raises(OutOfSpace, match=r"metrics\.jsonl"):
            run.log("train-gpt", 1, sample="x" * 5000)
        assert run.metrics() == []  # what was written of the line is none
    assert not (tmp_path / "facts.json").exists()


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="os error 28"):
        write_atomic(tmp_path / "x", refuse)
    assert not list(tmp_path.iterdir())


def refuse(_: Path) -> None:
    raise ValueError("not what safetensors says (os error 28)")


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IoFailed, match=r"file/facts\.json"):
        write_json(tmp_path / "file" / "facts.json", 1)
