"""Llamascopium (OpenMOSS, formerly lm-saes): a folder of config.json and sae_weights.safetensors; read only.

The formulas are those of its models/sae.py: nothing is subtracted from the input, and with
`sparsity_include_decoder_norm` the nonlinearity is applied to codes times their atoms' norms. Its callers must
normalise activations by the data set's average norm; here `scale` does that. Under its former name lm-saes it had
tensors of torch.nn.Linear (encoder.weight [n,d], ...) and could subtract the decoder's bias, as in Llama Scope R1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sparsecode.dictionary import Dictionary, JumpRelu, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, about, made, read_json, read_tensors, same_length, setting

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
_NORM = "dataset_average_activation_norm."
_THRESHOLD, _OLD_THRESHOLD = "activation_function.log_jumprelu_threshold", "log_jumprelu_threshold"


def read(folder: Path) -> Dictionary:
    """The SAE or transcoder in a folder.

    Raises:
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
        NotExpressible: it is not a plain SAE, or its result for a row depends on the rest of the batch.
    """
    path = folder / CONFIG
    config = read_json(path)
    kind, act = setting(config, "sae_type", str, path, "sae"), setting(config, "act_fn", str, path, "relu").lower()
    if kind != "sae" or config.get("use_glu_encoder"):
        raise NotExpressible(f"{path}: a {'gated linear' if kind == 'sae' else kind} encoder is no plain SAE")
    if act not in ("relu", "jumprelu", "topk"):
        raise NotExpressible(f"{path}: {act} depends on the other rows of a batch; convert it to jumprelu there first")
    hooks = [setting(config, name, str, path) for name in ("hook_point_in", "hook_point_out")]
    transcoder = hooks[0] != hooks[1]
    weights = Weights(folder / WEIGHTS, read_tensors(folder / WEIGHTS))
    bias = setting(config, "use_decoder_bias", bool, path, True)
    if "encoder.weight" in weights:
        b_dec = "decoder.bias" if bias else None
        parts = weights.parts("encoder.weight", "encoder.bias", "decoder.weight", b_dec, turned=["W_dec"])
    else:
        parts = weights.parts("W_E", "b_E", "W_D", "b_D" if bias else None, turned=["W_enc"])
    subtract = bias and setting(config, "apply_decoder_bias_to_pre_encoder", bool, path, False)
    if subtract and transcoder:
        raise NotExpressible(f"{path}: a transcoder that subtracts its decoder's bias from another place's activations")
    norms = parts["W_dec"].norm(dim=1)
    by_norm = setting(config, "sparsity_include_decoder_norm", bool, path, True)
    if act == "jumprelu":
        name = _OLD_THRESHOLD if _OLD_THRESHOLD in weights else _THRESHOLD
        threshold = weights.take(name, 1).exp()
        same_length(folder / WEIGHTS, W_D=parts["W_dec"], **{name: threshold})
        parts["activation"] = JumpRelu(threshold / norms.clamp(min=1e-30) if by_norm else threshold)
    elif act == "topk":
        parts["activation"] = TopK(setting(config, "top_k", int, path, 50), norms if by_norm else None)
    parts |= _normalisation(config, weights, path, hooks, parts["W_enc"].shape[1])
    if transcoder:
        scale_out = parts.pop("scale_out", 1.0)
        parts["W_dec"] = parts["W_dec"] * scale_out
        parts["b_dec"] = None if parts["b_dec"] is None else parts["b_dec"] * scale_out
    parts.pop("scale_out", None)
    weights.drop([_NORM + hook for hook in hooks])
    weights.done()
    meta = about(config, {"hook_point_in": "hook_point"}) | ({"hook_point_out": hooks[1]} if transcoder else {})
    source = {"format": "llamascopium", "config": config}
    return made(folder, **parts, meta=meta | {"source": source}, apply_b_dec_to_input=subtract, transcoder=transcoder)


def _normalisation(config: dict[str, Any], weights: Weights, path: Path, hooks: list[str], d: int) -> dict[str, Any]:
    """The normalisation of raw activations before encoding, and its inverse after decoding."""
    kind = setting(config, "norm_activation", str, path, "dataset-wise")
    if kind == "inference":
        return {}
    if kind == "token-wise" and hooks[0] == hooks[1]:
        return {"input_norm": "constant_norm_rescale"}
    if kind != "dataset-wise":
        raise NotExpressible(f"{path}: norm_activation {kind} needs more than the row that is encoded")
    if (said := setting(config, "d_model", int, path)) != d:
        raise DictionaryInvalid(f"{path}: d_model is {said}, but the weights read {d} dimensions")
    scales: list[float] = []
    for hook in hooks:
        norm = weights.number(_NORM + hook) if _NORM + hook in weights else scales[0] * math.sqrt(d) if scales else 0.0
        if not (math.isfinite(norm) and norm > 0):
            raise DictionaryInvalid(
                f"{path}: dataset-wise normalisation by {norm} at {hook}; is its training finished?"
            )
        scales.append(norm / math.sqrt(d))
    return {"scale": scales[0], "scale_out": scales[1]}
