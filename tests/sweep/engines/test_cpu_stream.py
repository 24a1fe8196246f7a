"""Many steps directly from a stream have the bits of single steps, and nothing is lost when they are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsecode.errors import InvalidArgument
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.store import ActivationStream, Dataset, DatasetWriter
from sparsecode.sweep import Sweep, trainer
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.cpu import CpuEngine

D, ROWS, B = 24, 3000, 256


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    with DatasetWriter(tmp_path / "data", activation_dim=D, dtype="float16", provenance={}) as writer:
        writer.append(torch.randn(ROWS, D, generator=generator), torch.zeros(ROWS, dtype=torch.int32))
        return writer.finish()


def fresh(width: int = D) -> Sweep:
    return Sweep(width, [16, 50], [0.05, 0.1], [0, 1], lr=1e-2)


def test_a_run_of_steps_has_the_bits_of_single_steps(dataset: Dataset) -> None:
    schedule = [(min(1.0, (i + 1) / 10), min(1.0, (i + 3) / 20)) for i in range(30)]
    one, run, engine = fresh(), fresh(), CpuEngine(threads=2)
    expected = StepStats.zeros(2)
    with ActivationStream(dataset, batch_size=B) as stream:
        for factors in schedule:
            expected += engine.step(one, next(stream), *factors)
    with ActivationStream(dataset, batch_size=B) as stream:
        found = engine.train(run, stream, schedule[:13]) + engine.train(run, stream, schedule[13:])
        assert stream.position == 30 * B
    assert run.step == 30
    assert found.rows == expected.rows == 30 * B
    for name, value in one.state_dict().items():
        assert torch.equal(value, run.state_dict()[name]), name
    for name in ("sse", "l1", "l0"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=0)


def test_rows_of_another_width_are_refused_and_nothing_moves(dataset: Dataset) -> None:
    sweep = fresh(D + 1)
    before = sweep.W_dec.clone()
    with ActivationStream(dataset, batch_size=B) as stream, pytest.raises(InvalidArgument, match="rows of 24"):
        CpuEngine(threads=1).train(sweep, stream, [(1.0, 1.0)])
    assert sweep.step == 0 and torch.equal(before, sweep.W_dec)


def test_ctrl_c_ends_a_long_run_and_keeps_count(dataset: Dataset, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        f"from sparsecode.store import ActivationStream, Dataset\n"
        f"from sparsecode.sweep import Sweep\nfrom sparsecode.sweep.engines.cpu import CpuEngine\n"
        f"sweep, engine = Sweep({D}, [16, 50], [0.05, 0.1], [0, 1]), CpuEngine(threads=2)\n"
        f"stream = ActivationStream(Dataset({str(tmp_path / 'data')!r}), batch_size={B})\n"
        "engine.train(sweep, stream, [(1.0, 1.0)])\nprint('ready', flush=True)\n"
        "try:\n    engine.train(sweep, stream, [(1.0, 1.0)] * 10_000_000)\n"
        f"except KeyboardInterrupt:\n    print(0 < sweep.step < 10_000_000 and sweep.step * {B} == stream.position)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "True\n"
        child.wait(timeout=30)


def test_sums_do_not_depend_on_how_a_training_is_cut(dataset: Dataset) -> None:
    found: list[list[float]] = []
    for cuts in ([30], [1, 4, 25], [10, 10, 10]):
        sweep, engine = fresh(), CpuEngine(threads=2)
        sums: StepStats | None = None
        with ActivationStream(dataset, batch_size=B) as stream:
            for count in cuts:
                sums = engine.train(sweep, stream, [(1.0, 1.0)] * count, sums)
        assert sums is not None and sums.rows == 30 * B
        found.append([*sums.sse.tolist(), *sums.l1.tolist(), *sums.l0.tolist()])
    assert found[0] == found[1] == found[2]


SETTINGS: dict[str, Any] = {
    "sizes": "16,50", "l1": "5e-2", "samples": 60 * B, "batch_size": B, "eval_rows": 500, "log_every": 7,
    "save_every": 5, "engine": "cpu", "device": "cpu", "threads": 2, "quiet": True,
}  # fmt: skip


def files(run: Path) -> dict[str, bytes]:
    """The files that must not depend on how the engine was called: dictionaries and metrics, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {path.name: path.read_bytes() for path in sorted((run / "dictionaries").glob("n*"))}
    return found | {"metrics": json.dumps([line | {"time": None} for line in lines]).encode()}


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_train_dicts_gives_the_same_bytes_however_many_steps_a_call_has(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    train_dicts(tmp_path / "usual", dataset=str(dataset.path), **SETTINGS)
    monkeypatch.setattr(trainer, "PATIENCE", patience)
    calls: list[int] = []
    inner = CpuEngine.train

    def counted(*args: Any) -> StepStats:
        calls.append(len(args[3]))
        return inner(*args)

    monkeypatch.setattr(CpuEngine, "train", counted)
    train_dicts(tmp_path / "cut", dataset=str(dataset.path), **SETTINGS)
    assert sum(calls) == 60 and (max(calls) == 1) == (patience == 0.0)
    assert files(tmp_path / "cut") == files(tmp_path / "usual")


def test_train_dicts_stopped_by_ctrl_c_resumes_to_the_same_bytes(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_dicts(tmp_path / "usual", dataset=str(dataset.path), **SETTINGS)
    inner = CpuEngine.train
    calls: list[int] = []

    def interrupted(*args: Any) -> StepStats:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(CpuEngine, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_dicts(tmp_path / "stopped", dataset=str(dataset.path), **SETTINGS)
    assert len(calls) == 5
    train_dicts(tmp_path / "stopped", dataset=str(dataset.path), **SETTINGS)
    assert files(tmp_path / "stopped") == files(tmp_path / "usual")
