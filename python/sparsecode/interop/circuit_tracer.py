"""Transcoder sets of circuit-tracer: folders of config.yaml, layer_0.safetensors, layer_1.safetensors, ...; read only.

W_enc [n,d], W_dec [n,o], b_enc [n], b_dec [o], optional W_skip [o,d] and activation_function.threshold [n]. In the
first sets W_dec is transposed. The nonlinearity is in config.yaml (relu, or topk, which keeps the k largest unchanged),
or JumpReLU if there is a threshold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsecode.dictionary import Activation, Dictionary, JumpRelu, Relu, TopKLinear
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, made, read_tensors
from sparsecode.interop.layouts import SET_CONFIG, SET_LAYER, read_yaml

_THRESHOLDS = ("activation_function.threshold", "threshold")


def read(file: Path) -> Dictionary:
    """The transcoder of one layer.

    Raises:
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
        NotExpressible: its features write into several layers, or its threshold lets negative codes through.
    """
    path = file.parent / SET_CONFIG
    config = read_yaml(path)
    kind = config.get("model_kind", "transcoder_set")
    if kind != "transcoder_set":
        raise NotExpressible(f"{path}: a {kind} is no set of transcoders of one layer each")
    weights = Weights(file, read_tensors(file))
    parts = weights.parts("W_enc", "b_enc", "W_dec", "b_dec") | {"W_skip": weights.take_if("W_skip", 2)}
    W_dec, n = parts["W_dec"], len(parts["b_enc"])
    if W_dec.shape[0] != n and W_dec.shape[1] == n:
        parts["W_dec"] = W_dec.T.contiguous()
    activation = _activation(weights, config, path)
    weights.done()
    return made(
        file, **parts, meta=_meta(config, file), activation=activation, apply_b_dec_to_input=False, transcoder=True
    )


def _activation(weights: Weights, config: dict[str, str | list[str]], path: Path) -> Activation:
    said = config.get("activation")
    threshold = next((weights.take(name, 1) for name in _THRESHOLDS if name in weights), None)
    if said == "topk" or (said is None and "k" in weights):
        k = str(config.get("k", int(weights.number("k")) if "k" in weights else ""))
        weights.drop(["k"])
        if not k.isdecimal():
            raise DictionaryInvalid(f"{path}: activation topk needs k, a number of features, not {k!r}")
        return TopKLinear(int(k))
    if said == "relu" or (said is None and threshold is None):
        weights.drop(["k"])
        return Relu()
    if threshold is None:
        raise NotExpressible(f"{path}: activation {said!r} is none of relu, topk and jump_relu with its threshold")
    if bool((threshold < 0).any()):
        raise NotExpressible(f"{weights.path}: a threshold below 0 lets negative codes through, which none here does")
    return JumpRelu(threshold)


def _meta(config: dict[str, str | list[str]], file: Path) -> dict[str, Any]:
    """The hook points it reads and writes: `blocks.L.` and the hook in the configuration."""
    number = SET_LAYER.fullmatch(file.name)
    assert number is not None
    layer = int(number[1])
    meta: dict[str, Any] = {"layer": layer}
    for ours, theirs in (("hook_point", "feature_input_hook"), ("hook_point_out", "feature_output_hook")):
        hook = config.get(theirs)
        if isinstance(hook, str) and hook:
            hook = hook.replace("{layer}", str(layer))
            meta[ours] = hook if hook.startswith("blocks.") else f"blocks.{layer}.{hook}"
    if isinstance(config.get("model_name"), str):
        meta["model"] = config["model_name"]
    return meta | {"source": {"format": "circuit_tracer", "config": config}}
