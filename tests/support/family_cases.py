"""Small random models of every family, and where their weights are, written down from transformers' own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

B, T, V, W, M, LAYERS, H = 3, 7, 61, 16, 24, 2, 2
COMMON = {"vocab_size": V, "hidden_size": W, "num_hidden_layers": LAYERS, "num_attention_heads": H,
          "intermediate_size": M, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0,
          "pad_token_id": 1}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 1}
WIDE = GROUPED | {"head_dim": 10}  # heads that are not W wide together
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
OLD = {"vocab_size": V, "n_embd": W, "n_layer": LAYERS, "n_head": H, "n_inner": M, "n_positions": 32,
       "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
FALCON = {"vocab_size": V, "hidden_size": W, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "bos_token_id": 0,
          "eos_token_id": 0}  # fmt: skip
OPT = {"vocab_size": V, "hidden_size": W, "num_hidden_layers": LAYERS, "num_attention_heads": H, "ffn_dim": M,
       "max_position_embeddings": 32}  # fmt: skip

Matrix = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Case:
    """A family, described from its own code.

    Attributes:
        config, settings: class and arguments of a small configuration.
        base, blocks: paths of the model without its head, and of its blocks below that.
        order: norms "pre" attention and MLP; both "side by side"; norms "around" each, "post" each, or "after" sums.
        norms: before (or after) attention and MLP.
        qkv: three matrices of a block.
        out: attention's output matrix.
        mlp: its matrices: in and out, or gate, up and out; a mixture's block alone.
    """

    config: str
    settings: dict[str, Any]
    base: str
    blocks: str
    order: str
    norms: tuple[str, str]
    qkv: Callable[[Any], list[Matrix]]
    out: str
    mlp: tuple[str, ...]
    final: str | None = "norm"
    embed: str = "embed_tokens"
    positions: str | None = None
    offset: float = 0.0


def matrix(module: Any) -> Matrix:
    """A module's matrix [out, in] and bias; GPT-2's are stored transposed."""
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight, module.bias


def separate(path: str, names: str = "q_proj k_proj v_proj") -> Callable[[Any], list[Matrix]]:
    return lambda block: [matrix(block.get_submodule(f"{path}.{name}")) for name in names.split()]


def cut(path: str, *rows: Callable[[Any, Tensor], Tensor]) -> Callable[[Any], list[Matrix]]:
    """Queries, keys and values from one matrix: each of `rows` picks its rows [out, in] from all of them."""

    def found(block: Any) -> list[Matrix]:
        weight, bias = matrix(block.get_submodule(path))
        return [(pick(block, weight), None if bias is None else pick(block, bias[:, None])[:, 0]) for pick in rows]

    return found


def one_of(groups: int, width: int, which: slice) -> Callable[[Any, Tensor], Tensor]:
    """Heads `which` of each of several groups of heads."""
    return lambda _, rows: rows.reshape(groups, -1, width, rows.shape[1])[:, which].reshape(-1, rows.shape[1])


def heads_of(groups: int, width: int) -> list[Callable[[Any, Tensor], Tensor]]:
    return [one_of(groups, width, which) for which in (slice(0, -2), slice(-2, -1), slice(-1, None))]


LLAMA: dict[str, Any] = {
    "base": "model", "blocks": "layers", "order": "pre", "norms": ("input_layernorm", "post_attention_layernorm"),
    "qkv": separate("self_attn"), "out": "self_attn.o_proj", "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}  # fmt: skip
MIXTURE: dict[str, Any] = LLAMA | {"mlp": ("mlp",)}
TWO = ("mlp.fc1", "mlp.fc2")
C_FC = ("mlp.c_fc", "mlp.c_proj")
H_TO_4H = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
SIDE: dict[str, Any] = {"order": "side by side", "norms": ("input_layernorm", "input_layernorm")}
POST: dict[str, Any] = {"order": "post", "norms": ("post_attention_layernorm", "post_feedforward_layernorm")}
AROUND: dict[str, Any] = {"order": "around", "norms": ("input_layernorm", "pre_feedforward_layernorm"), "offset": 1.0}
GPT: dict[str, Any] = {"base": "transformer", "blocks": "h", "final": "ln_f", "embed": "wte"}
NEOX: dict[str, Any] = {
    "base": "gpt_neox", "blocks": "layers", "norms": ("input_layernorm", "post_attention_layernorm"),
    "qkv": cut("attention.query_key_value", *heads_of(H, W // H)), "out": "attention.dense", "mlp": H_TO_4H,
    "final": "final_layer_norm", "embed": "embed_in",
}  # fmt: skip
FALCONS: dict[str, Any] = {**GPT, "embed": "word_embeddings", "out": "self_attention.dense", "mlp": H_TO_4H}
OPTS: dict[str, Any] = {
    "base": "model.decoder", "blocks": "layers", "norms": ("self_attn_layer_norm", "final_layer_norm"),
    "qkv": separate("self_attn"), "out": "self_attn.out_proj", "mlp": ("fc1", "fc2"), "positions": "embed_positions",
}  # fmt: skip
CASES: dict[str, Case] = {
    "gpt2": Case(
        "GPT2Config",
        OLD,
        **GPT,
        order="pre",
        norms=("ln_1", "ln_2"),
        out="attn.c_proj",
        mlp=C_FC,
        positions="wpe",
        qkv=cut("attn.c_attn", *(lambda _, rows, i=i: rows[i * W : (i + 1) * W] for i in range(3))),
    ),
    "gpt_neo": Case(
        "GPTNeoConfig",
        {
            "vocab_size": V,
            "hidden_size": W,
            "num_layers": LAYERS,
            "num_heads": H,
            "intermediate_size": M,
            "max_position_embeddings": 32,
            "window_size": 3,
            "attention_types": [[["global", "local"], 1]],
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        **GPT,
        order="pre",
        norms=("ln_1", "ln_2"),
        out="attn.attention.out_proj",
        mlp=C_FC,
        positions="wpe",
        qkv=separate("attn.attention"),
    ),
    "gptj": Case(
        "GPTJConfig",
        OLD | {"rotary_dim": 4},
        **GPT,
        order="side by side",
        norms=("ln_1", "ln_1"),
        out="attn.out_proj",
        mlp=("mlp.fc_in", "mlp.fc_out"),
        qkv=separate("attn"),
    ),
    "gpt_neox": Case("GPTNeoXConfig", COMMON, **NEOX, order="side by side"),
    "gpt_neox, one after the other": Case(
        "GPTNeoXConfig", COMMON | {"use_parallel_residual": False}, **NEOX, order="pre"
    ),
    "opt": Case("OPTConfig", OPT | {"word_embed_proj_dim": W}, **OPTS, order="pre", final="final_layer_norm"),
    "opt, narrow and normalised after": Case(
        "OPTConfig",
        OPT | {"word_embed_proj_dim": 12, "do_layer_norm_before": False},
        **OPTS,
        order="after",
        final=None,
        embed="project_in",
    ),
    "bloom": Case(
        "BloomConfig",
        {"vocab_size": V, "hidden_size": W, "n_layer": LAYERS, "n_head": H, "bos_token_id": 0, "eos_token_id": 0},
        **(GPT | {"embed": "word_embeddings_layernorm"}),
        order="pre",
        norms=("input_layernorm", "post_attention_layernorm"),
        out="self_attention.dense",
        mlp=H_TO_4H,
        qkv=cut("self_attention.query_key_value", *heads_of(H, W // H)),
    ),
    "falcon": Case(
        "FalconConfig", FALCON, **FALCONS, **SIDE, qkv=cut("self_attention.query_key_value", *heads_of(1, 4))
    ),
    "falcon, grouped": Case(
        "FalconConfig",
        FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True},
        **FALCONS,
        order="side by side",
        norms=("ln_attn", "ln_mlp"),
        qkv=cut("self_attention.query_key_value", *heads_of(2, 4)),
    ),
    "falcon, one after the other": Case(
        "FalconConfig",
        FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True},
        **FALCONS,
        order="pre",
        norms=("input_layernorm", "post_attention_layernorm"),
        qkv=cut("self_attention.query_key_value", *heads_of(4, 4)),
    ),
    "phi": Case(
        "PhiConfig", COMMON, **(LLAMA | SIDE | {"out": "self_attn.dense", "mlp": TWO, "final": "final_layernorm"})
    ),
    "phi3": Case(
        "Phi3Config",
        GROUPED,
        **(
            LLAMA
            | {
                "mlp": ("mlp.gate_up_proj", "mlp.down_proj"),
                "qkv": cut(
                    "self_attn.qkv_proj", lambda _, r: r[:W], lambda _, r: r[W : W + 8], lambda _, r: r[W + 8 :]
                ),
            }
        ),
    ),
    "llama": Case("LlamaConfig", COMMON, **LLAMA),
    "mistral": Case("MistralConfig", WIDE, **LLAMA),
    "mixtral": Case("MixtralConfig", GROUPED | {"num_local_experts": 4}, **MIXTURE),
    "qwen2": Case("Qwen2Config", GROUPED, **LLAMA),
    "qwen2_moe": Case("Qwen2MoeConfig", GROUPED | EXPERTS | {"shared_expert_intermediate_size": 20}, **MIXTURE),
    "qwen3": Case("Qwen3Config", WIDE, **LLAMA),
    "qwen3_moe": Case("Qwen3MoeConfig", WIDE | EXPERTS | {"norm_topk_prob": True}, **MIXTURE),
    "smollm3": Case("SmolLM3Config", GROUPED, **LLAMA),
    "olmo": Case("OlmoConfig", COMMON, **LLAMA),
    "olmoe": Case("OlmoeConfig", COMMON | {"num_experts": 4, "num_experts_per_tok": 2}, **MIXTURE),
    "olmo2": Case("Olmo2Config", GROUPED, **(LLAMA | POST)),
    "olmo3": Case("Olmo3Config", GROUPED, **(LLAMA | POST)),
    "gemma": Case("GemmaConfig", WIDE, **LLAMA, offset=1.0, embed=""),
    "gemma2": Case("Gemma2Config", WIDE, **(LLAMA | AROUND), embed=""),
    "gemma3_text": Case("Gemma3TextConfig", WIDE, **(LLAMA | AROUND), embed=""),
    "stablelm": Case("StableLmConfig", GROUPED, **LLAMA),
    "stablelm, side by side": Case("StableLmConfig", GROUPED | {"use_parallel_residual": True}, **(LLAMA | SIDE)),
    "starcoder2": Case("Starcoder2Config", GROUPED, **(LLAMA | {"mlp": C_FC})),
    "cohere": Case("CohereConfig", GROUPED, **(LLAMA | SIDE)),
    "cohere2": Case("Cohere2Config", GROUPED, **(LLAMA | SIDE)),
    "gpt_oss": Case("GptOssConfig", WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}, **MIXTURE),
    "llama4_text": Case(
        "Llama4TextConfig", GROUPED | {"head_dim": 8, "num_local_experts": 4}, **(LLAMA | {"mlp": ("feed_forward",)})
    ),
}


def make(name: str, **options: Any) -> Any:
    """A transformers model, its parameters far from their tiny initial values."""
    case = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**case.settings)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids() -> Tensor:
    return torch.randint(2, V, (B, T), generator=torch.Generator().manual_seed(1))
