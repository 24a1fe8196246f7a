"""Gemma Scope (Google DeepMind), as published; read only.

Gemma Scope     REPOSITORY/layer_L/width_W/average_l0_K/params.npz
                W_enc [d,n], W_dec [n,d], b_enc [n], b_dec [d], threshold [n]
Gemma Scope 2   SITE/layer_L_width_W_l0_S/params.safetensors and config.json
                w_enc [d,n], w_dec [n,o], b_enc [n], b_dec [o], threshold [n], and of transcoders with a skip connection
                affine_skip_connection [d,o], which multiplies the input from the right

Both encode as relu(x W_enc + b_enc) where that exceeds the threshold; nothing is subtracted and nothing normalised.
The hook point of the first is only in the names of their folders.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sparsecode.dictionary import Dictionary, JumpRelu
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, made, read_json, read_tensors
from sparsecode.interop.npz import read_npz

ARRAYS, WEIGHTS, CONFIG = "params.npz", "params.safetensors", "config.json"

# Of Gemma Scope's repositories, gemma-scope-2b-pt-res and the like. Transcoders read what the norm before the MLP
# makes without its weight, which was folded into the MLP (arXiv 2408.05147, section 3).
_SITES = {
    "res": ("hook_resid_post", None), "mlp": ("hook_mlp_out", None), "att": ("attn.hook_z", None),
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}  # fmt: skip
# Gemma Scope 2's folders, for dictionaries without a configuration; `resid_post_all` and similar hold the same.
_FOLDERS = {
    "resid_post": ("hook_resid_post", None), "mlp_out": ("hook_mlp_out", None), "attn_out": ("attn.hook_z", None),
    "transcoder": ("mlp.hook_in", "hook_mlp_out"),
}  # fmt: skip
# Modules of Gemma 3's layers that have a hook name here.
_PLACES = {
    "output": "hook_resid_post", "post_feedforward_layernorm.output": "hook_mlp_out",
    "self_attn.o_proj.input": "attn.hook_z", "post_attention_layernorm.output": "hook_attn_out",
}  # fmt: skip
_ACROSS = {"clt": "cross-layer transcoder", "crosscoder": "crosscoder"}


def read(path: Path) -> Dictionary:
    """The SAE or transcoder in a folder, or in one `.npz` file.

    Raises:
        DictionaryInvalid, PickleRefused: a file is missing or broken, or does not fit its configuration.
        NotExpressible: it reads or writes several layers at once, or is not a JumpReLU dictionary.
    """
    if path.suffix == ".npz" and path.is_file():
        return _first(path)
    return _second(path) if (path / WEIGHTS).is_file() else _first(path / ARRAYS)


def _first(file: Path) -> Dictionary:
    weights = Weights(file, read_npz(file))
    parts = _parts(weights, "W_enc", "W_dec")
    factor = weights.take_if("scaling_factor", 1)
    if factor is not None and not bool((factor == 1).all()):
        raise NotExpressible(f"{file}: has a scaling_factor, which Gemma Scope does not describe; fold it into W_dec")
    weights.done()
    meta = _from_names(file)
    source = {"format": "gemma_scope"}
    return made(file, **parts, meta=meta | {"source": source}, transcoder="hook_point_out" in meta)


def _second(folder: Path) -> Dictionary:
    path = folder / CONFIG
    config = read_json(path) if path.is_file() else {}
    kind = config.get("type")
    if isinstance(kind, str) and kind in _ACROSS:
        raise NotExpressible(f"{path}: a {_ACROSS[kind]} reads or writes several layers at once")
    if kind not in (None, "sae", "transcoder"):
        raise NotExpressible(f"{path}: type {kind!r} is none of sae and transcoder")
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise NotExpressible(f"{path}: architecture {config['architecture']!r} is not jump_relu, the only one known")
    file = folder / WEIGHTS
    weights = Weights(file, read_tensors(file))
    if weights.dimensions("w_enc") == 3 or weights.dimensions("w_dec") in (3, 4):
        raise NotExpressible(f"{file}: a cross-layer transcoder or crosscoder reads or writes several layers at once")
    parts = _parts(weights, "w_enc", "w_dec")
    if config.get("affine_connection") or "affine_skip_connection" in weights:
        parts["W_skip"] = weights.take("affine_skip_connection", 2).T.contiguous()
    weights.done()
    if config.get("width") not in (None, len(parts["W_dec"])):
        raise DictionaryInvalid(f"{path}: width is {config['width']}, but the weights have {len(parts['W_dec'])}")
    meta = _from_config(config) or _from_names(file)
    transcoder = kind == "transcoder" or (kind is None and "hook_point_out" in meta)
    source = {"format": "gemma_scope", "config": config}
    return made(folder, **parts, meta=meta | {"source": source}, transcoder=transcoder)


def _parts(weights: Weights, encoder: str, decoder: str) -> dict[str, Any]:
    parts = weights.parts(encoder, "b_enc", decoder, "b_dec", turned=["W_enc"])
    return parts | {"activation": JumpRelu(weights.take("threshold", 1)), "apply_b_dec_to_input": False}


def _from_config(config: dict[str, Any]) -> dict[str, Any]:
    """Hook points from Gemma Scope 2's configuration: `model.layers.12.output`, a module and its side."""
    names = {"hook_point": config.get("hf_hook_point_in"), "hook_point_out": config.get("hf_hook_point_out")}
    found = {ours: _hook(theirs) for ours, theirs in names.items() if isinstance(theirs, str)}
    if found.get("hook_point_out") == found.get("hook_point"):
        found.pop("hook_point_out", None)
    if found and isinstance(config.get("model_name"), str):
        found["model"] = config["model_name"]
    return found


def _hook(name: str) -> str:
    """This project's name of a module's side, or `MODULE@input` if it has none."""
    known = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    if known and known[2] in _PLACES:
        return f"blocks.{known[1]}.{_PLACES[known[2]]}"
    module, _, side = name.rpartition(".")
    return f"{module}@{side}" if module and side in ("input", "output") else name


def _from_names(file: Path) -> dict[str, Any]:
    """Hook points from the folders that contain a file, innermost first; empty if their names have none."""
    parts = file.absolute().parts[::-1]
    layer = next((found[1] for part in parts if (found := re.search(r"layer_(\d{1,4})(?!\d)", part))), None)
    named = next((found.groupdict() for part in parts if (found := _REPOSITORY.search(part))), {})
    model = {}
    if named.get("size") and not named["second"]:
        model = {"model": f"google/gemma-2-{named['size']}" + ("-it" if named["kind"] == "it" else "")}
    if "embedding" in parts[:4]:
        return model | {"hook_point": "model.embed_tokens"}  # as Gemma 2's table has them, before they are scaled
    folder = next((part.removesuffix("_all") for part in parts if part.removesuffix("_all") in _FOLDERS), "")
    site = _SITES.get(named.get("site") or "") or _FOLDERS.get(folder)
    if layer is None:
        return model
    if site is None:
        return model | {"layer": int(layer)}
    hooks = dict(zip(("hook_point", "hook_point_out"), site, strict=True))
    return model | {name: f"blocks.{int(layer)}.{hook}" for name, hook in hooks.items() if hook is not None}


# gemma-scope-2b-pt-res, gemma-scope-9b-it-res, gemma-scope-2-4b-pt; also inside a name of the hub's cache.
_REPOSITORY = re.compile(
    r"gemma-scope-(?P<second>2-)?(?P<size>\d+[bm])(?:-(?P<kind>pt|it))?(?:-(?P<site>res|mlp|att|transcoders))?(?![a-z0-9])"
)
