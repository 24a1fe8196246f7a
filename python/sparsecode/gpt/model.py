"""A small GPT in nanoGPT's architecture: learned positions, pre-LN, exact GELU, tied embedding, no biases.

Shapes: B batch, T position, C width of the residual stream (d_model), V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsecode.errors import InvalidSetting
from sparsecode.gpt.attention import causal_attention
from sparsecode.gpt.loss import cross_entropy

_INIT_STD = 0.02  # GPT-2's; with a tied embedding the first loss is close to log V


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes of a GPT.

    Raises:
        InvalidSetting: a size below 1, or a width that the heads do not divide.
    """

    vocab_size: int
    n_layer: int = 6
    n_head: int = 4
    d_model: int = 32
    d_mlp: int = 128
    context: int = 256

    def __post_init__(self) -> None:
        small = [name for name, value in vars(self).items() if value < 1]
        if small:
            raise InvalidSetting(f"GPT: {', '.join(small)} must be at least 1")
        if self.d_model % self.n_head:
            raise InvalidSetting(f"GPT: d_model {self.d_model} is not a multiple of n_head {self.n_head}")


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.c_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What attention adds to the residual stream [B,T,C]."""
        added: Tensor = self.c_proj(causal_attention(self.c_attn(x), self.n_head))
        return added


class MLP(nn.Module):
    """Two matrices with an exact GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.d_mlp, bias=False)
        self.c_proj = nn.Linear(config.d_mlp, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the MLP adds to the residual stream [B,T,C]."""
        added: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return added


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream from its own normalised view of it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, bias=False)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream [B,T,C] after this block."""
        x = x + self.attn(self.ln_1(x))
        added: Tensor = self.mlp(self.ln_2(x))
        return x + added


class GPT(nn.Module):
    """The transformer. Parameters depend only on the sizes and the seed; the global random state is not touched."""

    def __init__(self, config: GPTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws initial weights that are overwritten below
            self.wte = nn.Embedding(config.vocab_size, config.d_model)
            self.wpe = nn.Embedding(config.context, config.d_model)
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
            self.ln_f = nn.LayerNorm(config.d_model, bias=False)
        self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, generator: torch.Generator) -> None:
        # The 2 * n_layer projections that write to the residual stream are shrunk so that their sum has the same size
        # whatever the depth (GPT-2, section 2.3).
        into_residual = _INIT_STD / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = into_residual if name.endswith("c_proj.weight") else _INIT_STD
                nn.init.normal_(parameter, std=std, generator=generator)

    def embed(self, idx: Tensor) -> Tensor:
        """Tokens and positions as vectors [B,T,C].

        Raises:
            InvalidSetting: more positions than the context has.
        """
        T, context = idx.shape[1], self.config.context
        if context < T:
            raise InvalidSetting(f"GPT: {T} tokens are more than the context of {context}; cut them")
        return F.embedding(idx, self.wte.weight) + self.wpe.weight[:T]

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
        """Final hidden states [B,T,C], or with `targets` [B,T] the mean cross-entropy in nats per token."""
        x = self.embed(idx)
        for block in self.blocks:
            x = block(x)
        h: Tensor = self.ln_f(x)
        if targets is None:
            return h
        loss: Tensor = cross_entropy(h.view(-1, h.shape[-1]), self.wte.weight, targets.reshape(-1))
        return loss

    def next_logits(self, idx: Tensor) -> Tensor:
        """Logits of the token after the last one [B,V]."""
        logits: Tensor = self.forward(idx)[:, -1] @ self.wte.weight.T
        return logits
