"""Cross-entropy of a language model without the logits of a whole batch.

M rows (tokens), D width, V vocabulary. The loss is the mean over rows of

    log sum_v exp(h_r . w_v)  -  h_r . w_t(r)

and its gradients are, with p_rv = exp(h_r . w_v) / sum_u exp(h_r . w_u) less 1 at v = t(r),

    dh_r = 1/M sum_v p_rv w_v        dW_v = 1/M sum_r p_rv h_r

Both are computed with the loss, while a chunk of logits is still in cache; the backward pass only scales them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsecode import _core

# Logits that exist at once. 512 rows of a vocabulary of 4096 (8 MB) were best of 128 to 2048 rows on two cores; an
# accelerator wants products large enough to fill it.
_CPU_CHUNK = 512 * 4096
_ACCELERATOR_CHUNK = 64 << 20


def cross_entropy(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of rows `h` [M,D] against the output embedding `weight` [V,D], in nats; a scalar.

    Args:
        targets: [M] int64, 0 to V - 1.
    """
    native = all(t.device.type == "cpu" for t in (h, weight, targets)) and h.dtype == weight.dtype == torch.float32
    return _loss(h, weight, targets, _native if native else _chunks)


def chunked_cross_entropy(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` in plain torch, in chunks of rows, for any device and dtype; the reference of the native one."""
    return _loss(h, weight, targets, _chunks)


Compute = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor]]  # gives loss, dh, dweight


def _loss(h: Tensor, weight: Tensor, targets: Tensor, compute: Compute) -> Tensor:
    if torch.is_grad_enabled() and (h.requires_grad or weight.requires_grad):
        loss: Tensor = _CrossEntropy.apply(h, weight, targets, compute)
        return loss
    return compute(h.detach(), weight.detach(), targets, False)[0]


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients from one function that computes both at once."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, targets: Tensor, compute: Compute) -> Tensor:
        loss, dh, dweight = compute(h.detach(), weight.detach(), targets, True)
        ctx.save_for_backward(dh, dweight)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dh, dweight = ctx.saved_tensors
        return dh * scale, dweight * scale, None, None


def _native(h: Tensor, weight: Tensor, targets: Tensor, wants_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    h, weight = h.contiguous(), weight.contiguous()
    dh, dweight = (torch.empty_like(h), torch.empty_like(weight)) if wants_grad else (torch.empty(0), torch.empty(0))
    loss = _core.cross_entropy(
        h.numpy(),
        weight.numpy(),
        targets.contiguous().numpy(),
        dh=dh.numpy() if wants_grad else None,
        dweight=dweight.numpy() if wants_grad else None,
        threads=torch.get_num_threads(),
    )
    return torch.tensor(loss, dtype=torch.float32), dh, dweight


def _chunks(h: Tensor, weight: Tensor, targets: Tensor, wants_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    M, V = h.shape[0], weight.shape[0]
    rows = max(1, (_CPU_CHUNK if h.device.type == "cpu" else _ACCELERATOR_CHUNK) // V)
    total = torch.zeros((), dtype=torch.float64 if h.device.type != "mps" else torch.float32, device=h.device)
    dh, dweight = torch.empty_like(h), torch.zeros_like(weight)
    for start in range(0, M, rows):
        h_chunk, target = h[start : start + rows], targets[start : start + rows, None]
        logits = h_chunk @ weight.T  # [rows,V]
        lse = logits.logsumexp(dim=1, keepdim=True)
        total += (lse - logits.gather(1, target)).sum()
        if wants_grad:
            p = logits.sub_(lse).exp_()
            p.scatter_add_(1, target, torch.full_like(lse, -1.0)).mul_(1.0 / M)
            torch.mm(p, weight, out=dh[start : start + rows])
            dweight.addmm_(p.T, h_chunk)
    return (total / M).to(h.dtype), dh, dweight
