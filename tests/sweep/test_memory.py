"""The memory that a sweep needs is reported before it starts, and matches what it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sparsecode import machine
from sparsecode.cli import main
from sparsecode.errors import InvalidSetting
from sparsecode.store import DatasetWriter
from sparsecode.sweep import Sweep, memory
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.kinds import parse_kinds
from sparsecode.sweep.memory import need_of
from sparsecode.sweep.settings import LossSettings
from sparsecode.sweep.state import save_state

FACTOR = 2.0  # what is estimated is at most this far from what is measured
SHAPES = [([8000], 128, 256), ([1024, 2048, 4096] * 2, 64, 512)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("sizes", "dim", "batch"), SHAPES)
def test_what_is_held_and_saved_is_counted_exactly(
    sizes: list[int], dim: int, batch: int, tied: bool, tmp_path: Path
) -> None:
    loss = LossSettings(tied=tied, pre_bias=True)
    sweep = Sweep(dim, sizes, [0.02] * len(sizes), list(range(len(sizes))), loss=loss)
    found = need_of(sizes, dim, batch=batch, tied=tied, pre_bias=True)
    tensors = [*sweep.parameters().values(), sweep.fired, torch.zeros(sweep.total, dtype=torch.int32)]  # and the lag
    tensors += [moment for pair in sweep.moments.values() for moment in pair]
    assert found.held == sum(tensor.nbytes for tensor in tensors)
    file = tmp_path / "state.safetensors"
    save_state(file, sweep, StepStats.zeros(len(sweep)), 0.0)
    assert found.state == pytest.approx(file.stat().st_size, rel=0.01)
    paths = [tmp_path / str(k) for k in range(len(sizes))]
    for k, path in enumerate(paths):
        made = sweep.dictionary(k)
        made.features = {"density": torch.zeros(made.dict_size), "initial_cosine": sweep.initial_cosine(k)}
        made.save(path)
    size = sum(path.with_suffix(".safetensors").stat().st_size for path in paths)
    assert size <= found.files <= FACTOR * size


def test_what_kinds_hold_and_save_is_counted(tmp_path: Path) -> None:
    texts = ("relu l1=0.1", "topk k=8 aux=1/32", "batchtopk k=8", "jumprelu l0=8", "gated l1=0.1", "panneal l1=0.1")
    kinds, sizes, dim = [kind for text in texts for kind in parse_kinds(text)], [4096] * 6, 16
    sweep = Sweep(dim, sizes, kinds, [0] * 6)
    found = need_of(sizes, dim, batch=64, engine="reference", kinds=kinds)
    tensors = [*sweep.parameters().values(), *sweep.state.tensors().values(), sweep.fired]
    tensors += [moment for pair in sweep.moments.values() for moment in pair]
    assert found.held == pytest.approx(sum(tensor.nbytes for tensor in tensors) + 4 * sweep.total, rel=1e-3)
    file = tmp_path / "state.safetensors"
    save_state(file, sweep, StepStats.zeros(len(sweep)), 0.0)
    assert found.state == pytest.approx(file.stat().st_size, rel=1e-2)
    assert found.working > need_of(sizes, dim, batch=64, engine="reference").working


@pytest.mark.parametrize(("sizes", "dim", "batch"), SHAPES)
def test_the_cpu_engine_takes_what_was_told(sizes: list[int], dim: int, batch: int) -> None:
    sweep = Sweep(dim, sizes, [0.02] * len(sizes), list(range(len(sizes))))
    engine = CpuEngine(threads=2)
    x = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0))
    most = 0
    for _ in range(2):
        engine.step(sweep, x, 1.0)
        most = max(most, engine.bytes)
    told = need_of(sizes, dim, batch=batch, threads=2).working
    assert most <= FACTOR * told
    assert told <= FACTOR * (most + 12 * (2 << 20))  # lists of codes have room for more than these few rows have


_MEASURE = """
import sys, torch
from sparsecode.sweep import Sweep
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
engine = {"cpu": CpuEngine, "reference": ReferenceEngine}[sys.argv[1]](threads=1)
dim, batch, sizes = int(sys.argv[2]), int(sys.argv[3]), [int(size) for size in sys.argv[4:]]
x = torch.randn(batch, dim)
engine.step(Sweep(dim, [64], [0.02], [0]), x, 1.0)  # libraries are loaded
Sweep(dim, [64], [0.02], [0]).initial_cosine(0)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
sweep = Sweep(dim, sizes, [0.02] * len(sizes), list(range(len(sizes))))
for _ in range(2):
    engine.step(sweep, x, 1.0)
sweep.diverged()
sweep.dictionary(len(sizes) - 1)
sweep.initial_cosine(len(sizes) - 1)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("engine", "sizes", "dim", "batch"),
    [("cpu", [24_000], 128, 256), ("cpu", [4096, 8192] * 4, 128, 256), ("reference", [4096, 8192] * 2, 128, 512)],
)
def test_resident_memory_is_what_was_told(engine: str, sizes: list[int], dim: int, batch: int) -> None:
    words = [sys.executable, "-c", _MEASURE, engine, str(dim), str(batch), *map(str, sizes)]
    measured = int(subprocess.run(words, check=True, capture_output=True, text=True, timeout=900).stdout)
    found = need_of(sizes, dim, batch=batch, engine=engine, threads=1)
    told = found.held + found.working + found.ending
    assert measured / FACTOR <= told <= measured * FACTOR, (measured, told)


def test_the_sweep_that_the_help_shows_needs_hundreds_of_gigabytes_at_a_wide_model() -> None:
    sizes = [size * 4096 for size in (2, 4, 8, 16, 32) for _ in range(8 * 3)]
    assert 550e9 < need_of(sizes, 4096, batch=4096).held < 650e9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    with DatasetWriter(path, activation_dim=16, dtype="float32", provenance={"hook_point": "h"}) as writer:
        writer.append(torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(2000).int())
        writer.finish()
    return path


def refused(*args: str | Path) -> str:
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_what_cannot_fit_is_refused_before_it_starts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 10**11)
    run = tmp_path / "run"
    words = ["train-dicts", "--run", str(run), "--dataset", str(data), "--samples", "1k", "--batch-size", "128", "-q"]
    told = refused(*words, "--sizes", "16777216", "--seeds", "99")
    assert "99 dictionaries need" in told
    assert "this machine has" in told
    assert not run.exists()
    small = ["--sizes", "16", "--engine", "reference", "--device", "cpu"]
    assert CliRunner().invoke(main, list(map(str, [*words, *small]))).exit_code == 0
    # What is done is shown on a machine where it could not be done.
    monkeypatch.setattr(memory, "usable_memory", lambda: 1000)
    assert CliRunner().invoke(main, list(map(str, words))).exit_code == 0
    assert "this machine has 0.0" in refused(*words, "--force")


def test_sweeps_of_other_stages_are_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 1000)
    told = refused("toy", "--run", tmp_path / "run", "--dim", "32", "--true-features", "64", "--active", "3")
    assert "toy: " in told
    assert "GB of memory" in told
    assert not (tmp_path / "run").exists()


def test_limits_of_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 1000)
    monkeypatch.setattr(machine, "_cgroup_limits", lambda: [1 << 62, 400])
    monkeypatch.setattr(machine, "_address_space", lambda: 700)
    assert machine.usable_memory() == 400
    monkeypatch.setattr(machine, "_cgroup_limits", list)
    assert machine.usable_memory() == 700
    for name in ("memory", "_address_space"):
        monkeypatch.setattr(machine, name, lambda: None)
    assert machine.usable_memory() is None


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_a_limit_on_addresses_is_seen() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "from sparsecode.machine import usable_memory; print(usable_memory())"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=900)
    assert 0 < int(shown.stdout) < 8 << 30


def test_a_setting_that_cannot_be_used_is_told_as_such(data: Path) -> None:
    from sparsecode.pipeline import plan
    from sparsecode.pipeline.config import TrainDictsConfig

    with pytest.raises(InvalidSetting, match="device"):
        plan.need(TrainDictsConfig(device="nowhere"), 16)
    assert plan.need(TrainDictsConfig(sizes="16", engine="avx2", device="cpu"), 16).dictionaries == 1


def test_info_and_doctor_say_what_a_sweep_would_need(data: Path, tmp_path: Path) -> None:
    import json

    call = CliRunner().invoke
    flags = ["--sizes", "2x-32x", "--l1", "1e-3:1e-1:8", "--seeds", "3"]
    told = call(main, ["info", str(data), *flags]).stdout
    assert "sweep of 120 dictionaries at width 16: about 3" in told
    found = json.loads(call(main, ["info", str(data), "--json", "--sizes", "16777216"]).stdout)["sweep"]["16"]
    assert found["memory_bytes"] > found["held_bytes"] > 6 * 4 * 16 * 16777216
    nothing = call(main, ["info", "--run", str(tmp_path), "--sizes", "64"])
    assert nothing.exit_code == 3
    doctor = json.loads(call(main, ["doctor", "--run", str(tmp_path / "run"), "--json"]).stdout)
    assert doctor["sweep"]["128"]["dictionaries"] == 12, "those of the default preset"
    shown = " ".join(call(main, ["doctor", "--run", str(tmp_path / "run")]).stdout.split())
    assert "train-dicts sweep of 12 dictionaries at width 128" in shown
