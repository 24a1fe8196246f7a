"""Where TransformerLens's hook points are in the modules of each family of models.

Per block (L is its number, from 0):

    hook_resid_pre    what the block is given
    attn.hook_z       attention's heads, side by side, before the output projection
    hook_attn_out     what attention adds to the residual stream
    hook_resid_mid    the residual stream between attention and MLP; there is none where both run side by side
    mlp.hook_pre      the MLP's hidden layer before the nonlinearity (of a gated MLP: the gate)
    mlp.hook_post     what the MLP's last matrix is given: after the nonlinearity, and of a gated MLP after the product
    hook_mlp_out      what the MLP adds to the residual stream
    hook_resid_post   what the block gives on

BERT normalises after each addition: there hook_resid_mid and hook_resid_post are the sums before, as TransformerLens
has it, and hook_normalized_resid_mid and hook_normalized_resid_post are what LayerNorm makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsecode.errors import ModelInvalid
from sparsecode.harvest.models.places import Place

BLOCK = ""  # the block itself


@dataclass(frozen=True)
class Family:
    """A kind of transformer.

    Attributes:
        blocks: path of its list of blocks below the model without its head.
        places: hook point within a block -> place within the block.
    """

    blocks: str
    places: Mapping[str, Place]


def _pre_norm(
    *,
    attention: str,
    projection: str,
    attention_out: str,
    norm: str,
    mlp_in: str,
    mlp_last: str,
    mlp_out: str,
) -> dict[str, Place]:
    return {
        "hook_resid_pre": Place(BLOCK, "input"),
        "attn.hook_z": Place(f"{attention}.{projection}", "input"),
        "hook_attn_out": Place(attention_out),
        "hook_resid_mid": Place(norm, "input", addend=attention_out, base=BLOCK),
        "mlp.hook_pre": Place(f"mlp.{mlp_in}"),
        "mlp.hook_post": Place(f"mlp.{mlp_last}", "input"),
        "hook_mlp_out": Place(mlp_out),
        "hook_resid_post": Place(BLOCK),
    }


_GPT2 = Family("h", _pre_norm(attention="attn", projection="c_proj", attention_out="attn", norm="ln_2", mlp_in="c_fc",
                              mlp_last="c_proj", mlp_out="mlp"))  # fmt: skip
_NEOX = Family("layers", _pre_norm(attention="attention", projection="dense", attention_out="attention",
                                   norm="post_attention_layernorm", mlp_in="dense_h_to_4h",
                                   mlp_last="dense_4h_to_h", mlp_out="mlp"))  # fmt: skip
_NEOX_PARALLEL = Family("layers", {name: place for name, place in _NEOX.places.items() if name != "hook_resid_mid"})
_LLAMA = Family("layers", _pre_norm(attention="self_attn", projection="o_proj", attention_out="self_attn",
                                    norm="post_attention_layernorm", mlp_in="gate_proj", mlp_last="down_proj",
                                    mlp_out="mlp"))  # fmt: skip
# Gemma 2 and 3 normalise what attention and MLP give before they add it.
_GEMMA2 = Family("layers", _pre_norm(attention="self_attn", projection="o_proj",
                                     attention_out="post_attention_layernorm", norm="pre_feedforward_layernorm",
                                     mlp_in="gate_proj", mlp_last="down_proj",
                                     mlp_out="post_feedforward_layernorm"))  # fmt: skip
_BERT = Family(
    "encoder.layer",
    {
        "hook_resid_pre": Place(BLOCK, "input"),
        "attn.hook_z": Place("attention.output.dense", "input"),
        "hook_attn_out": Place("attention.output.dense"),
        "hook_resid_mid": Place("attention.output.LayerNorm", "input"),
        "hook_normalized_resid_mid": Place("attention"),
        "mlp.hook_pre": Place("intermediate.dense"),
        "mlp.hook_post": Place("output.dense", "input"),
        "hook_mlp_out": Place("output.dense"),
        "hook_resid_post": Place("output.LayerNorm", "input"),
        "hook_normalized_resid_post": Place(BLOCK),
    },
)
_DISTILBERT = Family(
    "transformer.layer",
    {
        "hook_resid_pre": Place(BLOCK, "input"),
        "attn.hook_z": Place("attention.out_lin", "input"),
        "hook_attn_out": Place("attention.out_lin"),
        "hook_resid_mid": Place("sa_layer_norm", "input"),
        "hook_normalized_resid_mid": Place("sa_layer_norm"),
        "mlp.hook_pre": Place("ffn.lin1"),
        "mlp.hook_post": Place("ffn.lin2", "input"),
        "hook_mlp_out": Place("ffn.lin2"),
        "hook_resid_post": Place("output_layer_norm", "input"),
        "hook_normalized_resid_post": Place(BLOCK),
    },
)
# The project's own GPT; its attention and MLP are not called as modules, their last matrices are.
OWN_GPT = Family(
    "blocks",
    {
        "hook_resid_pre": Place(BLOCK, "input"),
        "attn.hook_z": Place("attn.c_proj", "input"),
        "hook_resid_mid": Place("ln_2", "input", addend="attn.c_proj", base=BLOCK),
        "mlp.hook_post": Place("mlp.c_proj", "input"),
        "hook_mlp_out": Place("mlp.c_proj"),
        "hook_resid_post": Place(BLOCK),
    },
)

# By transformers' model_type.
FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": _DISTILBERT,
}


def family_of(config: Any) -> Family | None:
    """The family of a transformers configuration; None where it is none of those known."""
    kind = str(getattr(config, "model_type", ""))
    if kind == "gpt_neox" and getattr(config, "use_parallel_residual", True):
        return _NEOX_PARALLEL
    return FAMILIES.get(kind)


def hook_places(model: nn.Module, family: Family, prefix: str = "") -> dict[str, Place]:
    """Every hook point of a model by name, `blocks.2.mlp.hook_post`, in the order of a forward pass.

    Args:
        prefix: the attribute of `model` that holds the model without its head, where there is one.

    Raises:
        ModelInvalid: the model's modules are not those of its family.
    """
    # Some versions of transformers name a prefix that a model does not have (Gemma 3 in 4.57); there it is `model`.
    holder = next((name for name in (prefix, "model") if name and hasattr(model, name)), "")
    path = f"{holder}.{family.blocks}".strip(".")
    try:
        blocks = model.get_submodule(path)
        count = len(blocks)  # type: ignore[arg-type]
        found = {
            f"blocks.{layer}.{hook}": place.within(f"{path}.{layer}")
            for layer in range(count)
            for hook, place in family.places.items()
        }
        for place in found.values():
            model.get_submodule(place.module)
    except (AttributeError, TypeError) as error:
        raise ModelInvalid(
            f"{type(model).__name__}: its modules are not those of its family ({error}); name them with --module"
        ) from error
    return found
