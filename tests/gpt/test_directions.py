"""Directions of the weights: what the model reads at a place, and what it writes there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsecode.errors import HookUnknown
from sparsecode.gpt.directions import weight_directions
from sparsecode.gpt.model import GPT, Block, GPTConfig


def model() -> GPT:
    made = GPT(GPTConfig(vocab_size=20, n_layer=2, n_head=2, d_model=8, d_mlp=16, context=4), seed=3)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "ln_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
    return made


def has(rows: Tensor, row: Tensor) -> bool:
    return bool((rows - row).abs().amax(1).min() < 1e-6)


@torch.no_grad()
def test_a_move_along_what_is_read_changes_what_is_read() -> None:
    own = model()
    read = weight_directions(own, "blocks.1.hook_resid_post")["read"]
    assert read.shape == (20, 8)  # the unembedding alone
    x = torch.randn(5, 8)
    spread = x.std(1, correction=0, keepdim=True)
    logits = own.ln_f(x) @ own.wte.weight.T * spread
    found = x @ read.T
    for j in range(20):
        assert bool(((found - logits[:, j, None]).abs().amax(0) < 1e-3).any())
    assert torch.equal(read.norm(dim=1).argsort(descending=True, stable=True), torch.arange(20))


@torch.no_grad()
@pytest.mark.parametrize(
    ("hook", "read", "write"),
    [
        ("blocks.0.hook_resid_pre", 20 + 2 * (24 + 16), 20),
        ("blocks.0.hook_resid_mid", 20 + 16 + 24 + 16, 20 + 8),
        ("blocks.1.hook_resid_post", 20, 20 + 2 * (8 + 16)),
        ("blocks.0.mlp.hook_post", 20 + 24 + 16, 20),
    ],
)
def test_as_many_as_there_are_before_and_after(hook: str, read: int, write: int) -> None:
    found = weight_directions(model(), hook)
    assert (len(found["read"]), len(found["write"])) == (read, write)
    assert all(rows.shape[1] == (16 if "mlp" in hook else 8) for rows in found.values())


@torch.no_grad()
def test_in_a_hidden_layer_they_pass_through_the_mlps_matrices() -> None:
    own = model()
    block = own.blocks[0]
    assert isinstance(block, Block)
    found = weight_directions(own, "blocks.0.mlp.hook_post")
    hidden = torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(own.wte.weight)))
    assert has(found["write"], hidden[7] - hidden.mean(0))
    row = own.wte.weight[4] * own.ln_f.weight
    assert has(found["read"], (row - row.mean()) @ block.mlp.c_proj.weight)


@pytest.mark.parametrize("hook", ["blocks.2.hook_resid_post", "blocks.0.attn.hook_z", "somewhere"])
def test_other_places_have_none(hook: str) -> None:
    with pytest.raises(HookUnknown, match="directions of weights are known"):
        weight_directions(model(), hook)
