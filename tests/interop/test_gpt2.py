"""The project's GPT as a GPT-2 folder and back, and nanoGPT's checkpoints: the same logits, the same rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsecode.errors import ModelInvalid
from sparsecode.gpt import GPT, GPTConfig, load_gpt, save_gpt
from sparsecode.interop.gpt2 import export_gpt, export_nanogpt, import_gpt, import_nanogpt
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import Dataset

CONTEXT, V, D, MLP, LAYERS, HEADS = 16, 41, 12, 20, 2, 3


def gpt(folder: Path) -> GPT:
    model = GPT(GPTConfig(vocab_size=V, n_layer=LAYERS, n_head=HEADS, d_model=D, d_mlp=MLP, context=CONTEXT), seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5).add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_gpt(model, folder)
    return model.eval()


def ids() -> Tensor:
    return torch.randint(0, V, (3, CONTEXT), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: GPT) -> Tensor:
    found: Tensor = model(ids()) @ model.wte.weight.T
    return found


def test_logits_are_the_same_as_gpt2_and_back(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    own = gpt(tmp_path / "own")
    told = export_gpt(tmp_path / "own", tmp_path / "hf")
    assert told == {"parameters": sum(parameter.numel() for parameter in own.parameters()), "tokenizer": False}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        difference = (theirs(ids()).logits - logits(own)).abs().max()
    assert float(difference) < 1e-5 * max(1.0, float(logits(own).abs().max()))
    import_gpt(tmp_path / "hf", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (tmp_path / "own/model.safetensors").read_bytes()
    # Saved again by transformers, under its own choice of names and files.
    theirs.save_pretrained(tmp_path / "again")
    import_gpt(tmp_path / "again", tmp_path / "back2")
    assert torch.equal(logits(load_gpt(tmp_path / "back2")), logits(own))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("gpt2")
    for number in range(8):
        (folder / f"{number}.txt").write_text(" ".join(f"word {number} of {word}" for word in range(90)))
    train_gpt(
        folder / "run", text=(str(folder),), vocab_size=300, n_layer=2, n_head=2, d_model=8, context=CONTEXT,
        batch_size=2, steps=2, val_tokens=64, device="cpu", quiet=True,
    )  # fmt: skip
    return Run(folder / "run")


def test_both_ways_of_harvesting_give_the_same_rows(run: Run, tmp_path: Path) -> None:
    """The run's GPT, and its GPT-2 folder by --model over the same text: in the same run, and in one of its own."""
    pytest.importorskip("transformers")
    export_gpt(run.path, tmp_path / "hf")
    assert json.loads((tmp_path / "hf/tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"
    shared: dict[str, Any] = {"layer": "0,1", "site": "mlp,resid_mid,attn", "rows": 150, "dtype": "float32",
                              "device": "cpu", "quiet": True}  # fmt: skip
    own = harvest_activations(run, **shared)["datasets"]
    other = Run(tmp_path / "other")
    hf: dict[str, Any] = {"model": str(tmp_path / "hf"), "special_tokens": True}
    text = tuple(str(path) for path in sorted(run.path.parent.glob("*.txt")))
    theirs = harvest_activations(other, **shared, **hf, context=CONTEXT, text=text)["datasets"]
    assert own.keys() == theirs.keys()
    for hook, one in own.items():
        a, b = Dataset(run.path / one["path"]), Dataset(other.path / theirs[hook]["path"])
        assert a.rows == b.rows == 150
        if hook.endswith("hook_z"):
            assert a.activation_dim == b.activation_dim == 8
        assert len(set(a.tokens(0, 150).tolist())) > 5
        torch.testing.assert_close(a.read(0, 150), b.read(0, 150), rtol=1e-4, atol=1e-6)
        assert (a.tokens(0, 150) == b.tokens(0, 150)).all()
    import_gpt(tmp_path / "hf", tmp_path / "back")
    third = harvest_activations(Run(tmp_path / "third"), **shared, model=str(tmp_path / "back"), text=text)["datasets"]
    for hook, one in own.items():
        a, b = Dataset(run.path / one["path"]), Dataset(tmp_path / "third" / third[hook]["path"])
        assert torch.equal(a.read(0, 150), b.read(0, 150))
    hf["special_tokens"] = False
    plain = harvest_activations(other, **shared, **hf, context=CONTEXT, force=True)
    ended = Dataset(other.path / plain["path"])
    assert 0 not in ended.tokens(0, ended.rows)  # where it is not asked for, no end of text


def test_the_runs_own_text_serves_its_exported_model(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    export_gpt(run.path, tmp_path / "hf")
    found = harvest_activations(
        run, model=str(tmp_path / "hf"), module=("transformer.h.0.mlp.act",), rows=40, quiet=True
    )
    assert found["activation_dim"] == 32


def nano(folder: Path, bias: bool) -> dict[str, Tensor]:
    """A checkpoint as nanoGPT's train.py writes it after torch.compile, including the mask."""
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    state = {"transformer.wte.weight": random(V, D), "transformer.wpe.weight": random(CONTEXT, D),
             "transformer.ln_f.weight": 1 + random(D)}  # fmt: skip
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        state |= {f"{block}.{name}.weight": random(*shape) for name, shape in
                  {"attn.c_attn": (3 * D, D), "attn.c_proj": (D, D), "mlp.c_fc": (4 * D, D),
                   "mlp.c_proj": (D, 4 * D)}.items()}  # fmt: skip
        state |= {f"{block}.{name}.weight": 1 + random(D) for name in ("ln_1", "ln_2")}
        state[f"{block}.attn.bias"] = torch.ones(CONTEXT, CONTEXT).tril().view(1, 1, CONTEXT, CONTEXT)
    if bias:
        for name in [name for name in state if name.endswith(".weight") and "wte" not in name and "wpe" not in name]:
            state[name.removesuffix("weight") + "bias"] = random(state[name].shape[0])
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    folder.mkdir()
    save_file({f"_orig_mod.{name}": value for name, value in state.items()}, folder / "ckpt.safetensors")
    args = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": D, "block_size": CONTEXT, "bias": bias, "vocab_size": V}
    (folder / "config.json").write_text(json.dumps({"model_args": args, "iter_num": 5}))
    return state


def nano_logits(state: dict[str, Tensor]) -> Tensor:
    """nanoGPT's forward pass, from its weights."""

    def at(name: str) -> tuple[Tensor, Tensor | None]:
        bias = state.get(f"transformer.{name}.bias")
        return state[f"transformer.{name}.weight"], bias if bias is not None and bias.ndim == 1 else None

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = at(name)
        return F.layer_norm(x, (D,), weight, bias, 1e-5)

    x = state["transformer.wte.weight"][ids()] + state["transformer.wpe.weight"]
    for layer in range(LAYERS):
        h = norm(x, f"h.{layer}.ln_1")
        q, k, v = (
            part.view(3, CONTEXT, HEADS, D // HEADS).transpose(1, 2)
            for part in F.linear(h, *at(f"h.{layer}.attn.c_attn")).chunk(3, dim=2)
        )
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(D // HEADS)
        scores = scores.masked_fill(torch.ones(CONTEXT, CONTEXT).tril() == 0, -torch.inf)
        z = (scores.softmax(-1) @ v).transpose(1, 2).reshape(3, CONTEXT, D)
        x = x + F.linear(z, *at(f"h.{layer}.attn.c_proj"))
        hidden = F.gelu(F.linear(norm(x, f"h.{layer}.ln_2"), *at(f"h.{layer}.mlp.c_fc")))
        x = x + F.linear(hidden, *at(f"h.{layer}.mlp.c_proj"))
    return norm(x, "ln_f") @ state["transformer.wte.weight"].T


def test_nanogpt_checkpoints_come_in(tmp_path: Path) -> None:
    state = nano(tmp_path / "nano", bias=False)
    for number, source in enumerate(("nano", "nano/ckpt.safetensors")):
        for read in (import_nanogpt, import_gpt)[: 2 - number]:  # a folder tells which of both it is
            read(tmp_path / source, tmp_path / f"own{number}")
    assert (
        load_file(tmp_path / "own0/model.safetensors").keys() == load_file(tmp_path / "own1/model.safetensors").keys()
    )
    torch.testing.assert_close(logits(load_gpt(tmp_path / "own1")), nano_logits(state), rtol=1e-5, atol=1e-5)


def test_nanogpt_with_biases_becomes_gpt2(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    state = nano(tmp_path / "nano", bias=True)
    with pytest.raises(ModelInvalid, match=r"trained with bias=True .*--to hf"):
        advised(import_nanogpt)(tmp_path / "nano", tmp_path / "own")
    export_nanogpt(tmp_path / "nano", tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        found = theirs(ids()).logits
    torch.testing.assert_close(found, nano_logits(state), rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelInvalid, match="has biases"):
        import_gpt(tmp_path / "hf", tmp_path / "own")


def test_what_is_not_this_architecture_is_refused(tmp_path: Path) -> None:
    gpt(tmp_path / "own")
    export_gpt(tmp_path / "own", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    for name, value in {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": False,
    }.items():
        (tmp_path / "hf/config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(ModelInvalid, match=f"{name} is .*, which this project's GPT has not"):
            import_gpt(tmp_path / "hf", tmp_path / "back")
    (tmp_path / "hf/config.json").write_text(json.dumps(config | {"n_embd": 24}))
    with pytest.raises(ModelInvalid, match="tensors do not fit"):
        import_gpt(tmp_path / "hf", tmp_path / "back")
    (tmp_path / "hf/config.json").write_text(json.dumps({"n_embd": D}))
    with pytest.raises(ModelInvalid, match="needs n_layer and n_head, as in nanoGPT's model_args"):
        import_nanogpt(tmp_path / "hf", tmp_path / "back")
    with pytest.raises(ModelInvalid, match="not a GPT's sizes"):
        export_gpt(tmp_path / "nothing", tmp_path / "x")
    tensors = load_file(tmp_path / "hf/model.safetensors")
    assert np.all([tensor.dtype == torch.float32 for tensor in tensors.values()])
