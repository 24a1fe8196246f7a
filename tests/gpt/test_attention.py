"""Native attention against torch's in float64: values, gradients, and the choice between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidArgument
from sparsecode.gpt import attention
from sparsecode.gpt.attention import causal_attention, torch_attention

SHAPES = [(1, 1, 1, 8), (2, 5, 3, 4), (3, 16, 2, 8), (2, 17, 1, 16), (1, 256, 4, 8), (2, 100, 2, 8), (2, 9, 2, 5)]


def problem(B: int, T: int, H: int, E: int, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(B + 10 * T + 1000 * H + E)
    qkv = torch.randn(B, T, 3 * H * E, generator=generator) * scale
    return qkv.requires_grad_(), torch.randn(B, T, H * E, generator=generator)


def by_hand(qkv: Tensor, n_head: int) -> Tensor:
    """Softmax of masked scores, from the formula."""
    B, T, C3 = qkv.shape
    q, k, v = (part.reshape(B, T, n_head, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) / (C3 / 3 / n_head) ** 0.5
    scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))
    z: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C3 // 3)
    return z


@pytest.mark.parametrize("attend", [causal_attention, torch_attention], ids=["chosen", "torch"])
@pytest.mark.parametrize("B, T, H, E", SHAPES, ids=lambda n: str(n))
def test_values_and_gradients_equal_float64(
    attend: Callable[[Tensor, int], Tensor], B: int, T: int, H: int, E: int
) -> None:
    qkv, dz = problem(B, T, H, E)
    exact = qkv.detach().double().requires_grad_()
    expected = by_hand(exact, H)
    expected.backward(dz.double())  # type: ignore[no-untyped-call]
    z = attend(qkv, H)
    z.backward(dz)  # type: ignore[no-untyped-call]
    assert qkv.grad is not None and exact.grad is not None
    torch.testing.assert_close(z.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(qkv.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_gradients_that_are_views_are_read_right() -> None:
    qkv, dz = problem(2, 20, 2, 8)
    z = causal_attention(qkv, 2)
    (got,) = torch.autograd.grad(z, qkv, torch.stack([dz, dz + 1], dim=3)[..., 0], retain_graph=True)
    (expected,) = torch.autograd.grad(z, qkv, dz)
    assert torch.equal(got, expected)


def test_only_narrow_float32_heads_on_a_cpu_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr(attention, "torch_attention", lambda qkv, n_head: used.append("torch"))
    for E, dtype, device in [(8, torch.float32, "cpu"), (32, torch.float32, "cpu"), (8, torch.float64, "cpu"),
                             (8, torch.float32, "meta")]:  # fmt: skip
        before = len(used)
        causal_attention(torch.zeros(1, 3, 3 * E, dtype=dtype, device=device), 1)
        used.extend(["native"] * (len(used) == before))
    assert used == ["native", "torch", "torch", "torch"]


def test_the_core_refuses_what_does_not_fit() -> None:
    def zeros(*shape: int) -> NDArray[Any]:
        return torch.zeros(*shape).numpy()

    good = (zeros(2, 3, 48), zeros(2, 3, 16), zeros(2, 2, 3))
    _core.attention_forward(*good, heads=2, threads=1)
    wrong_z = (zeros(2, 3, 48), zeros(2, 3, 15), zeros(2, 2, 3))
    wrong_lse = (zeros(2, 3, 48), zeros(2, 3, 16), zeros(2, 2, 4))
    flat = (zeros(6, 48), zeros(2, 3, 16), zeros(2, 2, 3))
    uneven = (zeros(2, 3, 50), zeros(2, 3, 16), zeros(2, 2, 3))
    for bad in (wrong_z, wrong_lse, flat, uneven):
        with pytest.raises(InvalidArgument, match="attention: "):
            _core.attention_forward(*bad, heads=2, threads=1)
    with pytest.raises(InvalidArgument, match="contiguous"):
        _core.attention_forward(torch.zeros(2, 48, 3).mT.numpy(), *good[1:], heads=2, threads=1)
