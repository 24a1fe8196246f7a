"""Hook points of every family, against an independent look at the same model: forward hooks set here by hand, and
`output_hidden_states`. Small random models, made from their configurations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsecode.errors import HookUnknown, InvalidArgument
from sparsecode.harvest import harvest_module
from sparsecode.harvest.models.loading import hf_model
from sparsecode.pipeline.advice import advised

transformers = pytest.importorskip("transformers")

B, T, V, WIDTH, MLP, LAYERS = 3, 7, 61, 16, 24, 2
COMMON = {
    "vocab_size": V, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": MLP, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 1, "head_dim": 10}  # heads that are not WIDTH wide together
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("GPT2Config", {"vocab_size": V, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_inner": MLP,
                            "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}, "causal"),
    "gpt_neox": ("GPTNeoXConfig", COMMON, "causal"),
    "gpt_neox, one after the other": ("GPTNeoXConfig", COMMON | {"use_parallel_residual": False}, "causal"),
    "llama": ("LlamaConfig", COMMON, "causal"),
    "mistral": ("MistralConfig", GROUPED, "causal"),
    "qwen2": ("Qwen2Config", COMMON | {"num_key_value_heads": 1}, "causal"),
    "qwen3": ("Qwen3Config", GROUPED, "causal"),
    "gemma": ("GemmaConfig", GROUPED, "causal"),
    "gemma2": ("Gemma2Config", GROUPED, "causal"),
    "gemma3": ("Gemma3TextConfig", GROUPED, "causal"),
    "bert": ("BertConfig", COMMON, "masked"),
    "roberta": ("RobertaConfig", COMMON | {"pad_token_id": 1}, "masked"),
    "electra": ("ElectraConfig", COMMON | {"embedding_size": WIDTH}, "masked"),
    "distilbert": ("DistilBertConfig", {"vocab_size": V, "dim": WIDTH, "n_layers": LAYERS, "n_heads": 2,
                                        "hidden_dim": MLP, "max_position_embeddings": 32}, "masked"),
}  # fmt: skip


def make(name: str) -> Any:
    """A transformers model of a family, its parameters far from their tiny initial values."""
    config_class, settings, kind = MODELS[name]
    config = getattr(transformers, config_class)(**settings)
    auto = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}[kind]
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids() -> Tensor:
    return torch.randint(2, V, (B, T), generator=torch.Generator().manual_seed(1))


@contextmanager
def spied(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Inputs and outputs of every module in a forward pass, by its path."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for path, module in model.named_modules():

        def note(_: nn.Module, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
            given = args[0] if args else kwargs.get("hidden_states")
            gave = output[0] if isinstance(output, tuple) else output
            if isinstance(given, Tensor) and isinstance(gave, Tensor):
                seen[path] = given.clone(), gave.clone()

        handles.append(module.register_forward_hook(note, with_kwargs=True))
    with torch.no_grad():
        yield seen
    for handle in handles:
        handle.remove()


def linear(module: Any, x: Tensor) -> Tensor:
    """A matrix with its bias, GPT-2's transposed ones included."""
    weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
    return torch.nn.functional.linear(x, weight, module.bias)


@pytest.mark.parametrize("name", MODELS)
def test_hook_points_are_what_their_names_say(name: str) -> None:
    model = make(name)
    found = hf_model(model, None, name, MODELS[name][2])  # type: ignore[arg-type]
    values = found.read({"input_ids": ids()}, found.taps)
    with spied(model) as seen:
        hidden = model(ids(), output_hidden_states=True).hidden_states
    assert len(hidden) == LAYERS + 1
    assert {value.shape[:2] for value in values.values()} == {(B, T)}
    normalises_after = MODELS[name][2] == "masked"
    blocks = {path: pair for path, pair in seen.items() if path.endswith((".0", ".1")) and path.count(".") <= 3}
    for layer in range(LAYERS):
        own = {hook.split(".", 2)[2]: value for hook, value in values.items() if hook.startswith(f"blocks.{layer}.")}
        (path,) = (path for path in blocks if path.endswith(f".{layer}"))
        block: Any = model.get_submodule(path)
        close(own["hook_resid_pre"], hidden[layer])
        after = own["hook_normalized_resid_post"] if normalises_after else own["hook_resid_post"]
        if layer < LAYERS - 1:  # the last hidden state of some is normalised once more
            close(after, hidden[layer + 1])
        close(after, blocks[path][1])
        # Sums of the residual stream, from the parts.
        parallel = name == "gpt_neox"
        assert ("hook_resid_mid" in own) == (not parallel)
        if parallel:
            close(own["hook_resid_post"], own["hook_resid_pre"] + own["hook_attn_out"] + own["hook_mlp_out"])
        else:
            close(own["hook_resid_mid"], own["hook_resid_pre"] + own["hook_attn_out"])
            start = own["hook_normalized_resid_mid"] if normalises_after else own["hook_resid_mid"]
            close(own["hook_resid_post"], start + own["hook_mlp_out"])
        check_parts(name, block, own)


def check_parts(name: str, block: Any, own: dict[str, Tensor]) -> None:
    """Checks hidden layer and heads, recomputed from the module's own weights."""
    if "gate_proj" in dict(block.named_modules()).get("mlp", nn.Module())._modules:
        given = block.mlp.act_fn(own["mlp.hook_pre"])
        normalised = getattr(block, "pre_feedforward_layernorm", block.post_attention_layernorm)(own["hook_resid_mid"])
        close(own["mlp.hook_pre"], linear(block.mlp.gate_proj, normalised))
        close(own["mlp.hook_post"], given * linear(block.mlp.up_proj, normalised))
        out = linear(block.mlp.down_proj, own["mlp.hook_post"])
        z = linear(block.self_attn.o_proj, own["attn.hook_z"])
        if hasattr(block, "pre_feedforward_layernorm"):
            out, z = block.post_feedforward_layernorm(out), block.post_attention_layernorm(z)
    elif name == "gpt2":
        close(own["mlp.hook_pre"], linear(block.mlp.c_fc, block.ln_2(own["hook_resid_mid"])))
        close(own["mlp.hook_post"], block.mlp.act(own["mlp.hook_pre"]))
        out, z = linear(block.mlp.c_proj, own["mlp.hook_post"]), linear(block.attn.c_proj, own["attn.hook_z"])
    elif name.startswith("gpt_neox"):
        read = own["hook_resid_pre"] if name == "gpt_neox" else own["hook_resid_mid"]
        close(own["mlp.hook_pre"], linear(block.mlp.dense_h_to_4h, block.post_attention_layernorm(read)))
        close(own["mlp.hook_post"], block.mlp.act(own["mlp.hook_pre"]))
        out = linear(block.mlp.dense_4h_to_h, own["mlp.hook_post"])
        z = linear(block.attention.dense, own["attn.hook_z"])
    elif name == "distilbert":
        close(own["hook_normalized_resid_mid"], block.sa_layer_norm(own["hook_resid_mid"]))
        close(own["mlp.hook_pre"], linear(block.ffn.lin1, own["hook_normalized_resid_mid"]))
        close(own["mlp.hook_post"], block.ffn.activation(own["mlp.hook_pre"]))
        out, z = linear(block.ffn.lin2, own["mlp.hook_post"]), linear(block.attention.out_lin, own["attn.hook_z"])
    else:
        close(own["hook_normalized_resid_mid"], block.attention.output.LayerNorm(own["hook_resid_mid"]))
        close(own["mlp.hook_pre"], linear(block.intermediate.dense, own["hook_normalized_resid_mid"]))
        close(own["mlp.hook_post"], block.intermediate.intermediate_act_fn(own["mlp.hook_pre"]))
        out, z = (
            linear(block.output.dense, own["mlp.hook_post"]),
            linear(block.attention.output.dense, own["attn.hook_z"]),
        )
        close(own["hook_normalized_resid_post"], block.output.LayerNorm(own["hook_resid_post"]))
    close(own["hook_mlp_out"], out)
    close(own["hook_attn_out"], z)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox, one after the other", "gemma2", "bert"])
def test_a_changed_value_reaches_everything_after_it(name: str) -> None:
    """Putting zeros at resid_post of block 0 is the same as block 1 being given the model's answer to zeros there."""
    model = make(name)
    found = hf_model(model, None, name, MODELS[name][2])  # type: ignore[arg-type]
    clean = found.logits({"input_ids": ids()})
    for hook in found.taps:
        same = found.logits({"input_ids": ids()}, hook, lambda value: value)
        assert torch.equal(same, clean), hook
        other = found.logits({"input_ids": ids()}, hook, lambda value: value + 1)
        assert not torch.allclose(other, clean), hook
    # The residual stream replaced in the middle: after it, the model gives what it gives for that stream.
    goal = torch.randn(B, T, WIDTH, generator=torch.Generator().manual_seed(3))
    hook = "blocks.1.hook_resid_mid"
    seen = found.logits({"input_ids": ids()}, hook, lambda _: goal)
    through = found.logits({"input_ids": ids() * 0 + 5}, hook, lambda _: goal)  # other tokens, the same stream
    torch.testing.assert_close(seen, through, rtol=1e-4, atol=1e-4)


def test_a_pass_stops_after_the_last_place_it_needs() -> None:
    model = make("llama")
    found = hf_model(model, None, "llama")
    calls: list[str] = []
    for path in ("model.layers.0", "model.layers.1", "lm_head"):
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: calls.append(path))
    found.read({"input_ids": ids()}, ["blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"])
    assert calls == ["model.layers.0"]
    calls.clear()
    found.read({"input_ids": ids()}, ["blocks.1.hook_resid_pre"])
    assert calls == ["model.layers.0"]
    found.logits({"input_ids": ids()})
    assert calls[1:] == ["model.layers.0", "model.layers.1", "lm_head"]  # no hook was left behind


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "bert", "roberta"])
def test_any_module_follows_the_mask(name: str, tmp_path: Path) -> None:
    """Rows of batches padded on the left are those of each text by itself."""
    model = make(name)
    path = "base_model." + {"gpt2": "h.1", "gpt_neox": "layers.1"}.get(name, "encoder.layer.1")
    path = path.replace("base_model", model.base_model_prefix)
    texts = [ids()[row, : 3 + 2 * row] for row in range(B)]
    given = torch.full((B, T), 1)  # RoBERTa's padding token, by which it numbers its positions
    mask = torch.zeros(B, T, dtype=torch.int64)
    for row, text in enumerate(texts):
        given[row, T - len(text) :] = text
        mask[row, T - len(text) :] = 1
    (found,) = harvest_module(
        model, [{"input_ids": given, "attention_mask": mask}], {path: tmp_path / "padded"}, dtype="float32"
    ).values()
    batches = [{"input_ids": text[None]} for text in texts]
    (alone,) = harvest_module(model, batches, {path: tmp_path / "alone"}, dtype="float32").values()
    assert found.tokens(0, found.rows).tolist() == alone.tokens(0, alone.rows).tolist()
    close(found.read(0, found.rows), alone.read(0, alone.rows))


class Counting(nn.Module):
    """Learned positions, always counted from the start of a row; none can be passed in."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.out = nn.Embedding(V, WIDTH), nn.Embedding(T, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        found: Tensor = self.out(self.words(input_ids) + self.places.weight[: input_ids.shape[1]])
        return found


def test_any_module_whose_positions_cannot_follow_the_mask_says_so(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    batch = {"input_ids": ids()[:2, :5], "attention_mask": mask}
    with pytest.raises(InvalidArgument, match=r"Counting: padded on the left .*; pad on the right"):
        harvest_module(Counting(), [batch], {"out": tmp_path / "left"})
    right = {"input_ids": ids()[:2, :5], "attention_mask": mask.flip(1)}
    assert harvest_module(Counting(), [right], {"out": tmp_path / "right"})["out"].rows == 8


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "roberta"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_value(name: str, side: str) -> None:
    model = make(name)
    found = hf_model(model, None, name, MODELS[name][2])  # type: ignore[arg-type]
    alone = found.read({"input_ids": ids()}, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    padding = torch.full((B, 4), 1)
    order = [padding, ids()] if side == "left" else [ids(), padding]
    mask = torch.cat([part * 0 + (part is not padding) for part in order], dim=1)
    padded = found.read({"input_ids": torch.cat(order, dim=1), "attention_mask": mask}, ["blocks.1.hook_resid_post"])
    within = slice(4, None) if side == "left" else slice(0, T)
    torch.testing.assert_close(padded["blocks.1.hook_resid_post"][:, within], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_read_as_they_are(dtype: torch.dtype) -> None:
    model = make("llama")
    exact = hf_model(model, None, "llama").read({"input_ids": ids()}, ["blocks.1.mlp.hook_post"])
    half = hf_model(model.to(dtype), None, "llama").read({"input_ids": ids()}, ["blocks.1.mlp.hook_post"])
    (value,), (other,) = half.values(), exact.values()
    assert value.dtype == dtype
    torch.testing.assert_close(value.float(), other, rtol=0.1, atol=0.1)


def test_modules_by_path_of_a_family_nobody_listed() -> None:
    config = transformers.XGLMConfig(vocab_size=V, d_model=WIDTH, num_layers=2, attention_heads=2, ffn_dim=MLP,
                                     max_position_embeddings=32, activation_function="relu")  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    found = hf_model(model, None, "mine")
    with pytest.raises(
        HookUnknown, match=r"mine: its family, xglm, XGLMForCausalLM, has no .*model\.layers\.0.*--module"
    ):
        advised(found.tap)("blocks.0.mlp.hook_post")
    values = found.read({"input_ids": ids()}, ["model.layers.1.fc1", "model.layers.1.fc2@input"])
    torch.testing.assert_close(values["model.layers.1.fc1"].relu(), values["model.layers.1.fc2@input"])
    with pytest.raises(HookUnknown, match=r"no module 'model\.lyers'; there are .*model\.layers\.0"):
        found.tap("model.lyers")


def test_an_unknown_hook_point_names_those_there_are() -> None:
    found = hf_model(make("gpt_neox"), None, "pythia")
    with pytest.raises(
        HookUnknown,
        match=r"no hook point 'blocks\.2\.hook_resid_post'; there are blocks\.L\.X with L 0 to 1.*; hook_embed,",
    ):
        found.tap("blocks.2.hook_resid_post")
