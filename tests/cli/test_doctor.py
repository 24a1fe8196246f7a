"""The output of `sparsecode doctor --gpu` with and without a GPU. Its suite runs in tests/interpreted/engine.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sparsecode.cli import main
from sparsecode.sweep.engines.gpu import check as gpu_check


def result(passed: bool) -> dict[str, Any]:
    timing = {"name": "16 x 4096, D=128", "predicted_ms": 1.84, "measured_ms": 2.5}
    return {
        "device": "Some GPU",
        "architecture": "sm_90",
        "checks": [{"name": "gradients D=32", "passed": passed, "detail": "d_enc off by 1e-07"}],
        "timings": [timing | {"predicted_eager_ms": None, "eager_ms": 6.0}],
        "passed": passed,
    }


def stand_in(passed: bool) -> Callable[..., dict[str, Any]]:
    return lambda **_: result(passed)


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(main, ["doctor", "--gpu", "--run", str(tmp_path)])
    assert done.exit_code == 2
    assert "engine gpu needs" in done.output
    assert "Traceback" not in done.output


def test_measured_stands_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "gpu_check", stand_in(True))
    done = CliRunner().invoke(main, ["doctor", "--gpu", "--run", str(tmp_path)])
    assert "1 of 1 passed on Some GPU" in done.output
    assert "2.50 ms, model 1.84 ms; torch autograd 6.00 ms, model unknown" in done.output


def test_a_failed_check_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "gpu_check", stand_in(False))
    done = CliRunner().invoke(main, ["doctor", "--gpu", "--json", "--run", str(tmp_path)])
    assert done.exit_code == 1
    assert "GPU check 'gradients D=32'" in done.stderr
    assert json.loads(done.stdout)["gpu_check"]["passed"] is False
