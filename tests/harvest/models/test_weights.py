"""Weights that a model's files do not have: an error where they are used, else ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsecode.checkpoint import bare_names
from sparsecode.cli import main
from sparsecode.errors import ModelInvalid, WeightsMissing
from sparsecode.gpt import GPT, GPTConfig, load_gpt, save_gpt
from sparsecode.harvest.models import load_model
from sparsecode.interop.gpt2 import export_gpt, export_nanogpt, import_gpt, import_nanogpt

V, D, LAYERS, CONTEXT = 31, 8, 2, 16
COMMON = {
    "vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_positions": CONTEXT}
LAST = f"blocks.{LAYERS - 1}.hook_resid_post"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def saved(folder: Path, kind: str, config: str, sizes: dict[str, Any], change: Change | None = None) -> Any:
    """A small random model of transformers in a folder, the tensors of its file changed."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()
    model.save_pretrained(folder)
    if change is not None:
        rewrite(folder, change)
    return model


def rewrite(folder: Path, change: Change) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def reconfigure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "gone"}))


def without(part: str) -> Change:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def ids() -> Tensor:
    return torch.randint(0, V, (2, 5), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: "_orig_mod." + name.replace("h.1.", "h.1._orig_mod._checkpoint_wrapped_module."),
    ],
)
@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "GPT2Model"])
def test_names_of_a_wrapped_model_are_understood(kind: str, rename: Callable[[str], str], tmp_path: Path) -> None:
    saved(tmp_path / "plain", kind, "GPT2Config", GPT2)
    saved(tmp_path / "wrapped", kind, "GPT2Config", GPT2, lambda tensors: {rename(n): t for n, t in tensors.items()})
    plain, wrapped = (load_model(str(tmp_path / name), device="cpu") for name in ("plain", "wrapped"))
    assert wrapped.fingerprint == plain.fingerprint
    assert (wrapped.missing, wrapped.unused) == ((), ())
    assert not plain.strange()
    assert wrapped.strange() == [
        "wrapped: read without what torch.compile and the like put before its weights' names; none is missing"
    ]


def test_names_are_bare_only_where_that_is_unambiguous() -> None:
    assert bare_names(["module.a", "module._orig_mod.b"]) == {"module.a": "a", "module._orig_mod.b": "b"}
    assert bare_names(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert bare_names(["_orig_mod.a", "a"]) == {"_orig_mod.a": "_orig_mod.a", "a": "a"}
    assert bare_names(["my_orig_mod.a"]) == {"my_orig_mod.a": "my_orig_mod.a"}


@pytest.mark.parametrize(
    ("kind", "config", "sizes", "part", "missing"),
    [
        ("GPT2LMHeadModel", "GPT2Config", GPT2, "h.1.mlp.c_fc.weight", "transformer.h.1.mlp.c_fc.weight is missing"),
        ("LlamaForCausalLM", "LlamaConfig", COMMON, "layers.1.self_attn", "self_attn.k_proj.weight, .*1 more"),
        ("GPTNeoXForCausalLM", "GPTNeoXConfig", COMMON, "embed_in", "gpt_neox.embed_in.weight is missing"),
        ("BertForMaskedLM", "BertConfig", COMMON, "layer.1.output", "layer.1.output.dense.weight, .* are missing"),
    ],
)  # fmt: skip
def test_a_pass_that_needs_a_missing_weight_says_which(
    kind: str, config: str, sizes: dict[str, Any], part: str, missing: str, tmp_path: Path
) -> None:
    saved(tmp_path, kind, config, sizes, without(part))
    model = load_model(str(tmp_path), device="cpu")
    with pytest.raises(WeightsMissing, match=missing) as raised:
        model.width(LAST)
    assert "\n" not in str(raised.value)
    with pytest.raises(WeightsMissing, match=missing):
        model.logits({"input_ids": ids()})
    assert load_model(str(tmp_path), device="cpu").fingerprint == model.fingerprint
    if "layer" in part:  # what comes before it is there
        assert model.width("blocks.0.hook_resid_post") == D


def test_names_that_fit_nothing_are_told(tmp_path: Path) -> None:
    saved(tmp_path, "GPT2LMHeadModel", "GPT2Config", GPT2, lambda tensors: {f"net.{n}": t for n, t in tensors.items()})
    with pytest.raises(WeightsMissing, match=r"have net\.transformer\.h\.0\.attn\.c_attn\.weight instead"):
        load_model(str(tmp_path), device="cpu").width(LAST)


@pytest.mark.parametrize(
    ("kind", "config", "sizes", "head"),
    [
        ("LlamaForCausalLM", "LlamaConfig", COMMON, "lm_head"),
        ("GPT2LMHeadModel", "GPT2Config", GPT2 | {"tie_word_embeddings": False}, "lm_head"),
        ("BertForMaskedLM", "BertConfig", COMMON, "cls."),
    ],
)
def test_a_head_may_be_missing_where_nothing_needs_it(
    kind: str, config: str, sizes: dict[str, Any], head: str, tmp_path: Path
) -> None:
    theirs = saved(tmp_path, kind, config, sizes, without(head))
    model = load_model(str(tmp_path), device="cpu")
    with torch.no_grad():
        hidden = theirs(ids(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(model.read({"input_ids": ids()}, ["blocks.1.hook_resid_pre"])["blocks.1.hook_resid_pre"],
                               hidden[1])  # fmt: skip
    assert load_model(str(tmp_path), device="cpu").fingerprint == model.fingerprint
    assert model.strange() == [line for line in model.strange() if "missing in its files; nothing that is read" in line]
    with pytest.raises(WeightsMissing, match=f"{head}.* missing in its files, and what you ask for goes through"):
        model.logits({"input_ids": ids()})


def test_what_a_module_is_given_needs_none_of_its_weights(tmp_path: Path) -> None:
    saved(tmp_path, "LlamaForCausalLM", "LlamaConfig", COMMON, without("lm_head"))
    model = load_model(str(tmp_path), device="cpu")
    assert model.width("lm_head@input") == D
    with pytest.raises(WeightsMissing):
        model.width("lm_head")


def test_tied_weights_are_there_under_either_name(tmp_path: Path) -> None:
    sizes = COMMON | {"tie_word_embeddings": True}
    for folder, name in (("one", "model.embed_tokens.weight"), ("other", "lm_head.weight")):
        saved(tmp_path / folder, "LlamaForCausalLM", "LlamaConfig", sizes,
              lambda tensors, name=name: {(name if "embed" in n else n): t for n, t in tensors.items()})  # type: ignore[misc] # fmt: skip
    one, other = (load_model(str(tmp_path / name), device="cpu") for name in ("one", "other"))
    assert one.missing == other.missing == ()
    assert torch.equal(one.logits({"input_ids": ids()}), other.logits({"input_ids": ids()}))


def test_another_head_and_a_missing_pooler_are_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, "BertForSequenceClassification", "BertConfig", COMMON, without("pooler"))
    model = load_model(str(tmp_path), device="cpu")
    assert (model.kind, model.width(LAST)) == ("none", D)
    assert load_model(str(tmp_path), device="cpu").fingerprint == model.fingerprint
    with pytest.raises(WeightsMissing, match="pooler"):
        model.width("pooler")


def test_an_encoder_by_itself_is_read_without_its_decoder(tmp_path: Path) -> None:
    sizes = {"vocab_size": V, "d_model": D, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2}
    saved(tmp_path, "T5EncoderModel", "T5Config", sizes)
    assert load_model(str(tmp_path), device="cpu").width("encoder.block.1") == D


def test_weights_that_the_configuration_leaves_out_are_told(tmp_path: Path) -> None:
    saved(tmp_path / "biased", "LlamaForCausalLM", "LlamaConfig", COMMON | {"attention_bias": True})
    reconfigure(tmp_path / "biased", attention_bias=False)
    (line,) = load_model(str(tmp_path / "biased"), device="cpu").strange()
    assert "model.layers.0.self_attn.k_proj.bias" in line and "left out" in line
    saved(tmp_path / "short", "GPT2LMHeadModel", "GPT2Config", GPT2)
    reconfigure(tmp_path / "short", n_layer=1)
    (line,) = load_model(str(tmp_path / "short"), device="cpu").strange()
    assert "transformer.h.1." in line


def test_a_harvest_refuses_before_it_reads_text(tmp_path: Path) -> None:
    saved(tmp_path / "model", "GPT2LMHeadModel", "GPT2Config", GPT2, without("h.1.mlp"))
    (tmp_path / "text.txt").write_text("words")
    command = ["harvest", "--run", str(tmp_path / "run"), "--model", str(tmp_path / "model"), "--layer", "1",
               "--text", str(tmp_path / "text.txt"), "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (3, 1)
    assert "transformer.h.1.mlp.c_fc.bias" in result.stderr
    assert not (tmp_path / "run/tokens").exists()


# The project's own GPT, and what becomes one


def own(folder: Path, change: Change | None = None) -> GPT:
    sizes = {"vocab_size": V, "n_layer": LAYERS, "n_head": 2, "d_model": D, "d_mlp": 4 * D, "context": CONTEXT}
    model = GPT(GPTConfig(**sizes), seed=3)
    save_gpt(model, folder)
    if change is not None:
        rewrite(folder, change)
    return model


def test_the_own_gpt_names_what_is_missing_and_understands_wrapped_names(tmp_path: Path) -> None:
    model = own(tmp_path / "wrapped", lambda tensors: {f"_orig_mod.{name}": t for name, t in tensors.items()})
    assert torch.equal(load_gpt(tmp_path / "wrapped").wte.weight, model.wte.weight)
    own(tmp_path / "short", without("blocks.1.mlp"))
    with pytest.raises(
        WeightsMissing, match=r"blocks\.1\.mlp\.c_fc\.weight, blocks\.1\.mlp\.c_proj\.weight are missing"
    ):
        load_gpt(tmp_path / "short")
    own(tmp_path / "more", lambda tensors: tensors | {"extra": tensors["ln_f.weight"].clone()})
    with pytest.raises(ModelInvalid, match=r"do not fit .*first extra"):
        load_gpt(tmp_path / "more")


def as_nanogpt(folder: Path, change: Change) -> None:
    """The folder's GPT as a checkpoint of nanoGPT."""
    tensors = load_file(folder / "model.safetensors")
    named = {"transformer." + name.replace("blocks.", "h."): tensor for name, tensor in tensors.items()}
    (folder / "model.safetensors").unlink()
    save_file(change(named), folder / "ckpt.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_args": {"n_layer": LAYERS, "n_head": 2, "n_embd": D}}))


@pytest.mark.parametrize("read", [import_nanogpt, export_nanogpt])
def test_a_nanogpt_checkpoint_has_all_its_weights_or_is_refused(read: Callable[..., Any], tmp_path: Path) -> None:
    own(tmp_path / "short")
    as_nanogpt(tmp_path / "short", without("h.1.attn"))
    with pytest.raises(WeightsMissing, match=r"h\.1\.attn\.c_attn\.weight, .*are missing"):
        read(tmp_path / "short", tmp_path / "out")
    own(tmp_path / "bias")
    as_nanogpt(tmp_path / "bias", lambda tensors: tensors | {"transformer.h.0.mlp.c_fc.bias": torch.zeros(4 * D)})
    with pytest.raises(WeightsMissing, match="though other biases are there"):
        read(tmp_path / "bias", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gpt2_folder_has_all_its_weights_or_is_refused(tmp_path: Path) -> None:
    own(tmp_path / "own")
    for folder, change, error in (
        ("short", without("h.1.mlp.c_fc.weight"), r"h\.1\.mlp\.c_fc\.weight is missing"),
        ("bias", without("h.1.mlp.c_fc.bias"), "though other biases are there"),
        ("head", lambda tensors: tensors | {"lm_head.weight": torch.ones(V, D)}, "lm_head.weight is not"),
    ):
        export_gpt(tmp_path / "own", tmp_path / folder)
        rewrite(tmp_path / folder, change)
        with pytest.raises(ModelInvalid, match=error):
            import_gpt(tmp_path / folder, tmp_path / "back")
    export_gpt(tmp_path / "own", tmp_path / "compiled")
    rewrite(tmp_path / "compiled", lambda tensors: {f"_orig_mod.{name}": t for name, t in tensors.items()})
    import_gpt(tmp_path / "compiled", tmp_path / "back")
    assert load_gpt(tmp_path / "back").state_dict().keys() == load_gpt(tmp_path / "own").state_dict().keys()
