"""One step of dictionaries of 64, 128, ..., 4096 features on 4096 activations of a trained transformer: the engine's
paths against torch.

Rows of a group stand beside each other. `ratio` in a row's extra info is the median over rounds in which every
contender ran once, one after the other, of its baseline's time by its own: on a shared machine those pairs can be
trusted, the minima of separate rows less.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable

import pytest
import torch
from benches.interleave import interleaved
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from sparsecode import _core
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import Dataset
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

# Sweeps, trained in seconds

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]
L1 = 0.03
BATCH = 4096
MOST_STEPS = 1500  # of training until codes are sparse


@functools.cache
def gpt_activations(width: int, rows: int) -> Tensor:
    """Hidden activations [rows, width] of the MLP of block 2 after the nonlinearity, in an order that mixes contexts.

    Less their mean and divided by the root mean square: after so short a training they are nearly constant.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        train_gpt(
            run, quiet=True, max_text_mb=2, val_fraction=0.1, vocab_size=512, n_layer=3, n_head=4,
            d_model=max(32, width // 4), d_mlp=width, context=64, batch_size=16, steps=200, warmup_steps=20,
            val_tokens=4096, device="cpu",
        )  # fmt: skip
        found = harvest_activations(run, quiet=True, layer=2, rows=rows, dtype="float32", device="cpu")
        x = Dataset(run.path / found["path"]).read(0, rows).clone()
    x = x[torch.randperm(rows, generator=torch.Generator().manual_seed(0))] - x.mean(0)
    return (x / x.square().mean().sqrt()).contiguous()


def trained(width: int, repeats: int = 1) -> tuple[Sweep, Tensor]:
    """One dictionary of each size (times `repeats`) with an L0 below 20, and four batches [4 BATCH, width].

    Biases start low, so that training begins where a usual run arrives after a few hundred dense steps.
    """
    x = gpt_activations(width, 8 * BATCH)
    sweep = Sweep(width, SIZES, [L1] * len(SIZES), [0] * len(SIZES), lr=3e-3, loss=LossSettings())
    sweep.b_enc -= 2.0
    engine = CpuEngine()
    for step in range(MOST_STEPS):
        start = step % 8 * BATCH
        stats = engine.step(sweep, x[start : start + BATCH], min(1.0, (step + 1) / 50))
        if step >= 200 and stats.l0.max() / BATCH < 20:
            break
    assert stats.l0.max() / BATCH < 20, stats.l0 / BATCH
    if repeats > 1:
        sweep = repeated(sweep, repeats)
    sweep.lr = [1e-6] * len(sweep)  # timing must not change what is timed
    return sweep, x[: 4 * BATCH].contiguous()


def repeated(sweep: Sweep, repeats: int) -> Sweep:
    """Every dictionary `repeats` times: a sweep over so many coefficients, without the training."""
    K = len(sweep) * repeats
    wide = Sweep(
        sweep.activation_dim,
        sweep.sizes * repeats,
        sweep.l1 * repeats,
        list(range(K)),
        lr=sweep.lr * repeats,
        loss=sweep.loss,
    )
    wide.step = sweep.step
    for name, value in wide.parameters().items():
        value.copy_(sweep.parameters()[name].repeat(repeats, *[1] * (value.ndim - 1)))
        for mine, theirs in zip(wide.moments[name], sweep.moments[name], strict=True):
            mine.copy_(theirs.repeat(repeats, *[1] * (mine.ndim - 1)))
    return wide


def clone(sweep: Sweep) -> Sweep:
    """An independent copy."""
    return repeated(sweep, 1)


# Contenders

Step = Callable[[], object]
BASELINES = ("torch-autograd", "torch-bmm-padded", "torch-5-gemm")
PATHS = _core.CpuEngine.paths()[:-1]  # the last is scalar


def autograd(sweep: Sweep, x: Tensor) -> Step:
    """The straightforward way: a module per dictionary, autograd, fused Adam, atoms renormalised."""
    parts = []
    for k in range(len(sweep)):
        own = sweep.rows(k)
        parts.append([nn.Parameter(p[own].clone()) for p in (sweep.W_enc, sweep.b_enc, sweep.W_dec)])
    optimizer = torch.optim.Adam([p for part in parts for p in part], lr=1e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        for k, (encoder, bias, decoder) in enumerate(parts):
            z = torch.relu(torch.nn.functional.linear(x, encoder, bias))
            loss = (z @ decoder - x).square().mean() + sweep.l1[k] * z.sum(1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for _, _, decoder in parts:
                decoder.div_(decoder.norm(dim=1, keepdim=True))

    return step


def bmm_padded(sweep: Sweep, x: Tensor) -> Step:
    """All dictionaries stacked and padded to the largest, one batched product each way."""
    K, F, D = len(sweep), max(sweep.sizes), sweep.activation_dim
    encoder, decoder, bias = torch.zeros(K, D, F), torch.zeros(K, F, D), torch.full((K, 1, F), -1e9)
    for k, size in enumerate(sweep.sizes):
        own = sweep.rows(k)
        encoder[k, :, :size], decoder[k, :size], bias[k, 0, :size] = (
            sweep.W_enc[own].T,
            sweep.W_dec[own],
            sweep.b_enc[own],
        )
    parameters = [nn.Parameter(p) for p in (encoder, decoder, bias)]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)
    l1 = torch.tensor(sweep.l1)

    def step() -> None:
        optimizer.zero_grad()
        z = torch.relu(x @ parameters[0] + parameters[2])
        error = (z @ parameters[1] - x).square().mean((1, 2))
        (error + l1 * z.sum((1, 2)) / len(x)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            parameters[1].div_(parameters[1].norm(dim=2, keepdim=True).clamp(min=1e-20))

    return step


def contender(name: str, sweep: Sweep, x: Tensor, threads: int | None = None) -> Step:
    """One step of a contender on its own copy of the sweep."""
    own = clone(sweep)
    if name == "torch-autograd":
        return autograd(own, x)
    if name == "torch-bmm-padded":
        return bmm_padded(own, x)
    if name == "torch-5-gemm":
        return functools.partial(ReferenceEngine().step, own, x, 1.0)
    path, _, codes = name.partition("+")
    return functools.partial(CpuEngine(threads=threads, path=path, codes=codes or "measured").step, own, x, 1.0)


@functools.cache
def state(width: int) -> tuple[Sweep, Tensor]:
    sweep, x = trained(width)
    return sweep, x[:BATCH].contiguous()


@functools.cache
def contenders(width: int) -> tuple[dict[str, Step], dict[str, float]]:
    sweep, x = state(width)
    names = [*BASELINES, *PATHS] if width == 128 else ["torch-autograd", PATHS[0]]
    steps = {name: contender(name, sweep, x) for name in names}
    for step in steps.values():
        step()
    return steps, interleaved(steps, "torch-autograd", 5 if width == 128 else 3)


def measure(benchmark: BenchmarkFixture, step: Step, ratio: float, rounds: int = 5) -> None:
    """Measures without warm-up, since the pairs have warmed everything up."""
    benchmark.extra_info["ratio"] = round(ratio, 2)
    benchmark.pedantic(step, rounds=rounds)


@pytest.mark.benchmark(group="engine: trained, D = 128, N = 8,128")
@pytest.mark.parametrize("name", [*BASELINES, *PATHS])
def test_step(benchmark: BenchmarkFixture, name: str) -> None:
    steps, ratios = contenders(128)
    measure(benchmark, steps[name], ratios[name], 2 if name in BASELINES else 20)


@pytest.mark.benchmark(group="engine: other widths, N = 8,128")
@pytest.mark.parametrize("name", ["torch-autograd", PATHS[0]])
@pytest.mark.parametrize("width", [32, 512])
def test_width(benchmark: BenchmarkFixture, width: int, name: str) -> None:
    steps, ratios = contenders(width)
    measure(benchmark, steps[name], ratios[name], 2)


@pytest.mark.benchmark(group="engine: the first step, half of all codes active, D = 128")
@pytest.mark.parametrize("name", ["torch-autograd", "torch-5-gemm", f"{PATHS[0]}+lists", f"{PATHS[0]}+dense"])
def test_dense(benchmark: BenchmarkFixture, name: str) -> None:
    steps, ratios = dense_contenders()
    measure(benchmark, steps[name], ratios[name], 2)


@functools.cache
def dense_contenders() -> tuple[dict[str, Step], dict[str, float]]:
    sweep, x = state(128)
    fresh = Sweep(128, sweep.sizes, sweep.l1, sweep.seeds, lr=1e-6)
    names = ["torch-autograd", "torch-5-gemm", f"{PATHS[0]}+lists", f"{PATHS[0]}+dense"]
    steps = {name: contender(name, fresh, x) for name in names}
    for step in steps.values():
        step()
    return steps, interleaved(steps, "torch-autograd", 3)


@pytest.mark.benchmark(group="engine: growth, D = 128")
@pytest.mark.parametrize("name", ["1 thread", "2 threads", "2 threads, N = 65,024"])
def test_growth(benchmark: BenchmarkFixture, name: str) -> None:
    steps, ratios = growth_contenders()
    measure(benchmark, steps[name], ratios[name], 5)


@functools.cache
def growth_contenders() -> tuple[dict[str, Step], dict[str, float]]:
    sweep, x = state(128)
    steps = {
        "1 thread": contender("auto", sweep, x, threads=1),
        "2 threads": contender("auto", sweep, x, threads=2),
        "2 threads, N = 65,024": contender("auto", repeated(sweep, 8), x, threads=2),
    }
    for step in steps.values():
        step()
    return steps, interleaved(steps, "1 thread", 9)


@pytest.mark.benchmark(group="engine: 100 steps from the start, D = 128, sizes 64-1024")
@pytest.mark.parametrize("name", ["torch-5-gemm", "auto"])
def test_from_the_start(benchmark: BenchmarkFixture, name: str) -> None:
    sizes = [64, 256, 1024]
    sweep, x = Sweep(128, sizes, [0.02] * 3, [0] * 3, lr=3e-3), gpt_activations(128, 8 * BATCH)
    engine = ReferenceEngine() if name == "torch-5-gemm" else CpuEngine()

    def run() -> None:
        for i in range(100):
            stats = engine.step(sweep, x[i % 4 * BATCH : (i % 4 + 1) * BATCH], 1.0)
        benchmark.extra_info["fvu"] = [round(v, 4) for v in (stats.sse / BATCH / 128).tolist()]
        benchmark.extra_info["l0"] = [round(v, 2) for v in (stats.l0 / BATCH).tolist()]

    benchmark.pedantic(run, rounds=1)
