"""A small GPT in nanoGPT's architecture: learned positions, pre-LN, exact GELU, tied embedding, no biases.

Shapes: B batch, T position, C width of the residual stream (d_model), M width of the MLP (d_mlp), H heads,
V vocabulary.

Every value that can be read has a name, as TransformerLens writes it (L is the block, from 0):

    blocks.L.hook_resid_pre   [B,T,C]  the block's input
    blocks.L.attn.hook_z      [B,T,C]  attention's heads, side by side, before the output projection
    blocks.L.hook_resid_mid   [B,T,C]  after attention was added
    blocks.L.mlp.hook_post    [B,T,M]  the MLP's hidden layer after the GELU
    blocks.L.hook_mlp_out     [B,T,C]  what the MLP adds
    blocks.L.hook_resid_post  [B,T,C]  the block's output
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsecode.errors import HookUnknown, InvalidSetting
from sparsecode.gpt.attention import causal_attention
from sparsecode.gpt.loss import cross_entropy

HOOKS = ("hook_resid_pre", "attn.hook_z", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")
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

    def heads(self, x: Tensor) -> Tensor:
        """The heads' outputs side by side [B,T,C], before `c_proj`."""
        return causal_attention(self.c_attn(x), self.n_head)


class MLP(nn.Module):
    """Two matrices with an exact GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.d_mlp, bias=False)
        self.c_proj = nn.Linear(config.d_mlp, config.d_model, bias=False)

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden layer after the GELU [B,T,M]."""
        return F.gelu(self.c_fc(x))


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream from its own normalised view of it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, bias=False)
        self.mlp = MLP(config)

    def values(self, x: Tensor) -> Iterator[Tensor]:
        """The block's hook points in the order of `HOOKS`, each computed when requested."""
        yield x
        z = self.attn.heads(self.ln_1(x))
        yield z
        x = x + self.attn.c_proj(z)
        yield x
        post = self.mlp.hidden(self.ln_2(x))
        yield post
        out = self.mlp.c_proj(post)
        yield out
        yield x + out

    def forward(self, x: Tensor) -> Tensor:
        """The last of `values`."""
        for value in self.values(x):
            x = value
        return x


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

    def hook_points(self) -> list[str]:
        """Names of all values that `run_to` can return."""
        return [f"blocks.{layer}.{hook}" for layer in range(self.config.n_layer) for hook in HOOKS]

    def hook_width(self, name: str) -> int:
        """Width of a hook point's vectors. Raises HookUnknown."""
        return self.config.d_mlp if HOOKS[self._locate(name)[1]] == "mlp.hook_post" else self.config.d_model

    def run_to(self, idx: Tensor, hook: str) -> Tensor:
        """Values at a hook point [B,T,width] for tokens [B,T]; nothing after it is computed.

        Raises:
            HookUnknown: the model has no such hook point.
        """
        layer, place = self._locate(hook)
        x = self.embed(idx)
        for block in self.blocks[:layer]:
            x = block(x)
        block = cast(Block, self.blocks[layer])
        return next(itertools.islice(block.values(x), place, None))

    def _locate(self, name: str) -> tuple[int, int]:
        points = self.hook_points()
        if name not in points:
            last = self.config.n_layer - 1
            raise HookUnknown(
                f"GPT: no hook point '{name}'; there are blocks.L.X with L 0 to {last}, X {', '.join(HOOKS)}"
            )
        return divmod(points.index(name), len(HOOKS))
