"""Directions of the weights in the space of a hook point: what later parts of a GPT read there, earlier ones write.

The rows of an input matrix and the columns of an output matrix are directions of the residual stream. The hidden layer
of an MLP is another space: what is read later is pulled back through its output matrix, and what is written there is
what it makes of each token's embedding alone. Shapes: n directions, D values at the hook point, C the residual stream.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecode.errors import HookUnknown
from sparsecode.gpt.model import GPT, Block

_HOOK = re.compile(r"blocks\.(\d+)\.(hook_resid_pre|hook_resid_mid|hook_resid_post|mlp\.hook_post)")


@torch.no_grad()
def weight_directions(model: GPT, hook: str) -> dict[str, Tensor]:
    """`read` and `write`, [n, D] each, with the longest first; no norms are taken.

    Args:
        model: the transformer.
        hook: a place in the residual stream or the hidden layer of an MLP, named as TransformerLens does.

    Raises:
        HookUnknown: another place.
    """
    found = _HOOK.fullmatch(hook)
    if found is None or int(found[1]) >= model.config.n_layer:
        raise HookUnknown(
            f"'{hook}': directions of weights are known for the residual stream and the hidden layers of MLPs alone"
        )
    layer, site = int(found[1]), found[2]
    block = model.blocks[layer]
    assert isinstance(block, Block)
    if site == "mlp.hook_post":
        embedded = F.gelu(block.mlp.c_fc(block.ln_2(model.wte.weight)))
        both = _read(model, layer, "hook_resid_post") @ block.mlp.c_proj.weight, embedded - embedded.mean(0)
    else:
        both = _read(model, layer, site), _written(model, layer, site)
    return {name: _longest_first(rows) for name, rows in zip(("read", "write"), both, strict=True)}


def _read(model: GPT, layer: int, site: str) -> Tensor:
    """Rows of what reads the stream later, each times the gain of its norm and without the mean that the norm takes."""
    rows = [model.wte.weight * model.ln_f.weight]
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if number > layer or (number == layer and site == "hook_resid_pre"):
            rows.append(block.attn.c_attn.weight * block.ln_1.weight)
        if number > layer or (number == layer and site != "hook_resid_post"):
            rows.append(block.mlp.c_fc.weight * block.ln_2.weight)
    every = torch.cat(rows)
    return every - every.mean(1, keepdim=True)


def _written(model: GPT, layer: int, site: str) -> Tensor:
    """Columns of what has written to the stream before, and the embeddings."""
    rows = [model.wte.weight - model.wte.weight.mean(0)]
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        if number < layer or (number == layer and site != "hook_resid_pre"):
            rows.append(block.attn.c_proj.weight.T)
        if number < layer or (number == layer and site == "hook_resid_post"):
            rows.append(block.mlp.c_proj.weight.T)
    return torch.cat(rows)


def _longest_first(rows: Tensor) -> Tensor:
    norm = rows.norm(dim=1)
    order = torch.argsort(-norm, stable=True)
    return rows[order[norm[order] > 0]]
