"""Hook names of other libraries: where they are in the model that is evaluated, or what to say instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from sparsecode.cli import main
from sparsecode.errors import DictionaryInvalid, HookUnknown
from sparsecode.evaluation.hooks import find_hook
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.models import LanguageModel, own_model
from sparsecode.harvest.models.loading import hf_model
from sparsecode.interop import load_dictionary, save_dictionary
from sparsecode.pipeline.advice import told
from sparsecode.pipeline.eval import evaluate_run
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.sweep import Dictionary

transformers = pytest.importorskip("transformers")
D, V = 8, 300


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return hf_model(transformers.LlamaForCausalLM(config), None, "llama")


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    config = transformers.GPT2Config(vocab_size=V, n_embd=D, n_layer=3, n_head=2, n_positions=32)
    return hf_model(transformers.GPT2LMHeadModel(config), None, "gpt2")


def values(model: LanguageModel, hook: str) -> Tensor:
    return model.read({"input_ids": torch.arange(12).reshape(2, 6)}, [hook])[hook]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("blocks.1.hook_resid_post", "blocks.1.hook_resid_post"),  # SAELens
        ("layers.1.mlp", "model.layers.1.mlp"),  # sparsify, of the model without its head
        ("layers.1", "model.layers.1"),
        ("embed_tokens", "model.embed_tokens"),
        ("model.layers.2.output", "model.layers.2@output"),  # Gemma Scope 2
        ("model.layers.2.self_attn.o_proj.input", "model.layers.2.self_attn.o_proj@input"),
        ("layers.2.mlp.down_proj@input", "model.layers.2.mlp.down_proj@input"),
        ("model.language_model.layers.2", "model.layers.2"),  # of the whole of what this is the language part of
        ("blocks.1.hook_out", "blocks.1.hook_resid_post"),  # TransformerLens 3
        ("blocks.1.hook_in", "blocks.1.hook_resid_pre"),
        ("blocks.1.attn.hook_out", "blocks.1.hook_attn_out"),
        ("blocks.1.mlp.hook_out", "blocks.1.hook_mlp_out"),
        ("resid_post_layer_2", "blocks.2.hook_resid_post"),  # dictionary_learning
        ("mlp_out_layer_0", "blocks.0.hook_mlp_out"),
        ("attention_out_layer_1", "blocks.1.hook_attn_out"),
        ("resid_pre_1", "blocks.1.hook_resid_pre"),
        ("layer_2.resid_post", "blocks.2.hook_resid_post"),
    ],
)
def test_a_name_is_found_where_its_library_means(llama: LanguageModel, name: str, meant: str) -> None:
    found = find_hook(llama, name)
    assert found == meant
    assert values(llama, found).shape == (2, 6, 12 if name.startswith("layers.2.mlp") else D)


def test_the_values_are_those_of_the_place(llama: LanguageModel, gpt2: LanguageModel) -> None:
    for model, name, hook in (
        (llama, "layers.1.mlp", "blocks.1.hook_mlp_out"),
        (llama, "layers.1", "blocks.1.hook_resid_post"),
        (llama, "model.layers.1.self_attn.o_proj.input", "blocks.1.attn.hook_z"),
        (gpt2, "h.1", "blocks.1.hook_resid_post"),
        (gpt2, "h.1.mlp", "blocks.1.hook_mlp_out"),
    ):
        assert torch.equal(values(model, find_hook(model, name)), values(model, hook)), name


def test_a_model_without_its_head_is_named_by_longer_names_too() -> None:
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    bare = hf_model(transformers.LlamaModel(config), None, "bare", "none")
    assert find_hook(bare, "model.layers.1.mlp") == "layers.1.mlp"
    own = own_model(
        GPT(GPTConfig(vocab_size=V, n_layer=2, n_head=2, d_model=D, d_mlp=16, context=8), seed=0), device="cpu"
    )
    assert find_hook(own, "resid_post_layer_1") == "blocks.1.hook_resid_post"


class Towers(nn.Module):
    """The modules of a vision-language model."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            part = nn.Module()
            part.layers = nn.ModuleList([nn.Linear(D, D) for _ in range(2)])
            self.add_module(name, part)


@pytest.mark.parametrize(
    ("names", "found"),
    [(("vision_tower", "language_model"), "language_model.layers.1"), (("encoder", "decoder"), None)],
)
def test_of_several_parts_the_one_that_reads_text_is_meant_or_it_is_asked(
    names: tuple[str, ...], found: str | None
) -> None:
    model = LanguageModel(Towers(*names), "towers", "none", {}, "towers", "", 8, V)
    if found is not None:
        assert find_hook(model, "layers.1") == found
        return
    with pytest.raises(HookUnknown, match=r"'layers\.1' may be any of encoder\.layers\.1, decoder\.layers\.1$"):
        find_hook(model, "layers.1")


@pytest.mark.parametrize(
    "name",
    ["layers.7.mlp", "blocks.9.hook_resid_post", "blocks.1.ln3.hook_x", "my favourite place", "resid_post_layer_9", "",
     ".", "@input", "layers"],
)  # fmt: skip
def test_what_is_not_there_is_said_with_the_option_that_helps(llama: LanguageModel, name: str) -> None:
    try:
        found = find_hook(llama, name)
    except HookUnknown as error:
        assert "--hook" in told(error)
        assert "--module" not in told(error)
    else:
        assert found in ("", "@input", "model.layers"), "the model itself, or a list of layers"


def test_the_template_of_early_saelens_gets_its_layer(tmp_path: Path) -> None:
    atoms = torch.nn.functional.normalize(torch.randn(16, D, generator=torch.Generator().manual_seed(0)))
    save_dictionary(Dictionary(atoms, torch.zeros(16), atoms), tmp_path, "saelens")
    modern = json.loads((tmp_path / "cfg.json").read_text())
    old = {"d_in": D, "d_sae": 16, "hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_layer": 2}
    modern["metadata"] = {"hook_name": "blocks.{layer}.hook_resid_pre", "hook_layer": 2}
    for config in (old, modern):
        (tmp_path / "cfg.json").write_text(json.dumps(config))
        assert load_dictionary(tmp_path).meta["hook_point"] == "blocks.2.hook_resid_pre"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "text.txt").write_text(" ".join(f"number {n} and {n * n}" for n in range(400)))
    train_gpt(
        folder / "run", text=(str(folder / "text.txt"),), vocab_size=V, n_layer=2, n_head=2, d_model=D, context=16,
        batch_size=2, steps=2, val_tokens=64, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    return folder / "run"


def made(**more: Any) -> Dictionary:
    atoms = torch.nn.functional.normalize(torch.randn(16, more.pop("d", D), generator=torch.Generator().manual_seed(0)))
    return Dictionary(atoms, torch.zeros(16), atoms, **more)


def test_eval_finds_the_place_and_does_the_rest_where_one_is_bad(run: Path, tmp_path: Path) -> None:
    good = {"resid_post_layer_1": made(), "blocks.1.hook_out": made(), "blocks.1.hook_resid_post": made()}
    for number, (hook, dictionary) in enumerate(good.items()):
        dictionary.meta = {"hook_point": hook, "source": {}}
        save_dictionary(dictionary, tmp_path / f"many/good{number}", "saelens")
    bad = {
        "nowhere": made(meta={"hook_point": "blocks.9.hook_resid_post", "source": {}}),
        "silent": made(meta={"source": {}, "layer": 1}),
        "transcoder": made(meta={"hook_point": "blocks.1.hook_resid_mid", "source": {}}, transcoder=True),
        "wide": made(d=5, meta={"hook_point": "blocks.1.hook_resid_post", "source": {}}),
    }
    for name, dictionary in bad.items():
        save_dictionary(dictionary, tmp_path / f"many/{name}", "saelens")
    save_dictionary(made(), tmp_path / "many/short", "saelens")
    (tmp_path / "many/short/sae_weights.safetensors").write_bytes(b"\x08")
    command = ["eval", str(tmp_path / "many"), "--run", str(run), "--rows", "64", "--device", "cpu", "-q"]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 3, result.output
    shown = json.loads(result.stdout)
    assert len(shown["dictionaries"]) == 3
    assert {one["hook_point"] for one in shown["dictionaries"]} == {"blocks.1.hook_resid_post"}
    assert len({one["loss_spliced"] for one in shown["dictionaries"]}) == 1
    reasons = {Path(one["name"]).name: one["reason"] for one in shown["left_out"]}
    assert reasons.keys() == bad.keys() | {"short"}
    assert "--hook" in reasons["nowhere"]
    assert "add --hook" in reasons["silent"]
    assert "is a transcoder" in reasons["transcoder"]
    assert "made for 5 dimensions" in reasons["wide"]
    assert "5 of 8 dictionaries left out" in result.stderr
    alone = CliRunner().invoke(main, [command[0], str(tmp_path / "many/nowhere"), *command[2:]])
    assert (alone.exit_code, alone.stderr.count("\n")) == (3, 1)


def test_from_python_the_first_failure_is_raised_unless_it_is_wanted(run: Path) -> None:
    both = {"good": made(), "bad": made(d=5)}
    with pytest.raises(DictionaryInvalid, match="bad: made for 5"):
        evaluate_run(run, both, hook="blocks.1.hook_resid_post", rows=32, quiet=True, device="cpu")
    told: list[str] = []
    found = evaluate_run(
        run, both, hook="blocks.1.hook_resid_post", rows=32, quiet=True, device="cpu",
        leave_out=lambda name, error: told.append(name),
    )  # fmt: skip
    assert ([one.name for one in found], told) == (["good"], ["bad"])
