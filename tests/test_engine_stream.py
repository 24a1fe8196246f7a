"""Many steps straight from a stream: the bits of one step after another, and nothing lost when it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sparsecode.errors import InvalidArgument
from sparsecode.store import ActivationStream, Dataset, DatasetWriter
from sparsecode.sweep import Sweep
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
    scales = [min(1.0, (i + 1) / 10) for i in range(30)]
    one, run, engine = fresh(), fresh(), CpuEngine(threads=2)
    expected = StepStats.zeros(2)
    with ActivationStream(dataset, batch_size=B) as stream:
        for scale in scales:
            expected += engine.step(one, next(stream), scale)
    with ActivationStream(dataset, batch_size=B) as stream:
        found = engine.train(run, stream, scales[:13]) + engine.train(run, stream, scales[13:])
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
        CpuEngine(threads=1).train(sweep, stream, [1.0])
    assert sweep.step == 0 and torch.equal(before, sweep.W_dec)


def test_ctrl_c_ends_a_long_run_within_a_second_and_keeps_count(dataset: Dataset, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        f"from sparsecode.store import ActivationStream, Dataset\n"
        f"from sparsecode.sweep import Sweep\nfrom sparsecode.sweep.engines.cpu import CpuEngine\n"
        f"sweep, engine = Sweep({D}, [16, 50], [0.05, 0.1], [0, 1]), CpuEngine(threads=2)\n"
        f"stream = ActivationStream(Dataset({str(tmp_path / 'data')!r}), batch_size={B})\n"
        "print('ready', flush=True)\n"
        "try:\n    engine.train(sweep, stream, [1.0] * 10_000_000)\n"
        f"except KeyboardInterrupt:\n    print(sweep.step > 0 and sweep.step * {B} == stream.position)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(2)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "True\n"
        assert time.monotonic() - sent < 5  # a second, and room for a machine with other work
        child.wait(timeout=30)
