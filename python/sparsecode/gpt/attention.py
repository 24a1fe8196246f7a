"""Causal self-attention: torch's on any device, the native one for the narrow heads of small models on a CPU.

B batch, T position, H heads, C width (heads side by side). Torch's fused attention is made for heads of 64 and more: at
8 dimensions (6 layers, batch 32 x 256, two cores) it took 77 of the 130 ms of a step without the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecode import _core

_NATIVE_WIDTHS = (4, 8, 16)


def causal_attention(qkv: Tensor, n_head: int) -> Tensor:
    """Causal attention: each position's mean of its own and earlier values, weighted by softmax of scaled products.

    Args:
        qkv: [B,T,3C]: queries, keys and values, each with its heads side by side.

    Returns:
        [B,T,C], heads side by side.
    """
    width = qkv.shape[-1] // (3 * n_head)
    if qkv.device.type == "cpu" and qkv.dtype == torch.float32 and width in _NATIVE_WIDTHS and qkv.numel() > 0:
        z: Tensor = _NativeAttention.apply(qkv, n_head)
        return z
    return torch_attention(qkv, n_head)


def torch_attention(qkv: Tensor, n_head: int) -> Tensor:
    """`causal_attention` in torch, for any device, dtype and width; the reference of the native one."""
    B, T, C3 = qkv.shape
    q, k, v = qkv.view(B, T, 3 * n_head, C3 // (3 * n_head)).transpose(1, 2).chunk(3, dim=1)  # [B,H,T,C/H]
    z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return z.transpose(1, 2).reshape(B, T, C3 // 3)


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int) -> Tensor:
        qkv = qkv.detach().contiguous()
        B, T, C3 = qkv.shape
        z, lse = qkv.new_empty(B, T, C3 // 3), qkv.new_empty(B, n_head, T)
        threads = torch.get_num_threads()
        _core.attention_forward(qkv.numpy(), z.numpy(), lse.numpy(), heads=n_head, threads=threads)
        ctx.save_for_backward(qkv, z, lse)
        ctx.n_head, ctx.threads = n_head, threads
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, None]:
        qkv, z, lse = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        given = qkv.numpy(), z.detach().numpy(), lse.numpy(), dz.contiguous().numpy()
        _core.attention_backward(*given, dqkv.numpy(), heads=ctx.n_head, threads=ctx.threads)
        return dqkv, None
