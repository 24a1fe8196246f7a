"""What only the GPU engine does, under Triton's interpreter; run by tests/kernels/test_interpreter.py.

What it shares with them is in tests/sweep/test_engines.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engine_cases import batch, engine_named, make, red_zones, same_bits, state
from interpreter_shim import reversed_programs
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.gpu import GpuEngine
from sparsecode.sweep.engines.gpu import check as gpu_check
from sparsecode.sweep.engines.gpu.fused import FusedStep
from sparsecode.sweep.engines.gpu.gemm import GemmStep
from sparsecode.sweep.engines.gpu.lists import SparseStep
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.split import Split
from sparsecode.world import Team
from teams import in_teams


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with red_zones(monkeypatch):
        yield


def step_of(name: str, sweep: Sweep, precision: str = "float32") -> tuple[GpuEngine, object]:
    """A GPU engine with its way fixed, and that way."""
    engine = engine_named(name, sweep, precision)
    assert isinstance(engine, GpuEngine)
    return engine, engine._last


def test_splits_happen() -> None:
    sweep = make()
    engine, step = step_of("split", sweep)
    engine.gradients(sweep, batch())
    assert isinstance(step, FusedStep)
    assert step.splits == 2


@pytest.mark.parametrize("dense", ["fused", "products"])
def test_each_dictionary_goes_its_own_way(dense: str) -> None:
    """Only this batch's codes decide: dictionaries beyond their share of the lists take the dense way, and return."""
    sweep = make()
    engine, step = step_of(f"lists-{dense}", sweep)
    assert isinstance(step, SparseStep)
    seen = []
    for bias, expected in ((0.0, {0, 2}), (3.0, set()), (-100.0, {0, 1, 2})):
        sweep.b_enc += bias
        l0 = engine.gradients(sweep, batch())[0].l0
        few = {k for k, size in enumerate(sweep.sizes) if l0[k] <= max(1, int(0.34 * 18 * size))}
        assert set(step.taken) == few
        assert few == expected
        seen.append(few)
        sweep.b_enc -= bias


@pytest.mark.parametrize("kind", ["fused", "split", "lists-fused"])
def test_same_bits_in_any_order_of_programs(kind: str) -> None:
    def train() -> dict[str, Tensor]:
        sweep = make(loss=LossSettings(pre_bias=True))
        engine, _ = step_of(kind, sweep, "float16")
        for seed in range(2):
            engine.step(sweep, batch(seed=seed), 1.0)
        return state(sweep)

    first = train()
    with reversed_programs():
        second = train()
    assert same_bits(first, second)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_products_round_alike_whatever_the_way(precision: str) -> None:
    """All ways round operands alike, so training emulated with one (sweep/engines/test_gpu.py) covers the others."""
    loss, x = LossSettings(pre_bias=True), batch(33, 48)
    results = {}
    for kind in ("products", "fused", "lists"):
        sweep = make(48, loss=loss)
        results[kind] = step_of(kind, sweep, precision)[0].gradients(sweep, x)[1]
    exact = ReferenceEngine().gradients(make(48, loss=loss), x)[1]
    for name, value in results.pop("products").items():
        rounding, scale = (exact[name] - value).norm(), value.norm()
        assert rounding < 4e-2 * scale, name
        for kind, other in results.items():
            # The lists hold codes in float32, which the products round: no more than that much apart.
            share = 0.4 if kind == "fused" else 1.0
            assert (other[name] - value).norm() < share * rounding + 1e-4 * scale, (kind, name)


@pytest.mark.parametrize("kind", ["fused", "lists-products"])
def test_operands_follow_the_weights(kind: str) -> None:
    """16-bit copies are written by Adam, and again where torch changed the weights: a loaded state."""
    sweep = make()
    engine, step = step_of(kind, sweep, "bfloat16")
    assert isinstance(step, FusedStep | SparseStep)
    for seed in range(2):
        engine.step(sweep, batch(seed=seed), 1.0)
        assert torch.equal(step.operands.dec, sweep.W_dec.bfloat16())
        assert torch.equal(step.operands.enc, sweep.W_enc.bfloat16())
    fresh = make()
    sweep.load_state_dict(fresh.state_dict())
    engine.gradients(sweep, batch())
    assert torch.equal(step.operands.enc, fresh.W_enc.bfloat16())


def test_dispatch_by_width() -> None:
    for D, fused, lists, expected in (
        (32, None, None, FusedStep),
        (32, False, None, GemmStep),
        (32, True, True, SparseStep),
        (256, True, False, FusedStep),
        (300, None, None, GemmStep),
        (300, True, True, GemmStep),
    ):
        sweep = Sweep(D, [3], [0.1], [0])
        engine = GpuEngine("cpu", fused=fused, sparse=lists)
        engine.gradients(sweep, batch(2, D))
        assert type(engine._last) is expected


def test_one_engine_serves_sweeps_in_turn() -> None:
    engine, sweeps = GpuEngine("cpu", precision="float32"), [make(D) for D in (20, 24)]
    first = engine.gradients(sweeps[0], batch(5, 20))[1]
    engine.gradients(sweeps[1], batch(5, 24))
    again = engine.gradients(sweeps[0], batch(5, 20))[1]
    assert all(torch.equal(first[name], value) for name, value in again.items())


def test_batches_of_another_size_follow() -> None:
    """Buffers are reallocated, and the firings of every batch are counted."""
    sweep, other = make(), make()
    engine, _ = step_of("lists-fused", sweep)
    reference = ReferenceEngine()
    for rows in (18, 5):
        engine.evaluate(sweep, batch(rows))
        reference.evaluate(other, batch(rows))
        engine.step(sweep, batch(rows), 0.0)
        reference.step(other, batch(rows), 0.0)
        assert torch.equal(sweep.fired, other.fired)


def test_bad_settings_are_named() -> None:
    with pytest.raises(InvalidSetting, match="precision"):
        GpuEngine("cpu", precision="float8")
    double = Sweep(18, [3], [0.1], [0], dtype=torch.float64)
    with pytest.raises(InvalidSetting, match="float32"):
        GpuEngine("cpu").step(double, batch(3).double(), 1.0)
    with pytest.raises(InvalidArgument):
        GpuEngine("cpu").step(make(), batch(3, 19), 1.0)


def test_prefetch_hands_out_every_batch() -> None:
    batches = [batch(3, 4, seed) for seed in range(5)]
    assert [one.data_ptr() for one in GpuEngine("cpu").feed(batches)] == [one.data_ptr() for one in batches]


def test_doctor_suite_passes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the suite of `doctor --gpu` at sizes for the interpreter."""
    small = gpu_check.run_checks
    monkeypatch.setattr(gpu_check, "run_checks", lambda where: small(where, widths=(20, 300), sizes=[1, 17], rows=18))
    said: list[str] = []
    result = gpu_check.gpu_check("cpu", say=said.append)
    assert result["passed"], "\n".join(said)
    assert len(result["checks"]) == 16
    assert result["timings"] == []


def test_doctor_suite_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "TOLERANCES", {"float32": 1e-12})
    checks = list(gpu_check.run_checks(torch.device("cpu"), widths=(20,), sizes=[3, 17], rows=18))
    failed = [check for check in checks if not check.passed]
    assert {check.name.split()[0] for check in failed} == {"gradients", "lists", "other"}


@pytest.mark.parametrize("pre_bias", [False, True])
def test_products_of_dictionaries_that_are_shared_have_the_same_bits(pre_bias: bool) -> None:
    """In 1, 2 and 4 processes; whole dictionaries differ by rounding alone."""
    x = torch.randn(24, 20, generator=torch.Generator().manual_seed(0))

    def gradients(split: Split | None) -> tuple[Tensor, ...]:
        sweep = Sweep(20, [32, 16], [0.05, 0.02], [0, 1], loss=LossSettings(pre_bias=pre_bias), split=split)
        if sweep.b_dec is not None:
            sweep.b_dec += 0.1
        engine = GpuEngine("cpu", precision="float32", fused=False, sparse=False)
        stats, found = engine.gradients(sweep, x)
        whole = [
            sweep.whole(part.contiguous())
            for name, value in found.items()
            if name != "b_dec"
            for part in sweep.per_dictionary(value)
        ]
        return (*whole, *([found["b_dec"]] if pre_bias else []), stats.sse, stats.l1, stats.l0)

    expected, alone = gradients(None), gradients(Split(4, Team()))
    for one, other in zip(alone, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for size in (2, 4):
        for found in in_teams(size, lambda team: gradients(Split(4, team))):
            assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_frozen_atoms_stay_and_aligned_encoders_have_a_product_of_1(fused: bool) -> None:
    for loss in (LossSettings(frozen=True), LossSettings(aligned=True)):
        own, reference = (Sweep(20, [17, 8], [0.05, 0.02], [0, 1], loss=loss) for _ in range(2))
        before, engine = own.W_dec.clone(), GpuEngine("cpu", precision="float32", fused=fused, sparse=False)
        for seed in range(3):
            x = torch.randn(24, 20, generator=torch.Generator().manual_seed(seed))
            engine.step(own, x, 1.0)
            ReferenceEngine().step(reference, x, 1.0)
        torch.testing.assert_close(own.W_enc, reference.W_enc, rtol=1e-3, atol=1e-4)
        if loss.frozen:
            assert torch.equal(own.W_dec, before) and not torch.equal(own.W_enc, before)
        else:
            assert float(((own.W_enc * own.W_dec).sum(1) - 1).abs().max()) < 1e-6
