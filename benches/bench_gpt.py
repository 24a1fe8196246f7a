"""One training step of the GPT (forward, backward, clipping, AdamW) beside the same step written plainly in torch.

Paper shape (6 layers of 32, 4 heads of 8, MLP 128, context 256), vocabulary 4096, batch 32. Before every measured step
one plain step is run: each row's `times plain` (extra_info in the JSON) is a median of pairs taken side by side.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from sparsecode.gpt import GPT, GPTConfig
from sparsecode.gpt.attention import torch_attention
from sparsecode.gpt.loss import chunked_cross_entropy
from sparsecode.gpt.model import Attention

B, T, V = 32, 256, 4096


def torch_heads(model: GPT) -> GPT:
    """The model with torch's attention."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.forward = partial(attend, module)  # type: ignore[method-assign]
    return model


def attend(attention: Attention, x: Tensor) -> Tensor:
    """`Attention.forward` in torch's own operations."""
    added: Tensor = attention.c_proj(torch_attention(attention.c_attn(x), attention.n_head))
    return added


def plain_loss(model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
    """All logits at once, as nanoGPT does."""
    logits = model(idx) @ model.wte.weight.T
    return F.cross_entropy(logits.view(-1, V), targets.view(-1))


def chunked_loss(model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
    return chunked_cross_entropy(model(idx).view(B * T, -1), model.wte.weight, targets.view(-1))


def our_loss(model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = model(idx, targets)
    return loss


def body_only(model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
    total: Tensor = model(idx).sum()
    return total


def training_step(loss_of: Callable[[GPT, Tensor, Tensor], Tensor], *, native_heads: bool) -> Callable[[], None]:
    model = GPT(GPTConfig(vocab_size=V, context=T))
    if not native_heads:
        torch_heads(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    idx, targets = torch.randint(0, V, (2, B, T), generator=generator)

    def step() -> None:
        torch.autograd.backward(loss_of(model, idx, targets))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


STEPS: dict[str, Callable[[], Callable[[], None]]] = {
    "plain torch (nanoGPT's way)": partial(training_step, plain_loss, native_heads=False),
    "torch, cross-entropy in chunks": partial(training_step, chunked_loss, native_heads=False),
    "torch, fused native cross-entropy": partial(training_step, our_loss, native_heads=False),
    "sparsecode": partial(training_step, our_loss, native_heads=True),
    "sparsecode without the vocabulary": partial(training_step, body_only, native_heads=True),
}


@pytest.mark.benchmark(group="GPT training step, paper shape, vocabulary 4096, 32 x 256 tokens")
@pytest.mark.parametrize("name", STEPS)
def test_training_step(benchmark: BenchmarkFixture, name: str) -> None:
    step, plain = STEPS[name](), training_step(plain_loss, native_heads=False)
    beside: list[float] = []

    def plain_step() -> None:
        start = time.perf_counter()
        plain()
        beside.append(time.perf_counter() - start)

    step()
    plain()
    benchmark.pedantic(step, setup=plain_step, rounds=8)
    taken = benchmark.stats.stats.data
    benchmark.extra_info["tokens per second"] = round(B * T / statistics.median(taken))
    benchmark.extra_info["times plain"] = round(statistics.median(p / t for p, t in zip(beside, taken, strict=True)), 2)
