"""Vision-language models: hook points of their language model, text in, and its head at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from sparsecode.cli import main
from sparsecode.errors import HookUnknown, ModelInvalid
from sparsecode.harvest.models import load_model
from sparsecode.harvest.models.loading import hf_model
from sparsecode.pipeline.advice import advised

transformers = pytest.importorskip("transformers")

B, T, V, W, LAYERS = 2, 6, 90, 16, 2
TEXT = {
    "vocab_size": V, "hidden_size": W, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "num_key_value_heads": 1,
}  # fmt: skip
VISION = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
QWEN_TEXT = TEXT | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
QWEN = {"image_token_id": 80, "video_token_id": 81, "vision_start_token_id": 82, "vision_end_token_id": 83}
# name -> (name of the classes, settings, path of the language model)
WRAPPERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma3": (
        "Gemma3",
        {
            "text_config": TEXT | {"head_dim": 10},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": 80,
        },
        "model.language_model",
    ),
    "llava": (
        "Llava",
        {
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": VISION | {"model_type": "clip_vision_model"},
            "image_token_index": 80,
        },
        "model.language_model",
    ),
    "mistral3": (
        "Mistral3",
        {
            "text_config": TEXT | {"model_type": "mistral", "head_dim": 8},
            "vision_config": VISION | {"model_type": "pixtral", "head_dim": 4},
            "image_token_index": 80,
        },
        "model.language_model",
    ),
    "qwen2_vl": (
        "Qwen2VL",
        {
            "text_config": QWEN_TEXT | {"model_type": "qwen2_vl_text"},
            "vision_config": {"depth": 1, "embed_dim": 8, "hidden_size": W, "num_heads": 2, "patch_size": 4},
            **QWEN,
        },
        "model.language_model",
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        {
            "text_config": QWEN_TEXT | {"model_type": "qwen2_5_vl_text"},
            "vision_config": {
                "depth": 1,
                "hidden_size": 8,
                "intermediate_size": 12,
                "out_hidden_size": W,
                "num_heads": 2,
                "patch_size": 4,
                "fullatt_block_indexes": [0],
            },
            **QWEN,
        },
        "model.language_model",
    ),
    "idefics3": (
        "Idefics3",
        {
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": VISION,
            "image_token_id": 80,
            "scale_factor": 2,
        },
        "model.text_model",
    ),
    "llama4": (
        "Llama4",
        {
            "text_config": TEXT
            | {"head_dim": 8, "intermediate_size_mlp": 20, "num_local_experts": 2, "interleave_moe_layer_step": 2},
            "vision_config": VISION | {"vision_output_dim": 12, "projector_input_dim": 12, "projector_output_dim": 12},
        },
        "language_model.model",
    ),
}


def make(name: str) -> Any:
    """A small vision-language model, its parameters far from their tiny initial values."""
    kind, settings, _ = WRAPPERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids() -> Tensor:
    return torch.randint(2, 70, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", WRAPPERS)
@torch.no_grad()
def test_the_language_model_inside_is_read_and_its_head_asked(name: str, tmp_path: Path) -> None:
    model, path = make(name), WRAPPERS[name][2]
    model.save_pretrained(tmp_path)
    found = load_model(str(tmp_path), device="cpu")
    assert (found.kind, found.context, found.vocab_size) == ("causal", 32, V)
    alone = model.get_submodule(path)
    values = found.read({"input_ids": ids()}, found.taps)
    told = alone(input_ids=ids(), output_hidden_states=True)
    for layer in range(LAYERS):
        close(values[f"blocks.{layer}.hook_resid_pre"], told.hidden_states[layer])
        if layer:
            close(values[f"blocks.{layer - 1}.hook_resid_post"], told.hidden_states[layer])
        q = alone.layers[layer].self_attn.q_proj(alone.layers[layer].input_layernorm(told.hidden_states[layer]))
        close(values[f"blocks.{layer}.attn.hook_q"], q)
    close(values["hook_embed"], told.hidden_states[0])
    # Logits: the language model's last state through the head of the whole.
    clean = found.logits({"input_ids": ids()})
    close(clean, model.get_output_embeddings()(told.last_hidden_state))
    hook = "blocks.1.hook_resid_post"
    assert torch.equal(found.logits({"input_ids": ids()}, hook, lambda value: value), clean)
    goal = torch.randn(B, T, W, generator=torch.Generator().manual_seed(3))
    close(found.logits({"input_ids": ids()}, hook, lambda _: goal), model.get_output_embeddings()(alone.norm(goal)))
    # Padding on either side, by the mask alone.
    padding = torch.full((B, 3), 1)
    for order in ([padding, ids()], [ids(), padding]):
        mask = torch.cat([torch.full_like(part, part is not padding) for part in order], dim=1)
        padded = found.read({"input_ids": torch.cat(order, dim=1), "attention_mask": mask}, [hook])[hook]
        close(padded[mask.bool()].view(B, T, W), values[hook])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(f"a picture of {n} cats says the cat number {n * n}" for n in range(300)))
    return file


def tokenizer_into(folder: Path, texts: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=70, special_tokens=["<eos>", "<pad>"], show_progress=False)
    tokenizer.train_from_iterator([texts.read_text()], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.save_pretrained(folder)


def test_harvest_train_and_eval_by_the_command_line(texts: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "small-gemma", str(tmp_path / "run")
    make("gemma3").save_pretrained(folder)
    tokenizer_into(folder, texts)
    commands = [
        ["harvest", "--run", run, "--model", str(folder), "--text", str(texts), "--layer", "1", "--site", "resid",
         "--context", "16", "--rows", "512", "--device", "cpu"],
        ["train-dicts", "--run", run, "--hook", "blocks.1.hook_resid_post", "--sizes", "8", "--l1", "0.1", "--samples",
         "512"],
        ["eval", "--run", run, "--model", str(folder), "--rows", "64", "--json", "--device", "cpu"],
    ]  # fmt: skip
    for command in commands:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["dictionaries"][0]
    assert told["hook_point"] == "blocks.1.hook_resid_post"
    assert told["loss_clean"] > 0
    assert told["loss_recovered"] is not None


def test_a_language_model_that_nobody_listed_names_module(tmp_path: Path) -> None:
    text = {"model_type": "xglm", "vocab_size": V, "d_model": W, "num_layers": 1, "attention_heads": 2, "ffn_dim": 24}
    config = transformers.LlavaConfig(
        text_config=text, vision_config=VISION | {"model_type": "clip_vision_model"}, image_token_index=80
    )
    found = hf_model(transformers.LlavaForConditionalGeneration(config).eval(), None, "mine")
    for hook in ("blocks.0.hook_resid_post", "hook_embed"):
        with pytest.raises(HookUnknown, match=r"mine: its family, llava.* its language model xglm, has no .*--module"):
            advised(found.tap)(hook)
    values = found.read({"input_ids": ids()}, ["model.language_model.layers.0"])
    assert values["model.language_model.layers.0"].shape == (B, T, W)


def renamed(model: Any) -> None:
    block = model.model.layers[1]
    block.self_attention = block.self_attn
    del block.self_attn


def without_blocks(model: Any) -> None:
    model.model.stack = model.model.layers
    del model.model.layers


def without_settings(model: Any) -> None:
    model.config.num_attention_heads = 0
    model.config.head_dim = None


@pytest.mark.parametrize("change", [renamed, without_blocks, without_settings])
def test_modules_that_are_not_those_of_the_family_say_so_in_one_line(change: Callable[[nn.Module], None]) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).eval()
    change(model)
    found = hf_model(model, None, "mine")
    with pytest.raises(
        ModelInvalid, match=r"^mine: LlamaForCausalLM: its modules in transformers \d.*--module$"
    ) as caught:
        advised(found.tap)("blocks.0.hook_resid_post")
    assert "\n" not in str(caught.value)
    found.tap("lm_head@input")  # modules are still there by their paths


def test_a_forward_pass_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).eval()
    found = hf_model(model, None, "mine")

    def broken(*_: Any, **__: Any) -> None:
        raise AttributeError("no image_outputs")

    model.lm_head.forward = broken
    with pytest.raises(ModelInvalid, match=r"mine \(llama.*\): its forward pass .* fails \(no image_outputs\)"):
        found.logits({"input_ids": ids()})
    assert found.width("blocks.1.hook_resid_post") == W


def test_a_wrapper_saved_without_its_head_is_read_but_not_evaluated(tmp_path: Path) -> None:
    make("llava").model.save_pretrained(tmp_path)
    found = load_model(str(tmp_path), device="cpu")
    assert found.kind == "none"
    assert found.width("blocks.1.mlp.hook_post") == 24
