"""Describes files at a path that no reader takes, so that the user knows what to do next."""

from __future__ import annotations

import re
from pathlib import Path

from sparsecode.errors import DictionaryInvalid
from sparsecode.interop.layouts import (
    GEMMA_ARRAYS,
    LLAMA_CONFIG,
    SET_CONFIG,
    SET_LAYER,
    array_names,
    keys,
    read_yaml,
    tensor_names,
)

_SHOWN = 8  # names in a message
_ACROSS = "its features write into several layers, which no dictionary here does"


def looks_like(path: Path) -> str | None:
    """What a file or folder looks like, as the rest of a sentence; None if that is unknown."""
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> str | None:
    if not path.is_file():
        return None
    if path.suffix == ".npz":
        names = array_names(path)
        if not names:
            return "cut short, or no .npz file; copy it again"
        return f"a .npz file of {_listed(names)}; Gemma Scope's have {_listed(GEMMA_ARRAYS)}, b_enc, b_dec"
    if path.suffix == ".safetensors":
        names = sorted(tensor_names(path))
        if re.fullmatch(r"W_(enc|dec)_\d+\.safetensors", path.name):
            return f"looks like a part of a cross-layer transcoder of circuit-tracer: {_ACROSS}"
        if re.fullmatch(r"params_layer_\d+\.safetensors", path.name):
            return f"looks like a part of a cross-layer transcoder of Gemma Scope 2: {_ACROSS}"
        if SET_LAYER.fullmatch(path.name) and "W_enc" in names:
            return f"looks like a layer of a circuit-tracer transcoder set; copy the set's {SET_CONFIG} beside it"
        if {"W_enc", "W_dec"} <= set(names):
            return f"a safetensors file of {_listed(names)}; put the configuration that says what it does beside it"
        return (
            None if not names else f"a safetensors file of {_listed(names)}, which no dictionary that is known here has"
        )
    return None


def _folder(path: Path) -> str | None:
    config = _yaml(path / SET_CONFIG)
    if config.get("model_kind") == "cross_layer_transcoder" or (path / "W_enc_0.safetensors").is_file():
        return f"looks like a cross-layer transcoder of circuit-tracer: {_ACROSS}"
    if next(path.glob("params_layer_*.safetensors"), None) is not None:
        return f"looks like a cross-layer transcoder of Gemma Scope 2: {_ACROSS}"
    if "model_kind" in config or "feature_input_hook" in config:
        elsewhere = config.get("transcoders")
        where = f" ({elsewhere[0]}, ...)" if isinstance(elsewhere, list) and elsewhere else ""
        return f"looks like a circuit-tracer transcoder set without its weights{where}; download these and name them"
    if next((file for file in path.glob("layer_*.safetensors") if SET_LAYER.fullmatch(file.name)), None) is not None:
        return f"looks like a circuit-tracer transcoder set without its {SET_CONFIG}; copy it beside the layers"
    if (path / LLAMA_CONFIG).is_file():
        return "looks like a Llama Scope SAE without its weights; copy checkpoints/final.safetensors as well"
    said = keys(path / "config.json")
    if "hf_hook_point_in" in said:
        return "looks like a Gemma Scope 2 dictionary without its weights; copy params.safetensors as well"
    if (path / "conf.yaml").is_file() and (path / "latest_ckpt.safetensors").is_file():
        return "looks like a temporal SAE: it predicts a token's activations from those before it, which none here does"
    if (path / "cfg.json").is_file() and {"d_sae", "d_in"} & keys(path / "cfg.json"):
        return "looks like an SAE of SAELens or sparsify without its weights; copy its .safetensors file as well"
    if {"sae_type", "trainer"} & said:
        return "looks like a dictionary without its weights; copy the whole folder"
    return None


def _yaml(path: Path) -> dict[str, str | list[str]]:
    try:
        return read_yaml(path) if path.is_file() else {}
    except DictionaryInvalid:
        return {}


def _listed(names: set[str] | list[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
