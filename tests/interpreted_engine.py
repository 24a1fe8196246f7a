"""The GPU engine under Triton's interpreter against the reference; run by test_kernels_interpreter.py."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from interpreter_shim import check_red_zones, guarded, install, reversed_programs
from sparsecode.errors import CheckFailed, InvalidArgument, InvalidSetting
from sparsecode.kernels.configs import FusedTiles, Tile
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines import fused, gemm, gpu_check
from sparsecode.sweep.engines.gpu import GpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

install()
SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias, project_gradient=project)
    for (mse, l1_scale), tied, pre_bias, project in (
        (("mean", "plain"), False, False, True),
        (("sum", "per-size"), False, True, False),
        (("mean", "per-size"), True, True, True),
        (("sum", "plain"), True, False, False),
    )
]
SIZES = [1, 33, 7]
SMALL = FusedTiles(Tile(16, 32), Tile(16, 16), (3,))
APART = FusedTiles(Tile(32, 16), Tile(32, 32), (2, 1))


@pytest.fixture(autouse=True)
def red_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer that the engine allocates stands between red zones and starts as NaN."""
    monkeypatch.setattr(fused, "allocate", guarded)
    # A real split needs hundreds of rows; here the number of processors is the number of splits.
    monkeypatch.setattr(fused, "batch_splits", lambda _, batch_tiles, processors: min(processors, batch_tiles))


def make(loss: LossSettings, D: int, dtype: torch.dtype = torch.float32) -> Sweep:
    sweep = Sweep(D, SIZES, [0.3, 0.02, 0.5], [0, 0, 3], lr=[1e-2, 2e-2, 3e-2], loss=loss, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    sweep.b_enc += 0.1 * torch.randn(sweep.total, generator=generator)
    if not loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.total, D, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


def batch(rows: int, D: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


def engine_for(sweep: Sweep, precision: str, kind: str) -> GpuEngine:
    """An engine whose way of computing this sweep's gradients is fixed."""
    engine = GpuEngine("cpu", precision=precision)
    if kind == "gemm":
        engine._last = gemm.GemmStep(sweep, precision, chunk_bytes=33 * 37 * 4 // 2)
    else:
        tiles, processors = {"fused": (SMALL, 1), "apart": (APART, 1), "split": (SMALL, 3)}[kind]
        engine._last = fused.FusedStep(sweep, precision, tiles, processors)
    return engine


@pytest.mark.parametrize("kind", ["fused", "apart", "split", "gemm"])
@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_engine_equals_the_reference(loss: LossSettings, kind: str) -> None:
    """Gradients by name, stats, firings, then two steps: every tensor of the state."""
    D, rows = 20, 37
    mine, theirs = make(loss, D), make(loss, D, torch.float64)
    x = batch(rows, D)
    engine, reference = engine_for(mine, "float32", kind), ReferenceEngine()
    stats, found = engine.gradients(mine, x)
    truth, expected = reference.gradients(theirs, x.double())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value, rtol=1e-4, atol=2e-6 * float(value.abs().max()), msg=name
        )
    assert stats.rows == truth.rows
    for name in ("sse", "l1", "l0"):
        assert getattr(stats, name).dtype == torch.float64
        torch.testing.assert_close(getattr(stats, name), getattr(truth, name), rtol=2e-6, atol=0, msg=name)
    for seed, lr_scale in ((0, 1.0), (1, 0.5)):
        engine.step(mine, batch(rows, D, seed), lr_scale)
        reference.step(theirs, batch(rows, D, seed).double(), lr_scale)
    engine.evaluate(mine, x[:5].contiguous())
    reference.evaluate(theirs, x[:5].double())
    assert mine.step == theirs.step == 2
    state = theirs.state_dict()
    for name, value in mine.state_dict().items():
        if name in ("fired", "step"):
            assert torch.equal(value, state[name]), name
        else:
            torch.testing.assert_close(value.double(), state[name], rtol=1e-4, atol=2e-5, msg=name)
    check_red_zones()


def test_splits_happen() -> None:
    sweep = make(LossSettings(), 20)
    engine = engine_for(sweep, "float32", "split")
    step = engine._last
    engine.gradients(sweep, batch(37, 20))
    assert isinstance(step, fused.FusedStep)
    assert step.splits == 3


@pytest.mark.parametrize("kind", ["fused", "split"])
def test_same_bits_in_any_order_of_programs(kind: str) -> None:
    def train() -> dict[str, Tensor]:
        sweep = make(LossSettings(pre_bias=True), 20)
        engine = engine_for(sweep, "float16", kind)
        for seed in range(2):
            engine.step(sweep, batch(37, 20, seed), 1.0)
        return sweep.state_dict()

    first = train()
    with reversed_programs():
        second = train()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("kind", ["fused", "gemm"])
def test_a_diverging_dictionary_leaves_the_others_bit_identical(kind: str) -> None:
    def train(poison: bool) -> Sweep:
        sweep = make(LossSettings(), 20)
        if poison:
            sweep.W_dec[5] = float("nan")
        engine = engine_for(sweep, "float32", kind)
        for seed in range(2):
            engine.step(sweep, batch(37, 20, seed), 1.0)
        return sweep

    clean, poisoned = train(False), train(True)
    assert poisoned.W_enc[poisoned.rows(1)].isnan().any()
    for k in (0, 2):
        for name, value in clean.parameters().items():
            assert torch.equal(value[clean.rows(k)], poisoned.parameters()[name][clean.rows(k)]), name


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_products_round_alike_fused_or_not(precision: str) -> None:
    """Both ways round the same operands: training emulated with one (test_kernels_torch.py) stands for the other."""
    x = batch(33, 48)
    results = []
    for kind in ("fused", "gemm"):
        sweep = make(LossSettings(pre_bias=True), 48)
        results.append(engine_for(sweep, precision, kind).gradients(sweep, x)[1])
    exact = ReferenceEngine().gradients(make(LossSettings(pre_bias=True), 48), x)[1]
    for name, value in results[0].items():
        scale = value.norm()
        assert (results[1][name] - value).norm() < 0.4 * (exact[name] - value).norm() + 1e-4 * scale, name
        assert (exact[name] - value).norm() < 2e-2 * scale, name


def test_operands_follow_the_weights() -> None:
    """16-bit copies are written by Adam, and again where torch changed the weights: a loaded state."""
    sweep = make(LossSettings(), 20)
    engine = engine_for(sweep, "bfloat16", "fused")
    step = engine._last
    assert isinstance(step, fused.FusedStep)
    for seed in range(2):
        engine.step(sweep, batch(37, 20, seed), 1.0)
        assert torch.equal(step.dec, sweep.W_dec.bfloat16())
        assert torch.equal(step.enc, sweep.W_enc.bfloat16())
    fresh = make(LossSettings(), 20)
    sweep.load_state_dict(fresh.state_dict())
    engine.gradients(sweep, batch(37, 20))
    assert torch.equal(step.enc, fresh.W_enc.bfloat16())


def test_dispatch_by_width() -> None:
    for D, wanted, expected in (
        (32, None, fused.FusedStep),
        (32, False, gemm.GemmStep),
        (256, True, fused.FusedStep),
        (300, None, gemm.GemmStep),
        (300, True, gemm.GemmStep),
    ):
        sweep = Sweep(D, [3], [0.1], [0])
        engine = GpuEngine("cpu", fused=wanted)
        engine.gradients(sweep, batch(2, D))
        assert type(engine._last) is expected


def test_a_strided_batch_is_read_right() -> None:
    sweep = make(LossSettings(), 20)
    wide = batch(8, 40)
    expected = engine_for(sweep, "float16", "fused").gradients(sweep, wide[:, ::2].contiguous())[1]
    found = engine_for(sweep, "float16", "fused").gradients(sweep, wide[:, ::2])[1]
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_one_engine_serves_sweeps_in_turn() -> None:
    engine, sweeps = GpuEngine("cpu", precision="float32"), [make(LossSettings(), D) for D in (20, 24)]
    first = engine.gradients(sweeps[0], batch(5, 20))[1]
    engine.gradients(sweeps[1], batch(5, 24))
    again = engine.gradients(sweeps[0], batch(5, 20))[1]
    assert all(torch.equal(first[name], value) for name, value in again.items())


def test_bad_input_is_named() -> None:
    sweep = make(LossSettings(), 20)
    engine = GpuEngine("cpu")
    with pytest.raises(InvalidArgument):
        engine.step(sweep, batch(3, 19), 1.0)
    with pytest.raises(InvalidSetting, match="precision"):
        GpuEngine("cpu", precision="float8")
    with pytest.raises(InvalidSetting, match="float32"):
        engine.step(make(LossSettings(), 20, torch.float64), batch(3, 20).double(), 1.0)


def test_prefetch_hands_out_every_batch() -> None:
    batches = [batch(3, 4, seed) for seed in range(5)]
    assert [one.data_ptr() for one in GpuEngine("cpu").prefetch(batches)] == [one.data_ptr() for one in batches]


def test_doctor_suite_passes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `doctor --gpu` runs on a device, at sizes for the interpreter."""
    small = gpu_check.run_checks
    monkeypatch.setattr(gpu_check, "run_checks", lambda where: small(where, widths=(20, 300), sizes=[1, 17], rows=18))
    said: list[str] = []
    result = gpu_check.gpu_check("cpu", say=said.append)
    assert result["passed"], "\n".join(said)
    assert len(result["checks"]) == 13
    assert result["timings"] == []
    gpu_check.require_passed(result)


def test_doctor_suite_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "TOLERANCES", {"float32": 1e-12})
    checks = list(gpu_check.run_checks(torch.device("cpu"), widths=(20,), sizes=[3, 17], rows=18))
    failed = [check for check in checks if not check.passed]
    assert {check.name.split()[0] for check in failed} == {"gradients"}
    with pytest.raises(CheckFailed, match="use --engine reference"):
        gpu_check.require_passed({"checks": [vars(check) for check in checks]})


def test_every_switch_is_met() -> None:
    """The four combinations above are a covering array: every pair of values of every two switches that matter."""
    for left, right in (("tied", "pre_bias"), ("tied", "project_gradient"), ("mse", "l1_scale")):
        seen = {(getattr(loss, left), getattr(loss, right)) for loss in SWITCHES}
        values = [sorted({getattr(loss, name) for loss in SWITCHES}) for name in (left, right)]
        assert seen == set(product(*values))
