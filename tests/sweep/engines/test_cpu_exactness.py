"""The CPU engine against itself: every way to compute gives the same bits. What it shares with the other engines is in
tests/sweep/test_engines.py.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine_cases import SWITCHES, assert_near, batch, cancellation, in_float64, make, same_bits, state
from sparsecode import _core
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

PATHS = _core.CpuEngine.paths()
WAYS = [(path, codes) for path in PATHS for codes in ("lists", "dense")]


@example(width=116, sizes=[1], rows=1, bias=-1.5, loss=SWITCHES[0], seed=1)  # one code, all but cancelled
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
    """All paths, both representations of codes, one and three threads: near the reference, and equal bit by bit."""
    x = batch(rows, width, seed)
    first = make(width, tuple(sizes), loss, seed, bias)
    stats, gradients = CpuEngine(threads=1).gradients(first, x)
    expected_stats, expected = ReferenceEngine().gradients(in_float64(first), x.double())
    tolerance = max(1e-5, torch.finfo(torch.float32).eps * cancellation(first, x))
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, tolerance, name)
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


def test_memory_does_not_grow_with_rows_times_features() -> None:
    sweep, x = make(16, (4096,), bias=-4.0), batch(8192, 16)
    engine = CpuEngine(threads=2)
    stats = engine.step(sweep, x, 0.0)
    stats = engine.step(sweep, x, 0.0)
    assert stats.l0.item() / 8192 < 40
    assert engine.bytes < 8192 * 4096  # a quarter of one float per row and feature
