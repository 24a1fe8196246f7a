"""Comparisons, baselines and the claims' sweeps that cannot fit are refused before anything is read or begun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_run import make_fake_run
from sparsecode.comparison import members
from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.compare import compare_dicts, compare_files
from sparsecode.pipeline.run import Run
from sparsecode.sweep import memory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run: Run = make_fake_run(tmp_path_factory.mktemp("memory") / "run", sizes=(16, 32))[0]
    return run


@pytest.mark.parametrize("command", [lambda run: compare_dicts(run), lambda run: compare_files([run.path])])
def test_a_comparison(run: Run, command: Callable[[Run], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "usable_memory", lambda: 100)
    with pytest.raises(InvalidSetting, match="compare: 4 dictionaries need about"):
        command(run)
    assert not run.comparison_path.exists()
    assert "compare" not in run.config()["stages"]


def test_the_sweeps_of_the_claims(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_dicts(run, quiet=True)
    monkeypatch.setattr(memory, "usable_memory", lambda: 10**8)
    with pytest.raises(InvalidSetting, match="claims: 4 dictionaries need"):
        check_claims(run, sizes="16777216", quiet=True)
    assert "claims" not in run.config()["stages"]
    check_claims(run, sweep=False, quiet=True)  # without them there is nothing to fit


def test_bytes_of_a_dictionary(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(b"123")
    assert [members.bytes_of(tmp_path / name) for name in ("a", "folder", "folder/x", "gone")] == [5, 3, 3, 0]
