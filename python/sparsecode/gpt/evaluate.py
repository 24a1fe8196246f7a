"""How good a GPT is: validation loss, bits per byte, and what it writes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sparsecode.gpt.batches import Ids, contexts, validation_starts
from sparsecode.gpt.model import GPT

_COUNTED = 1 << 24  # tokens at a time: bincount makes a copy of 8 bytes each


def validation_tokens(n_tokens: int, context: int, wanted: int) -> int:
    """Number of targets that `validation_loss` reads when asked for about `wanted` of `n_tokens`."""
    context = min(context, n_tokens - 1)
    return len(validation_starts(n_tokens, context, wanted)) * context


@torch.no_grad()
def validation_loss(model: GPT, tokens: Ids, wanted: int, batch: int) -> float:
    """Mean cross-entropy in nats per token over about `wanted` tokens spread over `tokens`."""
    device = next(model.parameters()).device
    context = min(model.config.context, len(tokens) - 1)
    starts = validation_starts(len(tokens), context, wanted)
    total = 0.0
    for first in range(0, len(starts), batch):
        chosen = starts[first : first + batch]
        idx, targets = contexts(tokens, chosen, context)
        total += model(idx.to(device), targets.to(device)).item() * len(chosen)
    return total / len(starts)


def unigram_loss(train: Ids, val: Ids, vocab_size: int, context: int, wanted: int) -> float:
    """Loss in nats per token of predicting the frequencies of the `train` tokens, on `validation_loss`'s targets.

    One is added to every count, so that a token missing from `train` is rare, not impossible.
    """
    counts = np.ones(vocab_size)
    for first in range(0, len(train), _COUNTED):
        counts += np.bincount(train[first : first + _COUNTED], minlength=vocab_size)
    context = min(context, len(val) - 1)
    targets = validation_starts(len(val), context, wanted)[:, None] + np.arange(1, context + 1)
    return float(math.log(counts.sum()) - np.log(counts)[val[targets]].mean())


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Nats per token as bits per byte of text, which compares models with different tokenizers.

    `n_tokens` tokens encode `n_bytes` bytes of UTF-8; end-of-text tokens count as tokens and have no bytes.
    """
    return loss / math.log(2) * n_tokens / n_bytes


@torch.no_grad()
def sample(model: GPT, start: int, length: int, seed: int) -> list[int]:
    """`length` tokens drawn one by one after the token `start`; a seed always draws the same tokens."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    idx = torch.tensor([[start]], device=device)
    for _ in range(length):
        p: Tensor = model.next_logits(idx[:, -model.config.context :]).float().softmax(dim=-1).cpu()
        idx = torch.cat([idx, torch.multinomial(p, 1, generator=generator).to(device)], dim=1)
    return idx[0, 1:].tolist()
