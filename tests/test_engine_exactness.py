"""The CPU engine against the reference in float64, and against itself: every way to compute gives the same bits.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode import _core
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

PATHS = _core.CpuEngine.paths()
WAYS = [(path, codes) for path in PATHS for codes in ("lists", "dense")]
SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias, project_gradient=project)
    for mse, l1_scale, tied, pre_bias, project in product(
        ("mean", "sum"), ("plain", "per-size"), (False, True), (False, True), (False, True)
    )
]


def make(
    width: int = 20,
    sizes: tuple[int, ...] = (1, 7, 65, 100),
    loss: LossSettings | None = None,
    seed: int = 0,
    bias: float = 0.0,
) -> Sweep:
    """A float32 sweep with nothing at zero: biases around `bias`, and an encoder unlike the decoder."""
    K = len(sizes)
    l1 = [0.3 / (k + 1) for k in range(K)]
    sweep = Sweep(width, sizes, l1, list(range(K)), lr=[1e-2 * (k + 1) for k in range(K)], loss=loss)
    generator = torch.Generator().manual_seed(seed)
    sweep.b_enc += bias + 0.1 * torch.randn(sweep.total, generator=generator)
    if not sweep.loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.total, width, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


def in_float64(sweep: Sweep) -> Sweep:
    """The same numbers for the reference."""
    exact = Sweep(
        sweep.activation_dim, sweep.sizes, sweep.l1, sweep.seeds, lr=sweep.lr, loss=sweep.loss, dtype=torch.float64
    )
    for name, mine in exact.state_dict().items():
        mine.copy_(sweep.state_dict()[name])
    exact.step = sweep.step
    return exact


def batch(rows: int, width: int = 20, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Relative to the largest: gradients are sums in which large terms cancel."""
    gap = (found.double() - expected).abs().max()
    assert gap <= tolerance * max(float(expected.abs().max()), 1e-20), what


def assert_same_sums(found: StepStats, expected: StepStats) -> None:
    assert found.rows == expected.rows
    for name in ("sse", "l1", "l0"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, msg=name)


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name].nan_to_num(7.25), b[name].nan_to_num(7.25)) for name in a)


def state(sweep: Sweep) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in sweep.state_dict().items()}


@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_gradients_and_steps_are_those_of_the_reference(loss: LossSettings) -> None:
    sweep, x = make(loss=loss), batch(130)
    exact, engine, reference = in_float64(sweep), CpuEngine(threads=2), ReferenceEngine()
    before = state(sweep)
    stats, gradients = engine.gradients(sweep, x)
    expected_stats, expected = reference.gradients(exact, x.double())
    assert same_bits(before, state(sweep))
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        assert_near(gradients[name], gradient, 1e-5, name)
    assert_same_sums(stats, expected_stats)
    for scale in (0.5, 1.0, 0.25):
        assert_same_sums(engine.step(sweep, x, scale), reference.step(exact, x.double(), scale))
    assert sweep.step == exact.step == 3
    assert torch.equal(sweep.fired, exact.fired)
    for name, value in exact.state_dict().items():
        assert_near(state(sweep)[name].double(), value.double(), 1e-4, name)
    assert torch.allclose(sweep.W_dec.norm(dim=1), torch.ones(sweep.total), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    width=st.one_of(st.integers(1, 140), st.sampled_from([255, 256, 257, 512, 1000, 1024])),
    sizes=st.lists(st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 100])), min_size=1, max_size=3),
    rows=st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 300])),
    bias=st.sampled_from([-1.5, -0.3, 0.0, 3.0]),
    loss=st.sampled_from(SWITCHES),
    seed=st.integers(0, 100),
)
def test_any_shape(width: int, sizes: list[int], rows: int, bias: float, loss: LossSettings, seed: int) -> None:
    """All paths, both ways to hold codes, one thread and three: near the reference, and equal bit by bit."""
    x = batch(rows, width, seed)
    first = make(width, tuple(sizes), loss, seed, bias)
    stats, gradients = CpuEngine(threads=1).gradients(first, x)
    expected_stats, expected = ReferenceEngine().gradients(in_float64(first), x.double())
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, 1e-5, name)
    # A pre-activation within rounding of zero may count on one side only.
    torch.testing.assert_close(stats.sse, expected_stats.sse, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stats.l1, expected_stats.l1, rtol=1e-5, atol=1e-5)
    assert (stats.l0 - expected_stats.l0).abs().max() <= 1
    results = []
    for (path, codes), threads in zip(WAYS, [1, 3] * len(WAYS), strict=False):
        sweep = make(width, tuple(sizes), loss, seed, bias)
        engine = CpuEngine(threads=threads, path=path, codes=codes)
        sums = [engine.step(sweep, x, 1.0), engine.evaluate(sweep, x)]
        results.append(
            state(sweep) | {f"{name}{i}": getattr(s, name) for i, s in enumerate(sums) for name in ("sse", "l1", "l0")}
        )
    for way, result in zip(WAYS, results, strict=True):
        for name in result:
            assert torch.equal(result[name], results[0][name]), (way, name)


@pytest.mark.parametrize(("path", "codes"), WAYS)
def test_every_way_gives_the_bits_of_the_first_on_a_whole_batch(path: str, codes: str) -> None:
    """Sizes of many blocks and waves; 20 steps, in which a lost candidate or another order of additions would show."""
    found = []
    for way in ((PATHS[0], "measured"), (path, codes)):
        sweep = make(32, (64, 300), bias=-0.5)
        engine = CpuEngine(threads=2, path=way[0], codes=way[1])
        for i in range(20):
            engine.step(sweep, batch(1000, 32, i), 1.0)
        found.append(state(sweep))
    assert same_bits(*found)


@pytest.mark.parametrize("codes", ["lists", "dense"])
def test_alone_or_in_a_sweep_and_with_any_number_of_threads(codes: str) -> None:
    sizes, loss = (5, 64, 100), LossSettings(pre_bias=True)
    whole, x = make(24, sizes, loss, bias=-0.3), batch(700, 24)
    parts = []
    for k, size in enumerate(sizes):
        alone = Sweep(24, [size], [whole.l1[k]], [whole.seeds[k]], lr=whole.lr[k], loss=loss)
        for name, value in alone.parameters().items():
            own = whole.parameters()[name]
            value.copy_(own[k : k + 1] if name == "b_dec" else own[whole.rows(k)])
        parts.append(alone)
    engine = CpuEngine(threads=3, codes=codes)
    for _ in range(3):
        engine.step(whole, x, 1.0)
    for k, alone in enumerate(parts):
        single = CpuEngine(threads=1, codes=codes)
        for _ in range(3):
            single.step(alone, x, 1.0)
        assert torch.equal(alone.W_dec, whole.W_dec[whole.rows(k)])
        assert torch.equal(alone.W_enc, whole.W_enc[whole.rows(k)])
        assert alone.b_dec is not None and whole.b_dec is not None
        assert torch.equal(alone.b_dec[0], whole.b_dec[k])


def test_all_codes_zero_and_all_active() -> None:
    for bias, active in ((-100.0, 0), (100.0, 1)):
        sweep, x = make(16, (33,), bias=bias), batch(65, 16)
        exact = in_float64(sweep)
        for path, codes in WAYS:
            stats, gradients = CpuEngine(threads=2, path=path, codes=codes).gradients(sweep, x)
            _, expected = ReferenceEngine().gradients(exact, x.double())
            assert stats.l0.item() == active * 33 * 65
            for name, gradient in expected.items():
                assert_near(gradients[name], gradient, 1e-5, name)


@pytest.mark.parametrize(("path", "codes"), WAYS)
def test_a_pre_activation_of_exactly_zero_is_inactive(path: str, codes: str) -> None:
    """Integers, whose products every screen and every sum gets exactly: a third of the pre-activations are 0."""
    generator = torch.Generator().manual_seed(5)
    sweep = make(16, (48,))
    sweep.W_enc.copy_(torch.randint(-1, 2, (48, 16), generator=generator).float())
    sweep.b_enc.copy_(torch.randint(-1, 2, (48,), generator=generator).float())
    x = torch.randint(-1, 2, (100, 16), generator=generator).float()
    y = x.double() @ sweep.W_enc.double().T + sweep.b_enc.double()
    assert (y == 0).sum() > 300
    stats, gradients = CpuEngine(threads=2, path=path, codes=codes).gradients(sweep, x)
    _, expected = ReferenceEngine().gradients(in_float64(sweep), x.double())
    assert stats.l0.item() == (y > 0).sum()
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, 1e-5, name)


def test_memory_does_not_grow_with_rows_times_features() -> None:
    sweep, x = make(16, (4096,), bias=-4.0), batch(8192, 16)
    engine = CpuEngine(threads=2)
    stats = engine.step(sweep, x, 0.0)
    stats = engine.step(sweep, x, 0.0)
    assert stats.l0.item() / 8192 < 40
    assert engine.bytes < 8192 * 4096  # a quarter of one float per row and feature
