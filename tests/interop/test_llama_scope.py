"""Llama Scope, compared with what lm-saes computed when it was released."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from published import HYPERPARAMETERS, D, N, X, assert_same, parts, write_llama
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop import load_dictionary


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
