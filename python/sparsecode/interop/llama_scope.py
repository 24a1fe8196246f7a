"""Llama Scope (OpenMOSS), as published: a folder of hyperparams.json and checkpoints/final.safetensors; read only.

The formulas are those of lm-saes at its release (October 2024), which loads such a folder in three steps:

1. With data-set-wise normalisation, by f = sqrt(d) / (average norm of the activations) for input and output, the
   factors go into the weights, so that raw activations are encoded: b_enc / f_in, W_dec f_in / f_out, b_dec / f_out.
2. With `sparsity_include_decoder_norm`, each atom is scaled to norm 1, and its encoder row and bias by its norm.
3. The single threshold is then applied, to raw activations. A `topk` with a threshold becomes JumpReLU.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from sparsecode.dictionary import Activation, Dictionary, JumpRelu, Relu, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, about, made, read_json, read_tensors, same_length, setting
from sparsecode.interop.layouts import LLAMA_CONFIG, LLAMA_WEIGHTS


def read(folder: Path) -> Dictionary:
    """The SAE or transcoder in a folder.

    Raises:
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
        NotExpressible: its result for a row depends on the rest of the batch, or its encoder is gated linear.
    """
    path = folder / LLAMA_CONFIG
    config = read_json(path)
    file = folder / next((name for name in LLAMA_WEIGHTS if (folder / name).is_file()), LLAMA_WEIGHTS[-1])
    if config.get("use_glu_encoder"):
        raise NotExpressible(f"{path}: a gated linear encoder is no plain SAE")
    weights = Weights(file, read_tensors(file))
    b_dec = "decoder.bias" if setting(config, "use_decoder_bias", bool, path, True) else None
    parts = weights.parts("encoder.weight", "encoder.bias", "decoder.weight", b_dec, turned=["W_dec"])
    weights.done()
    same_length(file, **{name: parts[name] for name in ("W_enc", "b_enc", "W_dec")})
    hooks = [setting(config, "hook_point_in", str, path)]
    hooks.append(setting(config, "hook_point_out", str, path, hooks[0]))
    transcoder = hooks[0] != hooks[1]
    norm = _fold_norm(parts, config, path)
    if norm != "none" and transcoder:
        raise NotExpressible(f"{path}: norm_activation token-wise needs more of a transcoder than the row it reads")
    if setting(config, "sparsity_include_decoder_norm", bool, path, True):
        _to_unit_atoms(parts)
    subtract = parts["b_dec"] is not None and setting(config, "apply_decoder_bias_to_pre_encoder", bool, path, True)
    if subtract and transcoder:  # the output's bias is subtracted from the input: only the encoder can express that
        if parts["W_enc"].shape[1] != len(parts["b_dec"]):
            raise DictionaryInvalid(f"{path}: b_dec of {len(parts['b_dec'])} cannot be subtracted from the input")
        parts["b_enc"] = parts["b_enc"] - parts["W_enc"] @ parts["b_dec"]
    meta = about(config, {"hook_point_in": "hook_point"}) | ({"hook_point_out": hooks[1]} if transcoder else {})
    return made(
        folder,
        **parts,
        meta=meta | {"source": {"format": "llama_scope", "config": config}},
        activation=_activation(config, path, len(parts["W_dec"])),
        apply_b_dec_to_input=subtract and not transcoder,
        input_norm=norm,
        transcoder=transcoder,
    )


def _fold_norm(parts: dict[str, Any], config: dict[str, Any], path: Path) -> str:
    """Step 1; returns the normalisation that remains to be applied to each row."""
    kind = setting(config, "norm_activation", str, path, "token-wise")
    if kind == "token-wise":
        return "constant_norm_rescale"
    if kind == "batch-wise":
        raise NotExpressible(f"{path}: norm_activation batch-wise needs more than the row that is encoded")
    if kind != "dataset-wise":
        return "none"
    norms = config.get("dataset_average_activation_norm")
    factors = []
    for side in ("in", "out"):
        said = norms.get(side) if isinstance(norms, dict) else None
        value = _number(said)
        if value is None or value <= 0:
            raise DictionaryInvalid(
                f"{path}: dataset-wise normalisation by {said!r} ({side}); is its training finished?"
            )
        factors.append(math.sqrt(parts["W_enc"].shape[1]) / value)
    parts["b_enc"] = parts["b_enc"] / factors[0]
    parts["W_dec"] = parts["W_dec"] * (factors[0] / factors[1])
    parts["b_dec"] = None if parts["b_dec"] is None else parts["b_dec"] / factors[1]
    return "none"


def _to_unit_atoms(parts: dict[str, Any]) -> None:
    """Step 2; a zero atom stays zero."""
    norms = parts["W_dec"].norm(dim=1)
    norms = torch.where(norms > 0, norms, 1.0)
    parts["W_dec"] = parts["W_dec"] / norms[:, None]
    parts["W_enc"] = parts["W_enc"] * norms[:, None]
    parts["b_enc"] = parts["b_enc"] * norms


def _activation(config: dict[str, Any], path: Path, n: int) -> Activation:
    """Step 3."""
    name = setting(config, "act_fn", str, path, "relu").lower()
    said = config.get("jump_relu_threshold", 0.0)
    threshold = _number(said)
    if threshold is None:
        raise DictionaryInvalid(f"{path}: jump_relu_threshold is {said!r}, not a number")
    if name == "jumprelu" or (name == "topk" and threshold > 0):
        if threshold < 0:
            raise NotExpressible(f"{path}: jump_relu_threshold {threshold} lets negative codes through")
        return JumpRelu(torch.full((n,), threshold))
    if name == "topk":
        return TopK(setting(config, "top_k", int, path, 50))
    if name != "relu":
        raise NotExpressible(f"{path}: act_fn {name} is none of relu, topk and jumprelu")
    return Relu()


def _number(value: Any) -> float | None:
    """A finite number of a configuration; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None
