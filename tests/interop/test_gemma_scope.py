"""Gemma Scope and Gemma Scope 2, compared with the definition of their reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from published import RESIDUAL, D, N, X, assert_same, parts, random, write_gemma_2, write_npz
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop import load_dictionary


def gemma_scope(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [R,n] and output: the definition of the reports, for either generation."""
    codes = torch.zeros(len(x), N)
    for row in range(len(x)):
        for feature in range(N):
            pre = sum(float(x[row, i]) * float(w["W_enc"][i, feature]) for i in range(D)) + float(w["b_enc"][feature])
            codes[row, feature] = max(pre, 0.0) if pre > float(w["threshold"][feature]) else 0.0
    output = codes @ w["W_dec"] + w["b_dec"]
    return codes, output + x @ w["skip"] if "skip" in w else output


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
