"""Every hook point of every family, compared with a slow computation by formulas from the weights.

From what a block is given, this computes norms, queries, keys and values, heads (with transformers' own attention
weights), the MLP or each expert of a mixture, and the sums; nothing is read where the package reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family_cases import CASES, EXPERTS, GROUPED, LAYERS, B, Case, M, T, W, ids, make, matrix
from sparsecode.errors import HookUnknown
from sparsecode.harvest.models import LanguageModel
from sparsecode.harvest.models.loading import hf_model

transformers = pytest.importorskip("transformers")


def close(found: Tensor, expected: Tensor, what: str = "") -> None:
    torch.testing.assert_close(
        found, expected.reshape(found.shape), rtol=1e-3, atol=1e-4, msg=lambda text: f"{what}: {text}"
    )


def normalised(norm: Any, x: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """(TransformerLens's hook_normalized, what the norm gives), by the formulas."""
    eps: Any = getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", 1e-5)
    weight: Any = getattr(norm, "weight", None)
    if "RMSNorm" in type(norm).__name__:
        hat = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return hat, hat * (weight + offset)
    hat = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
    hat = hat if weight is None else hat * weight
    hat = hat if getattr(norm, "bias", None) is None else hat + norm.bias
    return hat, hat


def activation(config: Any) -> Callable[[Tensor], Tensor]:
    if config.model_type == "bloom":
        return lambda x: F.gelu(x, approximate="tanh")
    names = ("hidden_act", "activation_function", "hidden_activation", "activation")
    name = next(getattr(config, name) for name in names if getattr(config, name, None))
    found: Callable[[Tensor], Tensor] = transformers.activations.ACT2FN[name]
    return found


def mlp_values(case: Case, block: Any, config: Any, x: Tensor) -> dict[str, Tensor]:
    """The MLP's hook points from its input."""
    act = activation(config)
    if len(case.mlp) == 1:
        return mixture(block.get_submodule(case.mlp[0]), config, act, x)
    layers = [matrix(block.get_submodule(path)) for path in case.mlp]
    if len(layers) == 2 and layers[0][0].shape[0] == 2 * M:  # gate and linear part of one matrix
        layers = [(layers[0][0][:M], None), (layers[0][0][M:], None), layers[1]]
    values = {"mlp.hook_pre": F.linear(x, *layers[0])}
    values["mlp.hook_post"] = act(values["mlp.hook_pre"])
    if len(layers) == 3:
        values["mlp.hook_pre_linear"] = F.linear(x, *layers[1])
        values["mlp.hook_post"] = values["mlp.hook_post"] * values["mlp.hook_pre_linear"]
    return values | {"hook_mlp_out": F.linear(values["mlp.hook_post"], *layers[-1])}


def mixture(mlp: Any, config: Any, act: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """A mixture of experts, token by token and expert by expert."""
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    values = {"mlp.hook_router_logits": F.linear(x, router.weight, getattr(router, "bias", None))}
    if config.model_type in ("gpt_oss", "llama4_text"):  # their experts have formulas of their own
        output = mlp(x)
        values["hook_mlp_out"] = (output[0] if isinstance(output, tuple) else output).reshape(x.shape)
        one = getattr(mlp, "shared_expert", None)
    else:
        out = torch.zeros_like(x)
        for b in range(B):
            for t in range(T):
                shares, chosen = values["mlp.hook_router_logits"][b, t].softmax(-1).topk(config.num_experts_per_tok)
                if config.model_type == "mixtral" or config.norm_topk_prob:
                    shares = shares / shares.sum()
                for share, expert in zip(shares, chosen.tolist(), strict=True):
                    gate, up = F.linear(x[b, t], mlp.experts.gate_up_proj[expert]).chunk(2)
                    out[b, t] += share * F.linear(act(gate) * up, mlp.experts.down_proj[expert])
        values["hook_mlp_out"] = out
        one = getattr(mlp, "shared_expert", None)
        if one is not None:
            hidden = act(F.linear(x, one.gate_proj.weight)) * F.linear(x, one.up_proj.weight)
            share = F.linear(x, mlp.shared_expert_gate.weight).sigmoid()
            values["hook_mlp_out"] = out + share * F.linear(hidden, one.down_proj.weight)
    if one is not None:
        values["mlp.shared_expert.hook_pre"] = F.linear(x, one.gate_proj.weight)
        values["mlp.shared_expert.hook_pre_linear"] = F.linear(x, one.up_proj.weight)
        values["mlp.shared_expert.hook_post"] = (
            act(values["mlp.shared_expert.hook_pre"]) * values["mlp.shared_expert.hook_pre_linear"]
        )
    return values


def block_values(case: Case, block: Any, config: Any, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """All hook points of a block, from what it is given [B,T,W] and its attention's weights [B,H,T,T]."""
    values = {"hook_resid_pre": x}
    first, second = (block.get_submodule(path) for path in case.norms)
    given = x
    if case.order in ("pre", "side by side", "around"):
        values["ln1.hook_normalized"], given = normalised(first, x, case.offset)
    q, k, v = (F.linear(given, *one) for one in case.qkv(block))
    values |= {"attn.hook_q": q, "attn.hook_k": k, "attn.hook_v": v}
    heads = weights.shape[1]
    width = q.shape[-1] // heads
    per_head = v.reshape(*v.shape[:-1], -1, width).repeat_interleave(
        heads // (v.shape[-1] // width), dim=2
    )  # [B,T,H,d]
    values["attn.hook_z"] = torch.einsum("bhts,bshd->bthd", weights, per_head).flatten(2)
    added = F.linear(values["attn.hook_z"], *matrix(block.get_submodule(case.out)))
    if case.order in ("around", "post"):
        norm = block.post_attention_layernorm
        values["ln1_post.hook_normalized"], added = normalised(norm, added, case.offset)
    values["hook_attn_out"] = added
    mid = x + added
    if case.order != "side by side":
        values["hook_resid_mid"] = mid
    start = x if case.order == "side by side" else mid
    if case.order == "after":
        values["ln1.hook_normalized"], start = normalised(first, mid, 0.0)
        values["hook_normalized_resid_mid"] = given = start
    elif case.order == "post":
        given = mid
    else:
        values["ln2.hook_normalized"], given = normalised(second, start, case.offset)
    values |= mlp_values(case, block, config, given)
    if case.order in ("around", "post"):
        norm = block.post_feedforward_layernorm
        values["ln2_post.hook_normalized"], values["hook_mlp_out"] = normalised(
            norm, values["hook_mlp_out"], case.offset
        )
    values["hook_resid_post"] = (start if case.order == "after" else mid) + values["hook_mlp_out"]
    if case.order == "after":
        values["ln2.hook_normalized"], values["hook_normalized_resid_post"] = normalised(
            second, values["hook_resid_post"], 0.0
        )
    return values


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_values_are_those_of_the_slow_way(name: str) -> None:
    case, model = CASES[name], make(name)
    found = hf_model(model, None, name)
    assert not found.unread
    values = found.read({"input_ids": ids()}, found.taps)
    told = model(ids(), output_hidden_states=True, output_attentions=True)
    base = model.get_submodule(case.base)
    expected: dict[str, Tensor] = {}
    x = told.hidden_states[0]
    for layer, block in enumerate(base.get_submodule(case.blocks)):
        own = block_values(case, block, model.config, x, told.attentions[layer])
        expected |= {f"blocks.{layer}.{hook}": value for hook, value in own.items()}
        x = own.get("hook_normalized_resid_post", own["hook_resid_post"])
        if layer < LAYERS - 1:  # transformers' own answer; its last one is normalised
            close(x, told.hidden_states[layer + 1], f"block {layer}")
    if case.final is not None:
        hat, out = normalised(base.get_submodule(case.final), x, case.offset)
        expected["ln_final.hook_normalized"] = hat
        close(out, told.hidden_states[-1], "the last norm")
    tokens = model.get_input_embeddings()(ids())
    if not case.embed:
        expected["hook_embed"] = told.hidden_states[0]
    else:
        same = case.embed in ("wte", "embed_in", "embed_tokens", "word_embeddings")
        expected["hook_embed"] = tokens if same else base.get_submodule(case.embed)(tokens)
    if case.positions is not None:
        skipped = 2 if case.positions == "embed_positions" else 0  # OPT's first position is its third row
        rows = base.get_submodule(case.positions).weight[skipped : skipped + T]
        expected["hook_pos_embed"] = rows.expand(B, -1, -1)
        close(expected["hook_embed"] + expected["hook_pos_embed"], told.hidden_states[0], "the sum of embeddings")
    assert expected.keys() == values.keys()
    for hook, value in values.items():
        close(value, expected[hook], hook)


@pytest.mark.parametrize("name", CASES)
def test_changes_reach_the_output_and_no_change_changes_nothing(name: str) -> None:
    found = hf_model(make(name), None, name)
    given = {"input_ids": ids()}
    clean = found.logits(given)
    for hook, place in found.taps.items():
        if hook.startswith("blocks.0."):
            continue  # as those of the next block
        if place.fixed:
            with pytest.raises(HookUnknown, match="can only be read: the experts are chosen"):
                found.logits(given, hook, lambda value: value)
            continue
        assert torch.equal(found.logits(given, hook, lambda value: value), clean), hook
        assert not torch.allclose(found.logits(given, hook, lambda value: value.flip(-1) + 1), clean), hook
    # Values of zero make heads of zero, in the right columns of whatever matrix makes them.
    v, z = (found.logits(given, f"blocks.1.attn.hook_{one}", torch.zeros_like) for one in "vz")
    close(v, z)
    assert not torch.allclose(v, clean)
    check_a_norm(found, given)


def check_a_norm(found: LanguageModel, given: dict[str, Tensor]) -> None:
    """A changed hook_normalized of the last norm, beside the weight that is applied to it by hand."""
    place = found.taps.get("ln_final.hook_normalized")
    if place is None:
        return
    goal = torch.randn(B, T, W, generator=torch.Generator().manual_seed(3))
    norm: Any = found.module.get_submodule(place.module)
    out = goal * (norm.weight.detach() + place.offset) if "RMSNorm" in type(norm).__name__ else goal
    handle = norm.register_forward_hook(lambda *_: out)
    expected = found.logits(given)
    handle.remove()
    close(found.logits(given, "ln_final.hook_normalized", lambda _: goal), expected)


@pytest.mark.parametrize("name", ["gpt_neo", "gptj", "opt", "bloom", "falcon", "falcon, one after the other", "phi",
                                  "phi3", "mixtral", "qwen2_moe", "olmo2"])  # fmt: skip
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_value(name: str, side: str) -> None:
    found = hf_model(make(name), None, name)
    hook = "blocks.1.hook_resid_post"
    alone = found.read({"input_ids": ids()}, [hook])[hook]
    padding = torch.full((B, 4), 1)
    order = [padding, ids()] if side == "left" else [ids(), padding]
    mask = torch.cat([part * 0 + (part is not padding) for part in order], dim=1)
    padded = found.read({"input_ids": torch.cat(order, dim=1), "attention_mask": mask}, [hook])[hook]
    close(padded[:, 4:] if side == "left" else padded[:, :T], alone)


@pytest.mark.parametrize(
    ("name", "hook", "reason"),
    [
        ("mixtral", "blocks.0.mlp.hook_post", r"mixture of experts.*; there are mlp\.hook_router_logits, hook_mlp_out"),
        ("mixtral", "blocks.1.mlp.experts.3.hook_pre", "whose hidden units see only the tokens that are sent to each"),
        ("qwen2_moe", "blocks.0.mlp.hook_pre", r"mlp\.shared_expert\.hook_post, hook_mlp_out"),
        ("phi", "blocks.0.hook_resid_mid", "attention and MLP run side by side"),
        ("olmo2", "blocks.0.ln1.hook_normalized", r"norms are after .*: ln1_post\.hook_normalized"),
        ("llama", "hook_pos_embed", "its positions rotate queries and keys"),
        ("bloom", "hook_pos_embed", "ALiBi"),
        ("opt, narrow and normalised after", "ln_final.hook_normalized", "no norm at the end"),
    ],
)
def test_what_a_family_does_not_have_says_why_in_one_line(name: str, hook: str, reason: str) -> None:
    found = hf_model(make(name), None, "mine")
    with pytest.raises(HookUnknown, match=rf"mine \(.*\): no {hook}: .*{reason}") as caught:
        found.tap(hook)
    assert "\n" not in str(caught.value)


def test_blocks_of_one_model_may_differ() -> None:
    """Every second block of some mixtures is an ordinary one."""
    settings = GROUPED | EXPERTS | {"shared_expert_intermediate_size": 20, "mlp_only_layers": [0]}
    model = transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**settings)).eval()
    found = hf_model(model, None, "mine")
    assert {"blocks.0.mlp.hook_post", "blocks.1.mlp.hook_router_logits"} <= found.taps.keys()
    assert not {"blocks.0.mlp.hook_router_logits", "blocks.1.mlp.hook_post"} & found.taps.keys()
    assert found.width("blocks.0.mlp.hook_post") == M


def test_a_router_of_an_ordinary_matrix_can_be_changed() -> None:
    """Acts like versions of transformers that choose the experts outside of it."""
    model = make("mixtral")

    class Mixture(nn.Module):
        def __init__(self, plain: Any) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(W, 4, bias=False), plain.experts
            self.gate.weight = plain.gate.weight

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.gate(x.reshape(-1, W))
            shares, chosen = logits.softmax(-1).topk(2)
            return self.experts(x.reshape(-1, W), chosen, shares / shares.sum(-1, keepdim=True)).view_as(x), logits

    plain = hf_model(model, None, "mine").logits({"input_ids": ids()})
    for block in model.model.layers:
        block.mlp = Mixture(block.mlp)
        block.register_forward_hook(lambda _, __, output: output)
        block.mlp.register_forward_hook(lambda _, __, output: output[0])
    found = hf_model(model, None, "mine")
    hook = "blocks.1.mlp.hook_router_logits"
    close(found.logits({"input_ids": ids()}), plain)
    assert torch.equal(found.logits({"input_ids": ids()}, hook, lambda x: x), found.logits({"input_ids": ids()}))
    assert not torch.allclose(found.logits({"input_ids": ids()}, hook, lambda x: -x), plain)
