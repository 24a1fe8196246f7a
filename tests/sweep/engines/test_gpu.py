"""The parts of the GPU engine that plain torch can run anywhere: tables, matrix products, training in 16 bit, dispatch.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines import choose_engine, gpu
from sparsecode.sweep.engines.reference import ReferenceEngine

pytest.importorskip("triton", reason="Triton is not installed: the GPU engine cannot be imported")

from sparsecode.kernels.configs import ARCHITECTURES, adam_tile, fused_tiles
from sparsecode.kernels.tables import Segments, batch_splits, padded
from sparsecode.sweep.engines.gpu.gemm import GemmStep

# Tables


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6), height=st.sampled_from([1, 16, 64, 128]))
def test_tiles_cover_every_feature_once(sizes: list[int], height: int) -> None:
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    segments = Segments.of(bounds, "cpu")
    tiles = segments.feature_tiles(height)
    covered: list[int] = []
    for k, first in zip(tiles.dictionary.tolist(), tiles.first.tolist(), strict=True):
        assert bounds[k] <= first < bounds[k + 1]
        covered += range(first, min(first + height, bounds[k + 1]))
    assert sorted(covered) == list(range(bounds[-1]))
    ordered = [sizes[k] for k in segments.order.tolist()]
    assert ordered == sorted(sizes, reverse=True)


def test_splits_fill_the_device_but_not_more() -> None:
    assert batch_splits(1, 64, 132) == 8  # a batch tile is not worth a program: eight at least
    assert batch_splits(10_000, 64, 132) == 1
    assert batch_splits(100, 128, 132) == 3
    assert batch_splits(1, 10_000, 132) == 16
    assert batch_splits(5, 3, 132) == 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_width_has_tiles(arch: str) -> None:
    for D in (1, 17, 32, 48, 64, 100, 128, 200, 256):
        for precision in ("float16", "float32"):
            tiles = fused_tiles(arch, D, precision)
            assert tiles is not None
            assert sum(tiles.parts) == 3
    assert fused_tiles(arch, 257, "float16") is None
    assert [adam_tile(D) for D in (8, 128, 2048, 5000)] == [64, 16, 1, 1]
    assert padded(1) == 16


# The hand-written step


def make(D: int, sizes: list[int], loss: LossSettings, dtype: torch.dtype = torch.float32) -> Sweep:
    K = len(sizes)
    sweep = Sweep(D, sizes, [0.05] * K, range(K), loss=loss, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    sweep.b_enc += 0.1 * torch.randn(sweep.total, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


@pytest.mark.parametrize("chunk", [1 << 28, 64 * 50 * 4], ids=["whole", "chunks"])
@pytest.mark.parametrize("pre_bias", [False, True], ids=["plain", "pre-bias"])
def test_products_equal_the_reference(pre_bias: bool, chunk: int) -> None:
    loss = LossSettings(pre_bias=pre_bias)
    sweep, exact = make(300, [100, 33], loss), make(300, [100, 33], loss, torch.float64)
    x = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    step = GemmStep(sweep, "float32", chunk_bytes=chunk)
    stats = step.gradients(x)
    truth, expected = ReferenceEngine().gradients(exact, x.double())
    for name, value in step.named_gradients().items():
        error = (value.double() - expected[name]).norm() / expected[name].norm()
        assert error < 1e-6, f"{name}: {error}"
    for name in ("sse", "l1", "l0"):
        torch.testing.assert_close(getattr(stats, name), getattr(truth, name), rtol=1e-6, atol=0)


# Training with 16-bit operands and float32 master weights, emulated: tests/interpreted/engine.py shows that the fused
# kernels round as these products do.


def sparse_data(rows: int, D: int, features: int) -> Tensor:
    """Sums of a few of `features` random directions, root mean square 1."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(features, D, generator=generator), dim=1)
    codes = torch.rand(rows, features, generator=generator) * (torch.rand(rows, features, generator=generator) < 0.06)
    x = codes @ directions
    return x / x.square().mean().sqrt()


def train(precision: str, x: Tensor, steps: int, batch: int) -> Tensor:
    """FVU [K] after training with gradients in a precision and one optimiser for all."""
    sweep = Sweep(x.shape[1], [48, 96], [0.01, 0.03], [0, 0])
    parameters = {name: value.requires_grad_() for name, value in sweep.parameters().items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=3e-3)
    gemm = GemmStep(sweep, precision) if precision != "exact" else None
    reference = ReferenceEngine()
    with torch.no_grad():
        for index in range(steps):
            rows = x[index * batch % len(x) :][:batch]
            if gemm is None:
                gradients = reference.gradients(sweep, rows)[1]
            else:
                gemm.gradients(rows)
                gradients = gemm.named_gradients()
            gradients["W_dec"] -= (gradients["W_dec"] * sweep.W_dec).sum(1, keepdim=True) * sweep.W_dec
            for name, parameter in parameters.items():
                parameter.grad = gradients[name]
            optimiser.step()
            sweep.W_dec /= sweep.W_dec.norm(dim=1, keepdim=True)
        stats = reference.evaluate(sweep, x)
        return stats.sse / (x - x.mean(0)).square().sum()


def test_training_in_16_bit_reaches_the_same_fvu() -> None:
    x = sparse_data(8192, 32, 64)
    exact = train("exact", x, 320, 256)
    assert (exact < 0.5).all()  # it did learn
    for precision in ("float16", "bfloat16"):
        found = train(precision, x, 320, 256)
        assert not torch.equal(found, exact)
        torch.testing.assert_close(found, exact, rtol=0.01, atol=0, msg=f"{precision}: {found} {exact}")


# Without a GPU, without Triton


def test_without_a_gpu_the_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not gpu.available()
    with pytest.raises(InvalidSetting, match="CUDA or ROCm"):
        choose_engine("gpu", "cpu")


def test_without_triton_everything_else_imports_and_trains() -> None:
    """Imports every module that does not launch kernels; every other engine does a step."""
    code = (
        "import importlib, pkgutil, sys; sys.modules['triton'] = None\n"
        "import torch, sparsecode\n"
        "missing = []\n"
        "for module in pkgutil.walk_packages(sparsecode.__path__, 'sparsecode.'):\n"
        "    try:\n        importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        missing.append(module.name.removeprefix('sparsecode.')) if error.name == 'triton' else None\n"
        "print(*missing)\n"
        "from sparsecode.sweep import Sweep\n"
        "from sparsecode.sweep.engines import gpu, choose_engine\n"
        "assert not gpu.available()\n"
        "for name in ('auto', 'reference', 'cpu'):\n"
        "    engine = choose_engine(name, 'cpu', threads=1)\n"
        "    assert engine.name != 'gpu'\n"
        "    assert engine.step(Sweep(8, [16], [0.1], [0]), torch.randn(4, 8), 1.0).rows == 4\n"
        "try:\n    choose_engine('gpu', 'cpu')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    missing, refusal = done.stdout.splitlines()
    assert set(missing.split()) == {f"sweep.engines.gpu.{name}" for name in ("fused", "gemm", "kinds", "lists")}
    assert refusal.startswith("InvalidSetting engine gpu needs Triton")


def test_gpu_benchmarks_are_skipped_by_name_where_there_is_no_gpu() -> None:
    if gpu.available():
        pytest.skip("there is a GPU here")
    bench = str(Path(__file__).parents[3] / "benches" / "bench_kernels.py")
    command = [sys.executable, "-m", "pytest", bench, "--benchmark-only", "-rs", "-v", "-p", "no:cacheprovider"]
    # pytest-benchmark runs nothing where tests are shared out among processes.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=True)
    assert "no CUDA or ROCm device with Triton here" in done.stdout
    for name in ("test_gpu_step[64..4096, D=128-gpu engine] SKIPPED", "test_gpu_lists"):
        assert name in done.stdout
    assert "passed" not in done.stdout
