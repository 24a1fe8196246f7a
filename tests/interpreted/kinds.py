"""Every kind of dictionary on the GPU engine, under Triton's interpreter; run by tests/kernels/test_interpreter.py.

One check holds the engine to the float64 reference; each bug planted in the step must make it fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from triton.runtime.errors import InterpreterError

from engine_cases import assert_near, batch, engine_named, in_float64, red_zones, same_bits, state
from kernel_mutants import GPU, Mutant
from kind_sweeps import KINDS, SWITCHES, TEXTS, make_kinds
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.gpu import GpuEngine, kinds, lists
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import parse_kinds

PRE_BIAS = LossSettings(pre_bias=True)
SELECTED = ("topk k=3", "batchtopk k=2.5")  # those that lists may take
FEW = [TEXTS[0], *SELECTED, *TEXTS[3:4], *TEXTS[5:6], TEXTS[9], *TEXTS[12:13], *TEXTS[14:]]
PLANNED = 40
P_FALLS = parse_kinds(FEW[-2])[0].annealing(PLANNED).after[0]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with red_zones(monkeypatch):
        yield


def made(loss: LossSettings, texts: list[str] = FEW) -> Sweep:
    specs = [KINDS[TEXTS.index(text)] for text in texts]
    sizes = [20 + 7 * (k % 3) for k in range(len(specs))]  # words of 32 features that are not full
    sweep = make_kinds(loss, specs, torch.float32, sizes=sizes)
    sweep.state.plan(PLANNED)
    return sweep


def engine_of(
    sweep: Sweep, plain: str, precision: str = "float32", module: ModuleType = kinds
) -> tuple[GpuEngine, kinds.KindStep]:
    """A GPU engine whose ReLU dictionaries go the way named `plain`, and its step for the sweep."""
    engine = engine_named(plain, sweep, precision)
    assert isinstance(engine, GpuEngine)
    assert engine._last is not None
    step: kinds.KindStep = module.KindStep(engine._last, precision)
    engine._last = step
    return engine, step


def listed(texts: list[str]) -> set[int]:
    return {k for k, text in enumerate(texts) if text in SELECTED}


def check(plain: str, loss: LossSettings, now: int, texts: list[str] = FEW, module: ModuleType = kinds) -> None:
    """Gradients and stats at a step, three steps with what they leave, and use: all near the reference."""
    sweep, x = made(loss, texts), batch(33, 10, seed=9)
    sweep.step = now
    exact = in_float64(sweep)
    exact.state.plan(PLANNED)
    engine, step = engine_of(sweep, plain, module=module)
    stats, found = engine.gradients(sweep, x)
    truth, expected = ReferenceEngine().gradients(exact, x.double())
    assert set(step.listed) == (listed(texts) if plain.startswith("lists") else set())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        for k, text in enumerate(texts):
            if (at := sweep.place(name, k)) is not None:
                # z^(p-1) of codes near 0 multiplies what float32 rounds away of them.
                tolerance = 3e-3 if text.startswith("panneal") else 3e-5
                assert_near(found[name][at], gradient[at], tolerance, f"{text} {name}")
    for name in ("sse", "l1", "l0"):
        torch.testing.assert_close(getattr(stats, name), getattr(truth, name), rtol=1e-5, atol=1e-5, msg=name)
    for seed in range(3):
        rows = batch(33, 10, seed=seed)
        engine.step(sweep, rows, 1.0, 0.5)
        ReferenceEngine().step(exact, rows.double(), 1.0, 0.5)
    # Adam's first steps divide by a gradient's own size, so that one near 0 may go either way.
    for name, value in sweep.parameters().items():
        off = (value.double() - exact.parameters()[name]).abs() > 1e-3
        assert off.float().mean() < 0.02, name
    if "theta" in sweep.own:
        assert bool((sweep.own["theta"] >= 0).all())
    assert torch.equal(sweep.fired, exact.fired)
    for name, tensor in sweep.state.tensors().items():
        torch.testing.assert_close(tensor, exact.state.tensors()[name].to(tensor), rtol=1e-2, atol=1e-4, equal_nan=True)
    used, meant = engine.evaluate(sweep, x), ReferenceEngine().evaluate(in_float64(sweep), x.double())
    torch.testing.assert_close(used.sse, meant.sse, rtol=1e-3, atol=1e-3)


def check_products(dtype: torch.dtype, module: ModuleType = kinds) -> None:
    """Scaled by powers of two, rounding does not depend on how large a matrix is."""
    products = module.RoundedProducts(dtype)
    a, b = batch(20, 30), batch(30, 10, seed=1)
    found = products.of(a, b)
    assert_near(found, a.double() @ b.double(), 2e-3 if dtype == torch.float16 else 2e-2, str(dtype))
    for power in (-60, -30, 20, 60):
        assert torch.equal(products.of(a * 2.0**power, b), found * 2.0**power)
    assert torch.equal(products.of(torch.zeros_like(a), b), torch.zeros(20, 10))
    a[3, 4] = float("nan")
    assert products.of(a, b)[3].isnan().all()
    assert products.of(a[:0], b).shape == (0, 10)


@pytest.mark.parametrize(("turn", "loss"), [(turn, SWITCHES[i]) for turn, i in enumerate((0, 3, 5, 6))], ids=str)
def test_every_kind_is_the_references(turn: int, loss: LossSettings) -> None:
    check("lists-products", loss, (0, PLANNED - 1)[turn % 2], TEXTS)


@pytest.mark.parametrize("plain", ["products", "lists-fused", "fused"])
def test_beside_every_way_of_relu(plain: str) -> None:
    check(plain, PRE_BIAS, 0)


def test_too_many_codes_for_the_lists_go_through_products() -> None:
    sweep, x = made(PRE_BIAS), batch(33, 10)
    engine, step = engine_of(sweep, "lists-products")
    expected = engine.gradients(sweep, x)[1]
    assert set(step.listed) == listed(FEW)
    assert step.lists is not None
    step.lists.capacity = [1] * len(sweep)
    found = engine.gradients(sweep, x)[1]
    assert step.listed == ()
    for name, value in found.items():
        assert_near(value, expected[name].double(), 3e-6, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_small_derivatives_survive_16_bit(dtype: torch.dtype) -> None:
    check_products(dtype)


def test_a_training_in_16_bit_that_was_interrupted() -> None:
    def train(stop: bool) -> dict[str, Tensor]:
        sweep = made(PRE_BIAS)
        engine, _ = engine_of(sweep, "lists-products", "float16")
        for seed in range(3):
            if stop and seed == 2:
                saved, step = state(sweep), sweep.step
                sweep = made(PRE_BIAS)
                sweep.load_state_dict(saved)
                assert sweep.step == step
                engine, _ = engine_of(sweep, "lists-products", "float16")
            engine.step(sweep, batch(33, 10, seed=seed), 1.0)
        return state(sweep)

    assert same_bits(train(stop=False), train(stop=True))


BUGS = (
    Mutant("kinds", "exponent of an operand forgotten", "up + more", "up", GPU),
    Mutant(
        "kinds",
        "L1 factor forgotten",
        "sweep.step, self.l1_factor, self.products",
        "sweep.step, 1.0, self.products",
        GPU,
    ),
    Mutant("kinds", "state of the step after", "sweep.step - 1, self._kept", "sweep.step, self._kept", GPU),
    Mutant("kinds", "rows since firing not counted", "self.fired[own], rows)", "self.fired[own], 0)", GPU),
    Mutant(
        "kinds",
        "gradients of own parameters to others",
        "self.own[name][sweep.place(name, k)] =",
        "self.own[name][:1] =",
        GPU,
    ),
    Mutant("kinds", "pre-bias of kinds forgotten", 'self.d_pre[k] = gradients["b_dec"]', "self.d_pre[k] = 0", GPU),
    Mutant("kinds", "thresholds below zero", ".clamp_(min=0)", ".clamp_(min=-1)", GPU),
    Mutant("kinds", "own parameters never move", "sweep.lr[k] * lr_scale)", "0.0)", GPU),
    Mutant("kinds", "firings of the lists forgotten", "self.fired[rows] = self.lists.firings()[rows]", "pass", GPU),
    Mutant("kinds", "firings of ReLU forgotten", "self.fired.copy_(self.plain.firings())", "pass", GPU),
    Mutant("kinds", "codes taken for gradients", "products))\n", "products)[::-1])\n", GPU),
    Mutant(
        "lists",
        "words of the first dictionary",
        "words[k] : words[k + 1]]",
        "words[0] : words[0] + words[k + 1] - words[k]]",
        GPU,
    ),
    Mutant(
        "lists", "bits in the wrong order", "for bit in range(WORD - 1))", "for bit in reversed(range(WORD - 1)))", GPU
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.module}-{bug.bug.replace(' ', '-')}")
def test_bug_is_caught(bug: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = bug.load(tmp_path)
    if bug.module == "lists":
        for name in ("gradients_of_selected", "_counted"):
            monkeypatch.setattr(lists.SparseStep, name, getattr(module.SparseStep, name))
        module = kinds
    with pytest.raises((AssertionError, RuntimeError, InterpreterError)):
        check("lists-products", PRE_BIAS, P_FALLS, module=module)
        check_products(torch.float16, module)
