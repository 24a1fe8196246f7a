"""Files of lm-saes and Llamascopium, compared with their definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from published import D, X, assert_same, parts
from sparsecode.interop import load_dictionary


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
