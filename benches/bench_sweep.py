"""One training step of a sweep: the reference engine beside plain torch autograd with fused Adam.

D = 128, one dictionary each of 64, 128, ..., 1024, batch 1024; data with the sparsity of real activations.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine

D, B, SIZES, L1, LR = 128, 1024, [64, 128, 256, 512, 1024], 2.3e-2, 1e-3


def batch() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(512, D, generator=generator))
    codes = torch.rand(B, 512, generator=generator) * (torch.rand(B, 512, generator=generator) < 0.01)
    x = codes @ directions
    return x / x.square().mean().sqrt()


def reference(loss: LossSettings) -> Callable[[], object]:
    sweep, engine, x = Sweep(D, SIZES, [L1] * 5, [0] * 5, LR, loss), ReferenceEngine(), batch()
    return lambda: engine.step(sweep, x, 1.0)


def autograd() -> Callable[[], object]:
    """The straightforward way: a module per dictionary, atoms renormalised after the step."""
    sweep, x = Sweep(D, SIZES, [L1] * 5, [0] * 5), batch()
    parts = [
        tuple(values[sweep.rows(k)].clone().requires_grad_() for values in (sweep.W_enc, sweep.b_enc, sweep.W_dec))
        for k in range(len(sweep))
    ]
    optimizers = [torch.optim.Adam(part, lr=LR, fused=True) for part in parts]

    def step() -> None:
        for (W_enc, b_enc, W_dec), optimizer in zip(parts, optimizers, strict=True):
            z = torch.relu(torch.nn.functional.linear(x, W_enc, b_enc))
            loss = torch.nn.functional.mse_loss(z @ W_dec, x) + L1 * z.sum(1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            with torch.no_grad():
                W_dec /= W_dec.norm(dim=1, keepdim=True)

    return step


@pytest.mark.benchmark(group="sweep step, D=128, sizes 64-1024, 1024 rows")
@pytest.mark.parametrize("engine", ["torch autograd, fused Adam", "reference"])
def test_step(benchmark: BenchmarkFixture, engine: str) -> None:
    step = autograd() if engine.startswith("torch") else reference(LossSettings())
    benchmark.extra_info["rows_per_step"] = B
    benchmark.pedantic(step, rounds=30, warmup_rounds=5)
