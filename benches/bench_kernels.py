"""The GPU engine on a GPU, beside torch autograd and the hand-written products; skipped by name where there is none.

Batch 8192, 16-bit products, Adam included. `extra_info` holds what the paper model predicts for the device, where it
knows its data sheet.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from sparsecode.sweep import Sweep
from sparsecode.sweep.engines import gpu
from sparsecode.sweep.engines.gpu import check as gpu_check
from sparsecode.sweep.engines.gpu.cost import EXPECTED, device_named, predict

no_gpu = pytest.mark.skipif(not gpu.available(), reason="no CUDA or ROCm device with Triton here")
WAYS = ("torch autograd", "hand-written products", "gpu engine")


def timed(benchmark: BenchmarkFixture, run: Callable[[], object]) -> None:
    """Every round waits for the device, so that host times are device times."""

    def once() -> None:
        run()
        torch.cuda.synchronize()

    benchmark.pedantic(once, rounds=20, warmup_rounds=3)


@no_gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", gpu_check.BENCHMARKS, ids=lambda shape: shape[0])
def test_gpu_step(benchmark: BenchmarkFixture, shape: tuple[str, int, list[int]], way: str) -> None:
    name, D, sizes = shape
    benchmark.group = f"gpu step, {name}"
    device = torch.device("cuda")
    sweep = Sweep(D, sizes, [0.02] * len(sizes), range(len(sizes)), device=device)
    x = torch.randn(gpu_check.BATCH, D, device=device)
    sheet = device_named(torch.cuda.get_device_name(), gpu.architecture(device))
    benchmark.extra_info["device"] = torch.cuda.get_device_name()
    if sheet is not None:
        model = predict(sheet, D, sizes, gpu_check.BATCH)
        predicted = dict(zip(WAYS, (model.eager, model.products, model.dense), strict=True))
        benchmark.extra_info["predicted_ms"] = round(predicted[way], 3)
    if way == "torch autograd":
        timed(benchmark, gpu_check.eager_step(sweep, x))
    else:
        engine = gpu.GpuEngine(device, fused=False if way == "hand-written products" else None, sparse=False)
        timed(benchmark, lambda: engine.step(sweep, x, 1.0))


@no_gpu
@pytest.mark.parametrize("way", ["dense", "lists"])
@pytest.mark.parametrize("shape", gpu_check.LIST_BENCHMARKS, ids=lambda shape: shape[0])
def test_gpu_lists(benchmark: BenchmarkFixture, shape: tuple[str, int, list[int]], way: str) -> None:
    name, D, sizes = shape
    benchmark.group = f"gpu step of trained dictionaries, {name}"
    sweep = Sweep(D, sizes, [0.02] * len(sizes), range(len(sizes)), lr=0.0, device="cuda")
    x = torch.randn(gpu_check.BATCH, D, device="cuda")
    gpu_check.few_active(sweep, x, EXPECTED)
    sheet = device_named(torch.cuda.get_device_name(), gpu.architecture(torch.device("cuda")))
    if sheet is not None:
        model = predict(sheet, D, sizes, gpu_check.BATCH, l0=EXPECTED * sum(sizes) / len(sizes))
        benchmark.extra_info["predicted_ms"] = model.sparse if way == "lists" else model.dense
    engine = gpu.GpuEngine("cuda", sparse=way == "lists")
    timed(benchmark, lambda: engine.step(sweep, x, 1.0))
