"""TransformerLens's hook points in the model families of transformers: which exist, and where.

Once per model:

    hook_embed                  the tokens' embeddings, as they are added up (Gemma: scaled; BLOOM: normalised)
    hook_pos_embed              the positions' embeddings, where positions have any
    ln_final.hook_normalized    the residual stream as the last norm makes it, see below

Per block (L is its number, from 0), as blocks.L.NAME:

    hook_resid_pre              the block's input
    ln1.hook_normalized         the residual stream as the norm before attention makes it
    attn.hook_q, hook_k, hook_v queries, keys and values of all heads, side by side, before rotation and norms of heads
    attn.hook_z                 attention's heads, side by side, before the output projection
    hook_attn_out               what attention adds to the residual stream
    hook_resid_mid              the residual stream between attention and MLP; there is none where both run side by side
    ln2.hook_normalized         the residual stream as the norm before the MLP makes it
    mlp.hook_pre                the MLP's hidden layer before the nonlinearity (in a gated MLP: the gate)
    mlp.hook_pre_linear         in a gated MLP: what the gate is multiplied with
    mlp.hook_post               the input of the MLP's last matrix: after the nonlinearity, in a gated MLP after the
                                product
    mlp.hook_router_logits      in a mixture of experts: one number per expert, before softmax or choice
    hook_mlp_out                what the MLP adds to the residual stream
    hook_resid_post             the block's output

hook_normalized is a LayerNorm's output, and for an RMSNorm the value before its weight, as in TransformerLens 2. From
3 on a LayerNorm's is the value before weight and bias there.

BERT normalises after each addition. There, hook_resid_mid and hook_resid_post are the sums before LayerNorm, as in
TransformerLens, and hook_normalized_resid_mid and hook_normalized_resid_post are the values after it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import nn

from sparsecode.errors import ModelInvalid
from sparsecode.harvest.models import architectures as of
from sparsecode.harvest.models.architectures import Points
from sparsecode.harvest.models.taps import Tap

_ROTATED = "its positions rotate queries and keys; no vector is added for them"
_BIASED = "its positions are added to attention's scores (ALiBi); no vector is added for them"


@dataclass(frozen=True)
class Family:
    """A family of transformers.

    Attributes:
        blocks: path of its list of blocks below the model without its head.
        inside: hook points of a block, from the configuration and the block.
        outside: hook points outside the blocks, from the configuration, as taps below the model without its head.
    """

    blocks: str
    inside: Callable[[Any, nn.Module], Points]
    outside: Callable[[Any], Points]


@dataclass(frozen=True)
class Hooks:
    """The hook points of one model.

    Attributes:
        taps: name -> tap, in the order of a forward pass.
        refused: names that other models of its kind have -> why this one does not.
    """

    taps: dict[str, Tap] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def _outside(embed: str, positions: str, final: str, offset: float = 0.0, rms: bool = False) -> Callable[[Any], Points]:
    """Taps outside the blocks. In place of a path, a text with spaces says why there is none."""
    where = {"hook_embed": embed, "hook_pos_embed": positions, "ln_final.hook_normalized": final}
    taps: Points = {name: path if " " in path else Tap.parse(path) for name, path in where.items()}
    if rms:
        taps["ln_final.hook_normalized"] = Tap(final, "normalised", offset=offset)
    return lambda config: taps


def _opt(config: Any) -> Points:
    """OPT: 350M's embeddings are narrower than its residual stream, and it has no last norm."""
    embed = "embed_tokens" if config.word_embed_proj_dim == config.hidden_size else "project_in"
    normalised = config.do_layer_norm_before and not getattr(config, "_remove_final_layer_norm", False)
    final = "decoder.final_layer_norm" if normalised else "it has no norm at the end"
    return _outside(f"decoder.{embed}", "decoder.embed_positions", final)(config)


def _falcon(config: Any) -> Points:
    return _outside("word_embeddings", _BIASED if config.alibi else _ROTATED, "ln_f")(config)


_encoder = _outside(
    "embeddings.word_embeddings",
    "embeddings.position_embeddings",
    "its blocks end with a norm: blocks.L.hook_normalized_resid_post",
)
_LLAMA = Family("layers", of.llama, _outside("embed_tokens", _ROTATED, "norm", rms=True))
# Some versions scale Gemma's embeddings within their module, some after it; the first block's input is scaled.
_GEMMA_OUTSIDE = _outside("layers.0@input", _ROTATED, "norm", offset=1.0, rms=True)
_GEMMA = Family("layers", partial(of.llama, offset=1.0), _GEMMA_OUTSIDE)
_GEMMA2 = Family("layers", partial(of.llama, style="around", offset=1.0), _GEMMA_OUTSIDE)
_OLMO2 = Family("layers", partial(of.llama, style="post"), _LLAMA.outside)
_LAYER_NORM = Family("layers", of.llama, _outside("embed_tokens", _ROTATED, "norm"))
_COHERE = Family("layers", partial(of.llama, style="tied"), _LAYER_NORM.outside)
_BERT = Family("encoder.layer", of.bert, _encoder)
_ONE_STEP = "it adds up tokens and positions in one step: blocks.0.hook_resid_pre"
OWN_GPT = Family("blocks", of.gpt2, _outside(_ONE_STEP, _ONE_STEP, "ln_f"))

# By transformers' model_type.
FAMILIES: dict[str, Family] = {
    "gpt2": Family("h", of.gpt2, _outside("wte", "wpe", "ln_f")),
    "gpt_neo": Family("h", of.gpt_neo, _outside("wte", "wpe", "ln_f")),
    "gptj": Family("h", of.gptj, _outside("wte", _ROTATED, "ln_f")),
    "gpt_neox": Family("layers", of.gpt_neox, _outside("embed_in", _ROTATED, "final_layer_norm")),
    "opt": Family("decoder.layers", of.opt, _opt),
    "bloom": Family("h", of.bloom, _outside("word_embeddings_layernorm", _BIASED, "ln_f")),
    "falcon": Family("h", of.falcon, _falcon),
    "phi": Family("layers", partial(of.llama, style="tied"), _outside("embed_tokens", _ROTATED, "final_layernorm")),
    "phi3": _LLAMA,
    "llama": _LLAMA,
    "llama4_text": _LLAMA,
    "mistral": _LLAMA,
    "ministral": _LLAMA,
    "ministral3": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen2_moe": _LLAMA,
    "qwen2_vl_text": _LLAMA,
    "qwen2_5_vl_text": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "qwen3_vl_text": _LLAMA,
    "qwen3_vl_moe_text": _LLAMA,
    "smollm3": _LLAMA,
    "gpt_oss": _LLAMA,
    "olmo": _LAYER_NORM,
    "olmoe": _LLAMA,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "stablelm": Family("layers", of.stablelm, _LAYER_NORM.outside),
    "starcoder2": _LAYER_NORM,
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Family("transformer.layer", of.distilbert, _encoder),
}


def language_config(config: Any) -> Any:
    """The configuration of the part that reads text; in a vision-language model, of its language model."""
    text = getattr(config, "text_config", None)
    both = any(getattr(one, "is_encoder_decoder", False) for one in (config, text))
    return text if hasattr(text, "model_type") and not both else config


def family_of(config: Any) -> Family | None:
    """The family of a transformers configuration, or of its language model; None if it is unknown."""
    return FAMILIES.get(str(getattr(language_config(config), "model_type", "")))


def hook_taps(model: nn.Module, family: Family) -> Hooks:
    """Every hook point of a model by name, `blocks.2.mlp.hook_post`, in the order of a forward pass.

    Raises:
        ModelInvalid: the model's modules are not those of its family.
    """
    try:
        path, config = _language_model(model, family)
        base = model.get_submodule(path)
        outside = {name: _below(tap, path) for name, tap in family.outside(config).items()}
        last = {name: outside.pop(name) for name in ("ln_final.hook_normalized",)}
        inside: Points = {}
        blocks = cast(nn.ModuleList, base.get_submodule(family.blocks))
        for layer, block in enumerate(blocks):
            prefix = f"{path}.{family.blocks}.{layer}".strip(".")
            for name, tap in family.inside(config, block).items():
                inside[f"blocks.{layer}.{name}"] = _below(tap, prefix)
        every = outside | inside | last
        for tap in every.values():
            if isinstance(tap, Tap):
                model.get_submodule(tap.module)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError, ZeroDivisionError) as error:
        version = importlib.metadata.version("transformers")
        raise ModelInvalid(
            f"{type(model).__name__}: its modules in transformers {version} are not those that its family is known by "
            f"({error or 'there are no blocks'}), so it has no hook points",
            remedy="module",
        ) from error
    return Hooks(
        {name: tap for name, tap in every.items() if isinstance(tap, Tap)},
        {name: reason for name, reason in every.items() if isinstance(reason, str)},
    )


def _below(tap: Tap | str, path: str) -> Tap | str:
    return tap.within(path) if isinstance(tap, Tap) else tap


def _language_model(model: nn.Module, family: Family) -> tuple[str, Any]:
    """Path of the model without its head within the outermost module, and its configuration."""
    wanted = language_config(model.config)
    kind = getattr(wanted, "model_type", None)
    for path, module in model.named_modules():
        if getattr(getattr(module, "config", None), "model_type", None) == kind and _has(module, family.blocks):
            return path, wanted
    raise AttributeError(f"no {family.blocks} in {type(model).__name__}")


def _has(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(module.get_submodule(path), nn.ModuleList)
    except AttributeError:
        return False
