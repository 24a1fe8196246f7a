"""SAELens: a folder of cfg.json, sae_weights.safetensors and, after training, sparsity.safetensors.

Written for and tested against sae-lens 6.54.12. The encoder is transposed: W_enc [d,n]. Configurations from before
version 6 are flat; later ones keep what the SAE was trained on under `metadata`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsecode.checkpoint import save_tensors, write_json
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, about, read_json, read_tensors, same_length, setting
from sparsecode.interop.fold import folded
from sparsecode.sweep.dictionary import Dictionary

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
VERSION = "6.54.12"  # version of the format written here; without one, SAELens assumes a version before 6
_EPS = 1e-10  # SAELens writes log10(frequency + 1e-10)

_TRANSCODERS = {
    "transcoder": "relu", "skip_transcoder": "relu", "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip
_ACTIVATIONS = {
    "standard": "relu", "topk": "topk", "abstopk": "abstopk", "jumprelu": "jumprelu", "gated": "gated",
    "batchtopk": "batchtopk", "matryoshka_batchtopk": "batchtopk",
} | _TRANSCODERS  # fmt: skip
_OTHER = {
    "matching_pursuit": "encodes by matching pursuit, step after step",
    "temporal": "predicts a token's activations from those before it",
}
# Normalisations whose factor is not in the file; SAELens then applies none.
_UNKNOWN_FACTOR = ("expected_average_only_in", "covariance_whitening")
_NAMES = {
    "hook_name": "hook_point", "model_name": "model", "dataset_path": "dataset", "context_size": "context",
    "hook_name_out": "hook_point_out",
}  # fmt: skip

_RENAMED = {
    "hook_point": "hook_name", "hook_point_layer": "hook_layer", "activation_fn_str": "activation_fn",
}  # fmt: skip


def read(folder: Path) -> Dictionary:
    """The SAE or transcoder in a folder.

    Raises:
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
        NotExpressible: an architecture that encodes by more than one matrix and one nonlinearity.
    """
    path = folder / CONFIG
    config = _modern(read_json(path), path)
    architecture = setting(config, "architecture", str, path)
    if architecture in _OTHER:
        raise NotExpressible(f"{path}: a {architecture} SAE {_OTHER[architecture]}, which no other format here can say")
    if architecture not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise DictionaryInvalid(f"{path}: architecture {architecture!r} is unknown; known: {known}")
    activation = _ACTIVATIONS[architecture]
    weights = Weights(folder / WEIGHTS, read_tensors(folder / WEIGHTS), setting(config, "dtype", str, path, "float32"))
    parts: dict[str, Any] = {
        "W_enc": weights.take("W_enc", 2).T.contiguous(),
        "W_dec": weights.take("W_dec", 2),
        "b_dec": weights.take("b_dec", 1),
        "b_enc": weights.take("b_gate" if activation == "gated" else "b_enc", 1),
    }
    n = len(parts["W_dec"])
    if activation == "gated":
        parts |= {"r_mag": weights.take("r_mag", 1), "b_mag": weights.take("b_mag", 1)}
    elif activation == "jumprelu":
        log = "log_threshold" in weights
        threshold = weights.take("log_threshold" if log else "threshold", 1)
        parts["threshold"] = threshold.exp() if log else threshold
    elif activation == "batchtopk":
        parts |= {"threshold": torch.full((n,), weights.number("topk_threshold")), "k": config.get("k")}
    elif activation in ("topk", "abstopk"):
        parts["k"] = setting(config, "k", int, path)
    if "skip" in architecture:
        parts["W_skip"] = weights.take("W_skip", 2)
    _check_scaling_factor(weights)
    weights.done()
    if setting(config, "rescale_acts_by_decoder_norm", bool, path, False):
        same_length(folder / WEIGHTS, **{name: parts[name] for name in ("W_enc", "b_enc", "W_dec")})
        _fold_decoder_norm(parts)
    transcoder = architecture in _TRANSCODERS
    given = config.get("normalize_activations") is not None
    norm = setting(config, "normalize_activations", str, path) if given else "none"
    meta = _meta(config)
    if norm in _UNKNOWN_FACTOR:
        meta.setdefault("source", {})["note"] = (
            f"normalize_activations is {norm}, whose factor is not in the file: none is applied"
        )
        norm = "none"
    try:
        return Dictionary(
            **parts,
            meta=meta,
            features=_density(folder / SPARSITY, n),
            activation=activation,
            apply_b_dec_to_input=setting(config, "apply_b_dec_to_input", bool, path, True) and not transcoder,
            input_norm=norm,
            transcoder=transcoder,
        )
    except DictionaryInvalid as error:
        raise DictionaryInvalid(f"{folder}: {error}") from error


def write(found: Dictionary, folder: Path) -> None:
    """A folder that `SAE.load_from_disk` reads.

    Raises:
        NotExpressible: SAELens has no architecture for it.
    """
    architecture = _architecture(found)
    plain = folded(found)
    zeros = torch.zeros(plain.output_dim)
    tensors = {
        "W_enc": plain.W_enc.T,
        "W_dec": plain.W_dec,
        "b_dec": zeros if plain.b_dec is None else plain.b_dec,
        "b_gate" if architecture == "gated" else "b_enc": plain.b_enc,
    }
    for name in ("threshold", "r_mag", "b_mag", "W_skip"):
        if (value := getattr(plain, name)) is not None:
            tensors[name] = value
    if architecture.endswith("skip_transcoder") and plain.W_skip is None:
        tensors["W_skip"] = torch.zeros(plain.output_dim, plain.activation_dim)
    hook = plain.meta.get("hook_point")
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": plain.activation_dim,
        "d_sae": plain.dict_size,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": plain.apply_b_dec_to_input,
        "normalize_activations": plain.input_norm,
        "reshape_activations": "hook_z" if str(hook).endswith("hook_z") else "none",
        "metadata": {
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "model_name": plain.meta.get("model"),
            "hook_name": hook,
            "hook_head_index": None,
            "context_size": plain.meta.get("context"),
            "prepend_bos": False,
            "dataset_path": plain.meta.get("dataset"),
            "sparsecode": plain.meta,
        },
    }
    if plain.transcoder:
        config |= {"d_out": plain.output_dim}
        config["metadata"]["hook_name_out"] = plain.meta.get("hook_point_out")
    if architecture in ("topk", "abstopk"):
        config |= {"k": int(plain.k or 0), "rescale_acts_by_decoder_norm": False}
    save_tensors(folder / WEIGHTS, tensors)
    if "density" in plain.features:
        save_tensors(folder / SPARSITY, {"sparsity": (plain.features["density"] + _EPS).log10()})
    write_json(folder / CONFIG, config)


def _modern(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """A configuration of any version in the format of version 6."""
    metadata = config.get("metadata")
    if isinstance(metadata, dict) and "architecture" in config:
        return config
    flat = {_RENAMED.get(k, k): v for k, v in config.items()}
    flat.setdefault("architecture", "standard")
    arguments = flat.get("activation_fn_kwargs") or {}
    function = flat.get("activation_fn", "relu")
    if function == "topk" and isinstance(arguments, dict) and "k" in arguments:
        flat |= {"architecture": "topk", "k": arguments["k"]}
    elif function != "relu":
        raise NotExpressible(f"{path}: activation_fn {function!r} is not one that SAELens 6 still reads")
    norm = flat.get("normalize_activations")
    if norm is None or isinstance(norm, bool):
        flat["normalize_activations"] = "expected_average_only_in" if norm else "none"
    return flat | {"metadata": {name: flat[name] for name in (*_NAMES, "hook_layer") if name in flat}}


def _check_scaling_factor(weights: Weights) -> None:
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if (factor := weights.take_if(name, 1)) is not None and not bool((factor == 1).all()):
            raise NotExpressible(
                f"{weights.path}: has a {name}, which SAELens 6 does not read either; fold it into W_dec"
            )


def _fold_decoder_norm(parts: dict[str, Any]) -> None:
    """Scales atoms to norm 1; codes stay the same, since atoms' norms scale them before the k largest are chosen."""
    norm = parts["W_dec"].norm(dim=1).clamp(min=1e-8)
    parts["W_enc"] = parts["W_enc"] * norm[:, None]
    parts["b_enc"] = parts["b_enc"] * norm
    parts["W_dec"] = parts["W_dec"] / norm[:, None]


def _meta(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if isinstance(own := metadata.get("sparsecode"), dict):
        return dict(own)
    hook, layer = metadata.get("hook_name"), metadata.get("hook_layer")
    if isinstance(hook, str) and "{layer}" in hook and isinstance(layer, int):
        metadata["hook_name"] = hook.replace("{layer}", str(layer))
    return about(metadata, _NAMES) | {"source": {"format": "saelens", "config": config}}


def _density(path: Path, n: int) -> dict[str, torch.Tensor]:
    if not path.is_file():
        return {}
    logarithm = Weights(path, read_tensors(path)).take("sparsity", 1)
    if len(logarithm) != n:
        raise DictionaryInvalid(f"{path}: {len(logarithm)} frequencies for {n} features; is it of this SAE?")
    return {"density": (10**logarithm - _EPS).clamp(0, 1)}


def _architecture(found: Dictionary) -> str:
    if found.selection_scale is not None:
        raise NotExpressible("SAELens ranks topk by the codes themselves, not after a scale of their own")
    if found.transcoder:
        if found.activation not in ("relu", "jumprelu", "batchtopk"):
            raise NotExpressible(f"SAELens has no {found.activation} transcoder: relu and jumprelu only")
        skip = "skip_" if found.W_skip is not None else ""
        return f"{'jumprelu_' if found.threshold is not None else ''}{skip}transcoder"
    if found.W_skip is not None:
        raise NotExpressible("in SAELens only transcoders have a skip connection")
    names = {"relu": "standard", "batchtopk": "jumprelu"}
    architecture = names.get(found.activation, found.activation)
    if architecture not in _ACTIVATIONS:
        raise NotExpressible(f"SAELens has no architecture for the activation {found.activation}")
    return architecture
