"""Where the values of a block are in the modules of transformers: one function per way of building a block.

Each takes the configuration and one block, and returns for every hook point its tap within the block or, as text, why
this block has none, in the order of a forward pass.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from torch import nn

from sparsecode.harvest.models.taps import Part, Tap

Points = dict[str, Tap | str]
Style = Literal["pre", "tied", "around", "post"]

BLOCK = ""  # the block itself
PARALLEL = "attention and MLP run side by side here, so the residual stream has no value between them"
_FIXED = "the experts are chosen from it within the same module, so a changed value would change nothing"


def _points(
    *,
    qkv: tuple[Tap, Tap, Tap],
    z: str,
    attn_out: str,
    mid: Tap | str,
    mlp: Points,
    mlp_out: str,
    ln1: Tap | str,
    ln2: Tap | str,
    ln1_post: Tap | None = None,
    ln2_post: Tap | None = None,
) -> Points:
    q, k, v = qkv
    after_attention: Points = {"ln1_post.hook_normalized": ln1_post} if ln1_post else {}
    after_mlp: Points = {"ln2_post.hook_normalized": ln2_post} if ln2_post else {}
    return {
        "hook_resid_pre": Tap(BLOCK, "input"),
        "ln1.hook_normalized": ln1,
        "attn.hook_q": q,
        "attn.hook_k": k,
        "attn.hook_v": v,
        "attn.hook_z": Tap(z, "input"),
        **after_attention,
        "hook_attn_out": Tap(attn_out),
        "hook_resid_mid": mid,
        "ln2.hook_normalized": ln2,
        **mlp,
        **after_mlp,
        "hook_mlp_out": Tap(mlp_out),
        "hook_resid_post": Tap(BLOCK),
    }


def _mid(norm: str, addend: str) -> Tap:
    """The residual stream between attention and MLP: the input of the norm before the MLP."""
    return Tap(norm, "input", addend=addend, base=BLOCK)


def _norm(block: nn.Module, path: str, offset: float = 0.0) -> Tap:
    """TransformerLens's hook_normalized: a LayerNorm's output; for an RMSNorm the value before its weight."""
    if "RMSNorm" in type(block.get_submodule(path)).__name__:
        return Tap(path, "normalised", offset=offset)
    return Tap(path)


def _two(path: str, first: str, last: str) -> Points:
    """An MLP of two matrices."""
    return {"mlp.hook_pre": Tap(f"{path}{first}"), "mlp.hook_post": Tap(f"{path}{last}", "input")}


def _heads(config: Any) -> tuple[int, int, int]:
    """Number of query heads, number of key and value heads, and the width of a head."""
    heads = int(config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, int(getattr(config, "num_key_value_heads", None) or heads), int(width)


def _whole(path: str, q: int, k: int) -> tuple[Tap, Tap, Tap]:
    """Queries, keys and values side by side in the output of one matrix."""
    return (
        Tap(path, part=Part(1, 0, q)),
        Tap(path, part=Part(1, q, q + k)),
        Tap(path, part=Part(1, q + k, q + 2 * k)),
    )


def _by_group(path: str, groups: int, queries: int, width: int) -> tuple[Tap, Tap, Tap]:
    """Queries, keys and values group by group: each has `queries` query heads, a key head and a value head."""
    stops = (0, queries * width, (queries + 1) * width, (queries + 2) * width)
    q, k, v = (Tap(path, part=Part(groups, start, stop)) for start, stop in pairwise(stops))
    return q, k, v


def llama(config: Any, block: nn.Module, *, style: Style = "pre", offset: float = 0.0) -> Points:
    """Blocks with `self_attn` and `mlp`: most families since Llama, mixtures of experts among them.

    Args:
        style: norms before attention and MLP; one `tied` norm for both, which run side by side; norms `around` each
            (Gemma 2); or `post`, only after each (OLMo 2).
        offset: what the norms add to their weights.
    """
    out = "self_attn.dense" if hasattr(block.self_attn, "dense") else "self_attn.o_proj"
    heads, kv_heads, width = _heads(config)
    qkv = (
        _whole("self_attn.qkv_proj", heads * width, kv_heads * width)
        if hasattr(block.self_attn, "qkv_proj")
        else (Tap("self_attn.q_proj"), Tap("self_attn.k_proj"), Tap("self_attn.v_proj"))
    )
    holder = next(name for name in ("mlp", "block_sparse_moe", "feed_forward") if hasattr(block, name))
    inner = block.get_submodule(holder)
    mlp = _mixture(holder, inner) if hasattr(inner, "experts") else _dense(holder, inner)

    def norm(name: str) -> Tap:
        return _norm(block, name, offset)

    if style == "tied":
        return _points(
            qkv=qkv, z=out, attn_out="self_attn", mid=PARALLEL, mlp=mlp, mlp_out=holder,
            ln1=Tap("self_attn", "input"), ln2=Tap(holder, "input"),
        )  # fmt: skip
    if style == "pre":
        return _points(
            qkv=qkv, z=out, attn_out="self_attn", mid=_mid("post_attention_layernorm", "self_attn"), mlp=mlp,
            mlp_out=holder, ln1=norm("input_layernorm"), ln2=norm("post_attention_layernorm"),
        )  # fmt: skip
    none = "its norms are after attention and MLP: ln1_post.hook_normalized and ln2_post.hook_normalized"
    before = "pre_feedforward_layernorm" if style == "around" else holder
    return _points(
        qkv=qkv, z=out, attn_out="post_attention_layernorm", mid=_mid(before, "post_attention_layernorm"), mlp=mlp,
        mlp_out="post_feedforward_layernorm",
        ln1=norm("input_layernorm") if style == "around" else none,
        ln2=norm(before) if style == "around" else none,
        ln1_post=norm("post_attention_layernorm"), ln2_post=norm("post_feedforward_layernorm"),
    )  # fmt: skip


def _dense(path: str, mlp: nn.Module) -> Points:
    if hasattr(mlp, "fc1"):
        return _two(f"{path}.", "fc1", "fc2")
    if hasattr(mlp, "c_fc"):
        return _two(f"{path}.", "c_fc", "c_proj")
    return _gated(f"{path}.", mlp, "mlp.")


def _gated(path: str, mlp: nn.Module, name: str) -> Points:
    """An MLP whose hidden layer is a product: the gate after the nonlinearity times a linear part."""
    if hasattr(mlp, "gate_up_proj"):
        hidden = int(mlp.gate_up_proj.weight.shape[0]) // 2  # type: ignore[union-attr, index]
        gate = Tap(f"{path}gate_up_proj", part=Part(1, 0, hidden))
        up = Tap(f"{path}gate_up_proj", part=Part(1, hidden, 2 * hidden))
    else:
        gate, up = Tap(f"{path}gate_proj"), Tap(f"{path}up_proj")
    last = Tap(f"{path}down_proj", "input")
    return {f"{name}hook_pre": gate, f"{name}hook_pre_linear": up, f"{name}hook_post": last}


def _mixture(path: str, mlp: Any) -> Points:
    """A mixture of experts: the router's logits, and the shared expert if there is one."""
    router = "router" if hasattr(mlp, "router") else "gate"
    plain = type(mlp.get_submodule(router)) is nn.Linear
    logits = Tap(f"{path}.{router}") if plain else Tap(f"{path}.{router}", "logits", fixed=_FIXED)
    shared: Points = {}
    if hasattr(mlp, "shared_expert"):
        shared = _gated(f"{path}.shared_expert.", mlp.shared_expert, "mlp.shared_expert.")
    there = ["mlp.hook_router_logits", *shared, "hook_mlp_out"]
    none = (
        "this block is a mixture of experts, whose hidden units see only the tokens that are sent to each; there are "
        f"{', '.join(there)}"
    )
    return {
        "mlp.hook_router_logits": logits,
        "mlp.hook_pre": none,
        "mlp.hook_pre_linear": none,
        "mlp.hook_post": none,
        **shared,
    }


def stablelm(config: Any, block: nn.Module) -> Points:
    """StableLM, side by side or one after the other."""
    return llama(config, block, style="tied" if config.use_parallel_residual else "pre")


def gpt2(config: Any, block: nn.Module) -> Points:
    """GPT-2, and the project's own GPT, which names its modules alike."""
    width = int(block.ln_1.weight.shape[0])  # type: ignore[union-attr, index]
    return _points(
        qkv=_whole("attn.c_attn", width, width), z="attn.c_proj", attn_out="attn", mid=_mid("ln_2", "attn"),
        mlp=_two("mlp.", "c_fc", "c_proj"), mlp_out="mlp", ln1=_norm(block, "ln_1"), ln2=_norm(block, "ln_2"),
    )  # fmt: skip


def gpt_neo(config: Any, block: nn.Module) -> Points:
    """GPT-Neo."""
    q, k, v = (Tap(f"attn.attention.{name}_proj") for name in "qkv")
    return _points(
        qkv=(q, k, v), z="attn.attention.out_proj", attn_out="attn", mid=_mid("ln_2", "attn"),
        mlp=_two("mlp.", "c_fc", "c_proj"), mlp_out="mlp", ln1=_norm(block, "ln_1"), ln2=_norm(block, "ln_2"),
    )  # fmt: skip


def gptj(config: Any, block: nn.Module) -> Points:
    """GPT-J: one norm for attention and MLP, which run side by side."""
    q, k, v = (Tap(f"attn.{name}_proj") for name in "qkv")
    return _points(
        qkv=(q, k, v), z="attn.out_proj", attn_out="attn", mid=PARALLEL, mlp=_two("mlp.", "fc_in", "fc_out"),
        mlp_out="mlp", ln1=Tap("attn", "input"), ln2=Tap("mlp", "input"),
    )  # fmt: skip


def gpt_neox(config: Any, block: nn.Module) -> Points:
    """GPT-NeoX and Pythia, side by side or one after the other."""
    heads, _, width = _heads(config)
    after = "post_attention_layernorm"
    return _points(
        qkv=_by_group("attention.query_key_value", heads, 1, width), z="attention.dense", attn_out="attention",
        mid=PARALLEL if config.use_parallel_residual else _mid(after, "attention"),
        mlp=_two("mlp.", "dense_h_to_4h", "dense_4h_to_h"), mlp_out="mlp",
        ln1=_norm(block, "input_layernorm"), ln2=_norm(block, after),
    )  # fmt: skip


def bloom(config: Any, block: nn.Module) -> Points:
    """BLOOM: attention and MLP take the residual stream and add to it themselves."""
    heads, _, width = _heads(config)
    normalised = "its blocks add to the output of their norms, not to the residual stream"
    return _points(
        qkv=_by_group("self_attention.query_key_value", heads, 1, width), z="self_attention.dense",
        attn_out="self_attention.dense",
        mid=normalised if config.apply_residual_connection_post_layernorm else Tap("self_attention"),
        mlp=_two("mlp.", "dense_h_to_4h", "dense_4h_to_h"), mlp_out="mlp.dense_4h_to_h",
        ln1=_norm(block, "input_layernorm"), ln2=_norm(block, "post_attention_layernorm"),
    )  # fmt: skip


def falcon(config: Any, block: nn.Module) -> Points:
    """Falcon in its three shapes: many key heads, one for all, or one for each group."""
    heads, _, width = _heads(config)
    fused = "self_attention.query_key_value"
    grouped = config.new_decoder_architecture
    groups = config.num_kv_heads if grouped else 1 if config.multi_query else heads
    ln1: Tap = Tap("self_attention", "input")
    ln2: Tap = Tap("mlp", "input")  # a single norm for both, changed for only one of them
    if hasattr(block, "ln_attn"):
        ln1, ln2 = _norm(block, "ln_attn"), _norm(block, "ln_mlp")
    elif hasattr(block, "post_attention_layernorm"):
        ln1, ln2 = _norm(block, "input_layernorm"), _norm(block, "post_attention_layernorm")
    return _points(
        qkv=_by_group(fused, groups, heads // groups, width), z="self_attention.dense", attn_out="self_attention",
        mid=PARALLEL if grouped or config.parallel_attn else _mid("post_attention_layernorm", "self_attention"),
        mlp=_two("mlp.", "dense_h_to_4h", "dense_4h_to_h"), mlp_out="mlp.dense_4h_to_h", ln1=ln1, ln2=ln2,
    )  # fmt: skip


def opt(config: Any, block: nn.Module) -> Points:
    """OPT; the model of 350M parameters normalises after each addition, as BERT does."""
    q, k, v = (Tap(f"self_attn.{name}_proj") for name in "qkv")
    if not config.do_layer_norm_before:
        return _normalised_after(
            (q, k, v), "self_attn.out_proj", "self_attn_layer_norm", _two("", "fc1", "fc2"), "fc2", "final_layer_norm"
        )
    return _points(
        qkv=(q, k, v), z="self_attn.out_proj", attn_out="self_attn", mid=_mid("final_layer_norm", "self_attn"),
        mlp=_two("", "fc1", "fc2"), mlp_out="fc2", ln1=_norm(block, "self_attn_layer_norm"),
        ln2=_norm(block, "final_layer_norm"),
    )  # fmt: skip


def _normalised_after(qkv: tuple[Tap, Tap, Tap], z: str, ln1: str, mlp: Points, mlp_out: str, ln2: str) -> Points:
    """Blocks that normalise the sums after attention and after the MLP."""
    points = _points(
        qkv=qkv, z=z, attn_out=z, mid=Tap(ln1, "input"), mlp=mlp, mlp_out=mlp_out, ln1=Tap(ln1), ln2=Tap(ln2)
    )
    norms = {name: points.pop(name) for name in ("ln1.hook_normalized", "ln2.hook_normalized")}
    points["hook_resid_post"] = Tap(ln2, "input")
    found: Points = {}
    for name, tap in points.items():
        found[name] = tap
        if name == "hook_resid_mid":
            found |= {"ln1.hook_normalized": norms["ln1.hook_normalized"], "hook_normalized_resid_mid": Tap(ln1)}
    return found | {"ln2.hook_normalized": norms["ln2.hook_normalized"], "hook_normalized_resid_post": Tap(BLOCK)}


def bert(config: Any, block: nn.Module) -> Points:
    """BERT, RoBERTa and ELECTRA."""
    q, k, v = (Tap(f"attention.self.{name}") for name in ("query", "key", "value"))
    return _normalised_after(
        (q, k, v), "attention.output.dense", "attention.output.LayerNorm",
        _two("", "intermediate.dense", "output.dense"), "output.dense", "output.LayerNorm",
    )  # fmt: skip


def distilbert(config: Any, block: nn.Module) -> Points:
    """DistilBERT."""
    q, k, v = (Tap(f"attention.{name}_lin") for name in "qkv")
    return _normalised_after(
        (q, k, v), "attention.out_lin", "sa_layer_norm", _two("ffn.", "lin1", "lin2"), "ffn.lin2", "output_layer_norm"
    )
