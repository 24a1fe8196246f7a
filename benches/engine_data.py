"""Activations with the character of a transformer's, and sweeps trained on them, made in seconds for the benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.cpu import CpuEngine

SIZES = [64, 128, 256, 512, 1024, 2048, 4096]
L1 = 0.02
BATCH = 4096


def activations(width: int, rows: int, seed: int = 0) -> Tensor:
    """Sparse features in superposition [rows, width]: 4 width directions, few on a row, exponential strengths, frequencies
    that fall as a power law; divided by the root mean square.
    """
    generator = torch.Generator().manual_seed(width)
    count = 4 * width
    directions = torch.nn.functional.normalize(torch.randn(count, width, generator=generator))
    frequency = torch.arange(1, count + 1) ** -0.7
    frequency *= 8 / frequency.sum()
    generator.manual_seed(seed)
    parts = []
    for _ in range(0, rows, BATCH):
        active = torch.rand(BATCH, count, generator=generator) < frequency
        strength = torch.empty(BATCH, count).exponential_(generator=generator)
        parts.append((active * strength) @ directions + 0.02 * torch.randn(BATCH, width, generator=generator))
    x = torch.cat(parts)[:rows]
    return (x / x.square().mean().sqrt()).contiguous()


def trained(width: int, repeats: int = 1, steps: int = 200) -> tuple[Sweep, Tensor]:
    """One dictionary of each size (times `repeats`) with an L0 below 20, and four batches [4 BATCH, width].

    Biases start low, so that training begins where a usual run arrives after a few hundred dense steps.
    """
    x = activations(width, 8 * BATCH)
    sweep = Sweep(width, SIZES, [L1] * len(SIZES), [0] * len(SIZES), lr=3e-3, loss=LossSettings())
    sweep.b_enc -= 2.0
    engine = CpuEngine()
    for step in range(steps):
        start = step % 8 * BATCH
        stats = engine.step(sweep, x[start : start + BATCH], min(1.0, (step + 1) / 50))
    assert stats.l0.max() / BATCH < 20, stats.l0 / BATCH
    if repeats > 1:
        sweep = repeated(sweep, repeats)
    sweep.lr = [1e-6] * len(sweep)  # timing must not change what is timed
    return sweep, x[: 4 * BATCH].contiguous()


def repeated(sweep: Sweep, repeats: int) -> Sweep:
    """Every dictionary `repeats` times: a sweep over so many coefficients, without the training."""
    K = len(sweep) * repeats
    wide = Sweep(
        sweep.activation_dim, sweep.sizes * repeats, sweep.l1 * repeats, list(range(K)), lr=sweep.lr * repeats, loss=sweep.loss
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
