"""Dictionaries in published formats: Gemma Scope, Llama Scope and circuit-tracer's transcoder sets.

No file of theirs is here. Each test writes a small one of the same layout and compares what is read with the format's
own definition, written out below slowly and obviously.

Shape letters: R rows, d activation dimension, n features.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from sparsecode.cli import main
from sparsecode.errors import DictionaryInvalid, NotExpressible, NotRecognised, PickleRefused
from sparsecode.interop import find_dictionaries, find_format, load_dictionary
from sparsecode.interop.layouts import read_yaml
from sparsecode.sweep import Dictionary

D, N, R = 8, 16, 40
RESIDUAL = "blocks.12.hook_resid_post"


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parts(*, unit: bool = False) -> dict[str, Tensor]:
    """W_enc [d,n], W_dec [n,d], biases and a threshold that stops a part of what a relu would let through."""
    W_dec = random(N, D, seed=1)
    return {
        "W_enc": random(D, N, seed=2),
        "W_dec": torch.nn.functional.normalize(W_dec) if unit else W_dec,
        "b_enc": random(N, seed=3) * 0.3,
        "b_dec": random(D, seed=4),
        "threshold": random(N, seed=5).abs(),
    }


X = random(R, D, seed=6) * 2 + 0.5


def call(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def assert_same(found: Dictionary, codes: Tensor, output: Tensor) -> None:
    assert 0 < int((codes != 0).sum()) < codes.numel(), "the data must tell features that fire from others"
    torch.testing.assert_close(found.encode(X), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.reconstruct(X), output, rtol=1e-5, atol=1e-4)


# Gemma Scope


def gemma_scope(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [R,n] and output: the definition of the reports, for either generation."""
    codes = torch.zeros(len(x), N)
    for row in range(len(x)):
        for feature in range(N):
            pre = sum(float(x[row, i]) * float(w["W_enc"][i, feature]) for i in range(D)) + float(w["b_enc"][feature])
            codes[row, feature] = max(pre, 0.0) if pre > float(w["threshold"][feature]) else 0.0
    output = codes @ w["W_dec"] + w["b_dec"]
    return codes, output + x @ w["skip"] if "skip" in w else output


def write_npz(folder: Path, w: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name: value.numpy() for name, value in (w or parts()).items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


def write_gemma_2(folder: Path, w: dict[str, Tensor] | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True)
    names = {"W_enc": "w_enc", "W_dec": "w_dec", "skip": "affine_skip_connection"}
    tensors = {names.get(name, name): value.contiguous() for name, value in (w or parts()).items()}
    save_file(tensors, folder / "params.safetensors")
    known = {"hf_hook_point_in": "model.layers.12.output", "hf_hook_point_out": "model.layers.12.output", "width": N,
             "model_name": "google/gemma-3-4b-pt", "architecture": "jump_relu", "l0": 60, "affine_connection": False,
             "type": "sae"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def test_gemma_scope_does_what_its_definition_says(tmp_path: Path) -> None:
    folder = write_npz(tmp_path / "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")
    for path in (folder, folder / "params.npz"):
        found = load_dictionary(path)
        assert_same(found, *gemma_scope(parts(), X))
        assert (found.meta["hook_point"], found.meta["model"]) == (RESIDUAL, "google/gemma-2-2b")
        assert not found.transcoder
    (folder / "params.npz").rename(tmp_path / "mine.npz")  # where nothing says which place it reads
    found = load_dictionary(tmp_path / "mine.npz")
    assert_same(found, *gemma_scope(parts(), X))
    assert "hook_point" not in found.meta


@pytest.mark.parametrize(
    ("folder", "hooks", "model"),
    [
        ("gemma-scope-9b-it-res/layer_20/w", ("blocks.20.hook_resid_post", None), "google/gemma-2-9b-it"),
        ("gemma-scope-2b-pt-mlp/layer_3/w", ("blocks.3.hook_mlp_out", None), "google/gemma-2-2b"),
        ("models--google--gemma-scope-2b-pt-att/snapshots/0a1/layer_5/w", ("blocks.5.attn.hook_z", None),
         "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", ("model.embed_tokens", None), "google/gemma-2-2b"),
        ("gemma-scope-2b-pt-transcoders/layer_7/w", ("blocks.7.ln2.hook_normalized", "blocks.7.hook_mlp_out"),
         "google/gemma-2-2b"),
        ("elsewhere/layer_7", (None, None), None),
    ],
)  # fmt: skip
def test_the_folders_of_gemma_scope_say_what_it_reads(
    tmp_path: Path, folder: str, hooks: tuple[str | None, ...], model: str | None
) -> None:
    found = load_dictionary(write_npz(tmp_path / folder))
    assert (found.meta.get("hook_point"), found.meta.get("hook_point_out")) == hooks
    assert found.meta.get("model") == model
    assert found.transcoder == (hooks[1] is not None)


@pytest.mark.parametrize(
    ("config", "hooks"),
    [
        ({}, (RESIDUAL, None)),
        ({"type": None, "hf_hook_point_out": None, "width": None}, (RESIDUAL, None)),
        ({"hf_hook_point_in": "model.layers.3.self_attn.o_proj.input", "hf_hook_point_out": None},
         ("blocks.3.attn.hook_z", None)),
        ({"type": "transcoder", "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
          "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output"},
         ("model.layers.3.pre_feedforward_layernorm@output", "blocks.3.hook_mlp_out")),
    ],
)  # fmt: skip
def test_gemma_scope_2_does_what_its_definition_says(
    tmp_path: Path, config: dict[str, Any], hooks: tuple[str | None, ...]
) -> None:
    folder = write_gemma_2(tmp_path / "resid_post/layer_12_width_16k_l0_small", **config)
    for path in (folder, folder / "params.safetensors", folder / "config.json"):
        found = load_dictionary(path)
        assert_same(found, *gemma_scope(parts(), X))
        assert (found.meta.get("hook_point"), found.meta.get("hook_point_out")) == hooks
    assert found.transcoder == (hooks[1] is not None)


def test_gemma_scope_2_without_its_configuration_is_told_by_its_folder(tmp_path: Path) -> None:
    folder = write_gemma_2(tmp_path / "mlp_out_all/layer_17_width_16k_l0_big")
    (folder / "config.json").unlink()
    found = load_dictionary(folder)
    assert_same(found, *gemma_scope(parts(), X))
    assert found.meta["hook_point"] == "blocks.17.hook_mlp_out"


def test_the_skip_connection_of_gemma_scope_2_multiplies_from_the_right(tmp_path: Path) -> None:
    w = parts() | {"skip": random(D, D, seed=9)}
    found = load_dictionary(write_gemma_2(tmp_path / "t", w, type="transcoder", affine_connection=True))
    assert_same(found, *gemma_scope(w, X))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"type": "clt"}, NotExpressible, "a cross-layer transcoder reads or writes several layers"),
        ({"type": "crosscoder"}, NotExpressible, "a crosscoder reads or writes several layers"),
        ({"type": ["sae"]}, NotExpressible, r"type \['sae'\] is none of"),
        ({"architecture": "topk"}, NotExpressible, "architecture 'topk' is not jump_relu"),
        ({"width": 17}, DictionaryInvalid, "width is 17, but the weights have 16"),
        ({"affine_connection": True}, DictionaryInvalid, "no tensor affine_skip_connection"),
    ],
)
def test_what_gemma_scope_2_says_otherwise_is_named(
    tmp_path: Path, config: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dictionary(write_gemma_2(tmp_path / "a", **config))


def test_an_npz_file_cannot_run_code_and_cannot_claim_what_it_has_not(tmp_path: Path) -> None:
    def altered(name: str, content: bytes) -> Path:
        folder = write_npz(tmp_path / name)
        with zipfile.ZipFile(folder / "params.npz", "a") as archive:
            archive.writestr("more.npy", content)
        return folder

    def array(value: Any, **changes: Any) -> bytes:
        held = io.BytesIO()
        np.lib.format.write_array(held, value, **changes)
        return held.getvalue()

    code = altered("code", array(np.array([print], dtype=object), allow_pickle=True))
    with pytest.raises(PickleRefused, match="more: holds Python objects"):
        load_dictionary(code)
    claims = array(np.zeros(10)).replace(b"(10,)", b"(9999999999,)".ljust(5))
    with pytest.raises(DictionaryInvalid, match=r"params\.npz"):
        load_dictionary(altered("claims", claims))
    with pytest.raises(DictionaryInvalid, match=r"more: is of type"):
        load_dictionary(altered("text", array(np.array(["a"]))))
    with pytest.raises(DictionaryInvalid, match=r"cut short, or not a \.npz file"):
        load_dictionary(altered("short", b"\x93NUMPY\x01\x00\xff"))
    whole = (write_npz(tmp_path / "whole") / "params.npz").read_bytes()
    (tmp_path / "whole/params.npz").write_bytes(whole[:-30])
    with pytest.raises(DictionaryInvalid, match="cut short"):
        load_dictionary(tmp_path / "whole")
    with pytest.raises(DictionaryInvalid, match="no tensor threshold"):
        load_dictionary(
            write_npz(tmp_path / "few", {name: parts()[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})
        )


def test_a_packed_npz_file_in_half_precision_is_read(tmp_path: Path) -> None:
    half: dict[str, Any] = {name: value.half().numpy() for name, value in parts().items()}
    np.savez_compressed(tmp_path / "params.npz", **half)
    assert torch.equal(load_dictionary(tmp_path).W_dec, torch.from_numpy(half["W_dec"]).float())


# Llama Scope

HYPERPARAMETERS: dict[str, Any] = {
    "dtype": "torch.bfloat16", "hook_point_in": "blocks.15.hook_resid_post",
    "hook_point_out": "blocks.15.hook_resid_post", "use_decoder_bias": True, "expansion_factor": 2,
    "apply_decoder_bias_to_pre_encoder": False, "d_model": D, "d_sae": N, "act_fn": "jumprelu",
    "jump_relu_threshold": 0.4, "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": 5.0, "out": 5.0}, "sparsity_include_decoder_norm": True,
    "use_glu_encoder": False, "top_k": 5,
}  # fmt: skip


def write_llama(folder: Path, **changes: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    w = parts()
    save_file(
        {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"],
         "decoder.weight": w["W_dec"].T.contiguous(), "decoder.bias": w["b_dec"]},
        folder / "checkpoints/final.safetensors",
    )  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(HYPERPARAMETERS | changes))
    return folder


def llama_scope(config: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and output as lm-saes computed them when Llama Scope was released: its weights changed, then used."""
    w = parts()
    encoder, b_enc, decoder, b_dec = w["W_enc"].T.clone(), w["b_enc"].clone(), w["W_dec"].clone(), w["b_dec"]
    if config["norm_activation"] == "dataset-wise":
        f_in, f_out = (math.sqrt(D) / config["dataset_average_activation_norm"][side] for side in ("in", "out"))
        b_enc, b_dec, decoder = b_enc / f_in, b_dec / f_out, decoder * f_in / f_out
    if config["sparsity_include_decoder_norm"]:
        for feature in range(N):
            norm = float(decoder[feature].square().sum()) ** 0.5
            decoder[feature] /= norm
            encoder[feature] *= norm
            b_enc[feature] *= norm
    given, size = x, torch.ones(len(x), 1)
    if config["norm_activation"] == "token-wise":
        size = x.norm(dim=1, keepdim=True) / math.sqrt(D)
        given = x / size
    if config["apply_decoder_bias_to_pre_encoder"]:
        given = given - b_dec
    codes = given @ encoder.T + b_enc
    if config["act_fn"] == "relu":
        codes = codes.clamp(min=0)
    elif config["act_fn"] == "topk" and config["jump_relu_threshold"] <= 0:
        largest = codes.clamp(min=0).topk(config["top_k"]).indices
        codes = torch.zeros_like(codes).scatter(1, largest, codes.clamp(min=0).gather(1, largest))
    else:
        codes = torch.where(codes > config["jump_relu_threshold"], codes, 0.0)
    return codes, (codes @ decoder + b_dec) * size


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sparsity_include_decoder_norm": False},
        {"apply_decoder_bias_to_pre_encoder": True},
        {"norm_activation": "inference", "dataset_average_activation_norm": None},
        {"norm_activation": "token-wise"},
        {"act_fn": "topk"},
        {"act_fn": "topk", "jump_relu_threshold": 0.0},
        {"act_fn": "relu", "jump_relu_threshold": 0.0},
        {"hook_point_in": "blocks.15.ln2.hook_normalized", "hook_point_out": "blocks.15.hook_mlp_out",
         "dataset_average_activation_norm": {"in": 3.0, "out": 7.0}},
        {"hook_point_in": "blocks.15.ln2.hook_normalized", "hook_point_out": "blocks.15.hook_mlp_out",
         "apply_decoder_bias_to_pre_encoder": True},
    ],
    ids=str,
)  # fmt: skip
def test_llama_scope_does_what_its_library_did(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_llama(tmp_path / "Llama3_1-8B-Base-L15R-8x", **changes)
    for path in (folder, folder / "hyperparams.json", folder / "checkpoints/final.safetensors"):
        found = load_dictionary(path)
        assert_same(found, *llama_scope(HYPERPARAMETERS | changes, X))
        assert found.meta["hook_point"] == (HYPERPARAMETERS | changes)["hook_point_in"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"norm_activation": "batch-wise"}, NotExpressible, "batch-wise needs more than the row"),
        ({"use_glu_encoder": True}, NotExpressible, "gated linear"),
        ({"act_fn": "gelu"}, NotExpressible, "act_fn gelu is none of"),
        ({"jump_relu_threshold": -1.0}, NotExpressible, "lets negative codes through"),
        ({"dataset_average_activation_norm": None}, DictionaryInvalid, "dataset-wise normalisation by None"),
        ({"dataset_average_activation_norm": {"in": 0, "out": 1}}, DictionaryInvalid, "normalisation by 0"),
        ({"jump_relu_threshold": "0.5"}, DictionaryInvalid, "jump_relu_threshold is '0.5', not a number"),
        ({"hook_point_in": None}, DictionaryInvalid, "hook_point_in is None"),
    ],
)
def test_what_llama_scope_says_otherwise_is_named(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_dictionary(write_llama(tmp_path / "a", **changes))


def test_the_later_files_of_lm_saes_keep_a_threshold_for_each_feature(tmp_path: Path) -> None:
    # As Llama Scope R1: names of torch.nn.Linear, and a threshold on codes times their atoms' norms.
    w = parts()
    save_file(
        {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"],
         "decoder.weight": w["W_dec"].T.contiguous(), "decoder.bias": w["b_dec"],
         "log_jumprelu_threshold": w["threshold"].log(),
         "dataset_average_activation_norm.blocks.15.x": torch.tensor(5.0)},
        tmp_path / "sae_weights.safetensors",
    )  # fmt: skip
    config = {"hook_point_in": "blocks.15.x", "hook_point_out": "blocks.15.x", "act_fn": "jumprelu", "d_model": D,
              "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}  # fmt: skip
    for subtract in (False, True):
        (tmp_path / "config.json").write_text(json.dumps(config | {"apply_decoder_bias_to_pre_encoder": subtract}))
        x = X * math.sqrt(D) / 5.0
        codes = (x - w["b_dec"] if subtract else x) @ w["W_enc"] + w["b_enc"]
        codes = codes * (codes * w["W_dec"].norm(dim=1) > w["threshold"])
        assert_same(load_dictionary(tmp_path), codes, (codes @ w["W_dec"] + w["b_dec"]) * 5.0 / math.sqrt(D))


# circuit-tracer


def write_set(folder: Path, layers: int = 3, *, config: str = "model_kind: transcoder_set\n", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    w = parts()
    tensors = {"W_enc": w["W_enc"].T.contiguous(), "W_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    for layer in range(layers):
        kept = {name: value for name, value in (tensors | changes).items() if value is not None}
        save_file(kept, folder / f"layer_{layer}.safetensors")
    (folder / "config.yaml").write_text(config)
    return folder


def transcoder(x: Tensor, *, act: str = "relu", k: int = 0, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes and output of one layer as circuit-tracer computes them."""
    w = parts()
    pre = x @ w["W_enc"] + w["b_enc"]
    if act == "relu":
        codes = pre.clamp(min=0)
    elif act == "topk":  # the largest, even when negative
        gate = torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1)
        codes = pre * gate
    else:
        codes = pre * (pre > w["threshold"])
    output = codes @ w["W_dec"] + w["b_dec"]
    return codes, output if skip is None else output + x @ skip.T


SKIP = random(D, D, seed=8)
HEAD = "model_name: \"google/gemma-2-2b\"  # the model\nmodel_kind: 'transcoder_set'\n"


@pytest.mark.parametrize(
    ("config", "changes", "definition"),
    [
        ("", {}, {}),
        ("activation: relu\n", {}, {}),
        ("", {"W_dec": parts()["W_dec"].T.contiguous()}, {}),
        ("", {"W_skip": SKIP}, {"skip": SKIP}),
        ("", {"activation_function.threshold": parts()["threshold"]}, {"act": "jumprelu"}),
        ("activation: topk\nk: 5\n", {}, {"act": "topk", "k": 5}),
        ("", {"k": torch.tensor(5)}, {"act": "topk", "k": 5}),
    ],
)
def test_a_transcoder_of_a_set_does_what_circuit_tracer_does(
    tmp_path: Path, config: str, changes: dict[str, Any], definition: dict[str, Any]
) -> None:
    hooks = 'feature_input_hook: mlp.hook_in\nfeature_output_hook: "hook_mlp_out"\n'
    folder = write_set(tmp_path / "set", config=HEAD + hooks + config, **changes)
    found = load_dictionary(folder / "layer_2.safetensors")
    assert_same(found, *transcoder(X, **definition))
    assert found.transcoder
    assert (found.meta["hook_point"], found.meta["hook_point_out"]) == ("blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out")
    assert (found.meta["model"], found.meta["layer"]) == ("google/gemma-2-2b", 2)


@pytest.mark.parametrize(
    ("config", "changes", "error", "message"),
    [
        ("model_kind: cross_layer_transcoder\n", {}, NotExpressible, "cross_layer_transcoder is no set of"),
        (HEAD + "activation: topk\n", {}, DictionaryInvalid, "needs k"),
        (HEAD + "activation: gelu\n", {}, NotExpressible, "activation 'gelu'"),
        (HEAD, {"activation_function.threshold": -torch.ones(N)}, NotExpressible, "lets negative codes through"),
        (HEAD, {"extra": torch.ones(1)}, DictionaryInvalid, "holds extra"),
        (HEAD, {"W_enc": None}, DictionaryInvalid, "no tensor W_enc"),
    ],
)
def test_what_a_set_says_otherwise_is_named(
    tmp_path: Path, config: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    folder = write_set(tmp_path / "set", 1, config=config, **changes)
    with pytest.raises(error, match=message):
        load_dictionary(folder / "layer_0.safetensors")


def test_as_much_of_yaml_is_read_as_such_configurations_need(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(
        b'\xef\xbb\xbf# Transcoders\nname: "a # b" # c\nempty:\nplain: x: y\nlist:\n  - "hf://a/b"\n- \'c\'\n'
        b"nested:\n  inner: 3\nlast: 7 # d\n"
    )
    assert read_yaml(file) == {"name": "a # b", "empty": "", "plain": "x: y", "list": ["hf://a/b", "c"], "nested": "",
                               "last": "7"}  # fmt: skip
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DictionaryInvalid, match="not a readable YAML"):
        read_yaml(file)


# Folders of many, and what is not read


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A folder of several repositories."""
    for layer in (2, 10):
        write_npz(tmp_path / f"all/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_82")
    write_gemma_2(tmp_path / "all/gemma-scope-2-4b-pt/resid_post/layer_12_width_16k_l0_small")
    write_llama(tmp_path / "all/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x")
    write_set(tmp_path / "all/transcoders", 11)
    return tmp_path / "all"


def test_a_folder_of_many_is_a_folder_of_many(collection: Path, tmp_path: Path) -> None:
    found = find_dictionaries(collection)
    assert len(found) == 15
    layers = [one.path.name for one in found if one.format == "circuit_tracer"]
    assert layers == [f"layer_{layer}.safetensors" for layer in range(11)], "in the order of the layers"
    shown = json.loads(call("info", collection, "--json").stdout)
    assert (shown["kind"], len(shown["dictionaries"]), shown["left_out"]) == ("dictionaries", 15, [])
    told = call("info", collection).stdout
    assert told.startswith(f"15 dictionaries in {collection}\n")
    assert "blocks.10.hook_resid_post" in told
    done = call("convert", collection, tmp_path / "out", "--to", "saelens")
    assert done.exit_code == 0, done.stderr
    assert len(find_dictionaries(tmp_path / "out")) == 15
    assert (tmp_path / "out/transcoders/layer_10/cfg.json").is_file()
    compared = json.loads(call("compare", collection, "--json", "-q").stdout)
    assert len(compared["dictionaries"]) == 15
    assert call("info", collection / "transcoders/config.yaml").stdout.startswith("11 dictionaries")


@pytest.mark.parametrize("to", ["sparsecode", "saelens"])
def test_a_copy_of_a_published_dictionary_does_the_same(collection: Path, tmp_path: Path, to: str) -> None:
    for number, one in enumerate(find_dictionaries(collection)):
        out = tmp_path / "copies" / str(number)
        result = call("convert", one.path, out, "--to", to, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["converted"][0]["difference"] < 1e-5
    source = collection / "transcoders/layer_0.safetensors"
    refused = call("convert", source, collection / "transcoders/layer_0", "--to", "sparsecode", "--force")
    assert "the same place" in refused.stderr, "the copy's file would be the source itself"


def test_what_is_not_read_says_what_it_looks_like(tmp_path: Path) -> None:
    def made(name: str, **files: bytes | str | dict[str, Tensor]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for key, content in files.items():
            file = folder / key.replace("__", ".").replace("SLASH", "/")
            file.parent.mkdir(exist_ok=True)
            if isinstance(content, dict):
                save_file(content, file)
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    one = {"W_enc": torch.ones(2, 2)}
    cross = "looks like a cross-layer transcoder of circuit-tracer: its features write into several layers"
    elsewhere = (
        "model_kind: transcoder_set\ntranscoders:\n- hf://google/gemma-scope-2b-pt-transcoders/layer_0/params.npz\n"
    )
    cases = [
        (made("clt", config__yaml="model_kind: cross_layer_transcoder\n"), cross),
        (made("clt2", W_enc_0__safetensors=one), cross),
        (made("clt3", W_enc_0__safetensors=one) / "W_enc_0.safetensors", "a part of a cross-layer transcoder"),
        (made("gemma-clt", params_layer_0__safetensors=one), "a cross-layer transcoder of Gemma Scope 2"),
        (made("elsewhere", config__yaml=elsewhere), "transcoder set without its weights (hf://google/"),
        (made("bare", layer_0__safetensors=one), "transcoder set without its config.yaml"),
        (made("bare2", layer_0__safetensors=one) / "layer_0.safetensors", "copy the set's config.yaml beside it"),
        (made("llama", hyperparams__json="{}"), "a Llama Scope SAE without its weights"),
        (made("gemma", config__json='{"hf_hook_point_in": "x"}'), "a Gemma Scope 2 dictionary without its weights"),
        (made("temporal", conf__yaml="", latest_ckpt__safetensors=one), "a temporal SAE"),
        (made("lens", cfg__json='{"d_in": 3, "d_sae": 4}'), "an SAE of SAELens or sparsify without its weights"),
        (made("other", x__npz=(write_npz(tmp_path / "w", {"a": torch.ones(1)}) / "params.npz").read_bytes()) / "x.npz",
         "a .npz file of a; Gemma Scope's have W_dec, W_enc, threshold"),
        (made("broken", x__npz="") / "x.npz", "cut short, or no .npz file"),
        (made("lora", a__safetensors={"lora_A": torch.ones(1)}) / "a.safetensors", "a safetensors file of lora_A"),
    ]  # fmt: skip
    for path, message in cases:
        with pytest.raises(NotRecognised) as raised:
            load_dictionary(path)
        assert message in str(raised.value), path
        for command in (
            ["info", path],
            ["convert", path, tmp_path / "out", "--to", "saelens"],
            ["compare", path, path],
        ):
            result = call(*command)
            assert result.exit_code == 3, command
            assert message in result.stderr, command


def test_the_folder_that_one_is_in_may_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    for path in (".", "../a", "./."):
        assert find_format(path) is not None
        assert call("info", path).exit_code == 0
    assert call("info", "").exit_code == 2, "no path at all"
    assert find_format("/") is None
    assert call("convert", ".", "../copy", "--to", "sparsecode").exit_code == 0
