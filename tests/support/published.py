"""Small dictionaries in published formats: Gemma Scope, Llama Scope and circuit-tracer's transcoder sets.

No file of theirs is here. A test writes a small one of the same layout and compares what is read with the format's own
definition, written out slowly and obviously.

Shape letters: R rows, d activation dimension, n features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from sparsecode.cli import main
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


def write_set(folder: Path, layers: int = 3, *, config: str = "model_kind: transcoder_set\n", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    w = parts()
    tensors = {"W_enc": w["W_enc"].T.contiguous(), "W_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    for layer in range(layers):
        kept = {name: value for name, value in (tensors | changes).items() if value is not None}
        save_file(kept, folder / f"layer_{layer}.safetensors")
    (folder / "config.yaml").write_text(config)
    return folder
