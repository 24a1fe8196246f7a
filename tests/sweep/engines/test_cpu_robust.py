"""The CPU engine with the worst numbers, screens, threads and arguments."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.sweep import LossSettings, Sweep, choose_engine
from sparsecode.sweep.engines.cpu import CpuEngine

PATHS = _core.CpuEngine.paths()
WAYS = [(path, codes) for path in PATHS for codes in ("lists", "dense")]


def small(sizes: tuple[int, ...] = (8, 33, 64), width: int = 16, loss: LossSettings | None = None) -> Sweep:
    K = len(sizes)
    return Sweep(width, sizes, [0.05] * K, list(range(K)), lr=1e-2, loss=loss)


def batch(rows: int = 200, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


# Numbers


@pytest.mark.parametrize(("path", "codes"), WAYS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("where", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_a_diverging_dictionary_leaves_the_others_bit_identical(
    path: str, codes: str, poison: float, where: str
) -> None:
    """Promise 25."""
    loss = LossSettings(pre_bias=True)
    sick, well = small(loss=loss), small(loss=loss)
    value = sick.parameters()[where]
    (value[1] if where == "b_dec" else value[sick.rows(1)]).view(-1)[3:5] = poison
    engine = CpuEngine(threads=2, path=path, codes=codes)
    for i in range(3):
        broken = engine.step(sick, batch(seed=i), 1.0)
        engine.step(well, batch(seed=i), 1.0)
    if poison != 1e30:
        never = where == "b_enc" and poison < 0  # such a feature is only dead
        touched = [broken.sse[1], broken.l1[1], sick.W_dec[sick.rows(1)].sum(), sick.b_enc[sick.rows(1)].sum()]
        assert never or not all(torch.isfinite(torch.stack([t.double() for t in touched])))
    for k in (0, 2):
        for name, own in sick.parameters().items():
            rows = slice(k, k + 1) if name == "b_dec" else sick.rows(k)
            assert torch.equal(own[rows], well.parameters()[name][rows])
            for mine, theirs in zip(sick.moments[name], well.moments[name], strict=True):
                assert torch.equal(mine[rows], theirs[rows])


@pytest.mark.parametrize(("path", "codes"), WAYS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_broken_row_is_seen_in_the_loss_and_the_gradients(path: str, codes: str, poison: float) -> None:
    x = batch()
    x[77, 3] = poison
    stats, gradients = CpuEngine(threads=2, path=path, codes=codes).gradients(small(), x)
    assert not torch.isfinite(stats.sse).any()
    assert not torch.isfinite(gradients["W_enc"]).all()


# Screens


def adversarial(seed: int, width: int, magnitude: float) -> tuple[Tensor, Tensor]:
    """Rows and encoders in the middle between two bfloat16 numbers, and some off the grid of 127 steps: rounding is as
    wrong as it gets, and in one direction."""
    generator = torch.Generator().manual_seed(seed)

    def values(count: int) -> Tensor:
        signs = torch.randint(0, 2, (count, width), generator=generator) * 2.0 - 1
        exponents = torch.randint(-3, 4, (count, width), generator=generator)
        mantissa = torch.randint(0, 128, (count, width), generator=generator) / 128 + 1
        halfway = (
            mantissa + torch.tensor([1 / 256, -1 / 256, 1 / 256 + 1e-6])[torch.randint(0, 3, (1,), generator=generator)]
        )
        return magnitude * signs * halfway * 2.0**exponents

    x, w = values(100), values(50)
    w[:25] = x[:25]  # parallel: no error cancels
    return x, w


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    width=st.sampled_from([1, 2, 16, 31, 32, 100, 128]),
    magnitude=st.sampled_from([1e-30, 1e-18, 1e-5, 1.0, 1e4, 1e8]),
    gap=st.sampled_from([0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 4e-3]),
)
def test_no_screen_drops_a_code(seed: int, width: int, magnitude: float, gap: float) -> None:
    """Biases put every feature's pre-activation within a relative `gap` above zero on the row it is parallel to, and
    others anywhere: whatever the float32 engine without a screen (dense) finds active, every screen must keep."""
    x, w = adversarial(seed, width, magnitude)
    sweep = Sweep(width, [50], [0.0], [0])
    sweep.W_enc.copy_(w)
    products = (x[torch.arange(50)] * w).double().sum(1)
    scale = x[:50].norm(dim=1) * w.norm(dim=1)
    sweep.b_enc.copy_((-products + gap * scale.double()).float())
    expected = CpuEngine(threads=1, path="scalar", codes="dense").gradients(sweep, x)
    for path in PATHS:
        stats, gradients = CpuEngine(threads=1, path=path, codes="lists").gradients(sweep, x)
        assert torch.equal(stats.l0, expected[0].l0), path
        assert torch.equal(stats.l1, expected[0].l1), path
        assert torch.equal(gradients["W_dec"].nan_to_num(7.0), expected[1]["W_dec"].nan_to_num(7.0)), path


def test_screens_drop_most_of_what_is_not_active() -> None:
    """A screen that kept everything would be correct but useless."""
    sweep, x = small((512,), 64), batch(1024, 64)
    sweep.b_enc -= 2.5
    for path in PATHS:
        engine = CpuEngine(threads=1, path=path, codes="lists")
        stats = engine.evaluate(sweep, x)
        assert 0 < stats.l0.item() <= engine.candidates.item() < 2 * stats.l0.item() + 100, path


# Threads and processes


def test_works_in_a_forked_child_and_after_it() -> None:
    engine, sweep, x = CpuEngine(threads=3), small(), batch()
    engine.step(sweep, x, 1.0)
    child = os.fork()
    if child == 0:
        try:
            engine.step(sweep, x, 1.0)
            os._exit(7)
        finally:
            os._exit(1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        threading.Event().wait(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 7
    engine.step(sweep, x, 1.0)


def _child_step(threads: int) -> float:
    engine, sweep = CpuEngine(threads=threads), small()
    return float(engine.step(sweep, batch(), 1.0).sse.sum())


def test_spawned_processes_find_the_same() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_child_step, [1, 2])
    assert found[0] == found[1] == _child_step(3)


def test_other_threads_of_python_run_meanwhile() -> None:
    engine, sweep, x = CpuEngine(threads=1), small((2000,), 128), batch(8192, 128)
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    engine.step(sweep, x, 1.0)
    stop.set()
    thread.join()
    assert ticks >= 3


def test_ctrl_c_stops_training_within_a_second(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\nfrom sparsecode.sweep import Sweep\nfrom sparsecode.sweep.engines.cpu import CpuEngine\n"
        "sweep, x, engine = Sweep(64, [512], [0.01], [0]), torch.randn(2048, 64), CpuEngine(threads=2)\n"
        "print('ready', flush=True)\nwhile True:\n    engine.step(sweep, x, 1.0)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "ready\n"
        threading.Event().wait(0.3)
        child.send_signal(signal.SIGINT)
        child.wait(timeout=10)
        assert "KeyboardInterrupt" in child.stderr.read()


# Arguments


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InvalidSetting, match="unknown; known: auto, amx"):
        CpuEngine(path="mmx")
    with pytest.raises(InvalidSetting, match="use --device cpu"):
        advised(CpuEngine)("meta")
    with pytest.raises(InvalidSetting, match="known: measured, lists, dense"):
        CpuEngine(codes="sparse")
    missing = [path for path in ("neon", "amx") if path not in PATHS]
    for path in missing:
        with pytest.raises(InvalidSetting, match="cannot run on this machine"):
            CpuEngine(path=path)


def test_paths_are_chosen_by_name_and_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in PATHS:
        engine = choose_engine(path, "cpu", threads=1)
        assert isinstance(engine, CpuEngine) and engine.name == "cpu" and engine.path == path
        monkeypatch.setenv("SPARSECODE_ENGINE", path)
        engine = choose_engine("auto", "cpu", threads=1)
        assert isinstance(engine, CpuEngine) and engine.path == path
        monkeypatch.delenv("SPARSECODE_ENGINE")
    engine = choose_engine("auto", "cpu", threads=1)
    assert isinstance(engine, CpuEngine) and engine.path == PATHS[0]


def test_tensors_that_do_not_fit_are_named() -> None:
    engine = CpuEngine(threads=1)
    with pytest.raises(InvalidArgument, match="batch of shape"):
        engine.step(small(), batch(10, 15), 1.0)
    double = Sweep(16, [8], [0.1], [0], dtype=torch.float64)
    with pytest.raises(InvalidArgument, match="contiguous float32"):
        engine.step(double, batch(10).double(), 1.0)
    shared = small()
    shared.W_enc = shared.W_dec
    with pytest.raises(InvalidArgument, match="share memory"):
        engine.step(shared, batch(10), 1.0)
    with pytest.raises(InvalidArgument, match="share memory"):
        engine.step(one := small((16,)), one.W_dec[:8], 1.0)


def test_a_batch_that_is_a_view_of_columns_is_copied() -> None:
    wide, a, b = batch(50, 32), small(), small()
    CpuEngine(threads=1).step(a, wide[:, :16], 1.0)
    CpuEngine(threads=1).step(b, wide[:, :16].contiguous(), 1.0)
    assert torch.equal(a.W_dec, b.W_dec)


def test_tensors_put_in_the_place_of_others_are_seen() -> None:
    engine, sweep, other = CpuEngine(threads=1), small(), small()
    engine.step(sweep, batch(), 1.0)
    sweep.load_state_dict(other.state_dict())
    sweep.b_enc = other.b_enc.clone()
    engine.step(sweep, batch(), 1.0)
    engine.step(other, batch(), 1.0)
    assert torch.equal(sweep.W_enc, other.W_enc) and torch.equal(sweep.b_enc, other.b_enc)


def test_the_help_names_every_path() -> None:
    """The list is the core's, which the command line does not load for its help."""
    setting = TrainDictsConfig.__dataclass_fields__["engine"]
    assert f"({', '.join(_core.INSTRUCTION_SETS)})" in setting.metadata["help"]
