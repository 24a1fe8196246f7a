"""SAELens: a folder of cfg.json, sae_weights.safetensors and, after training, sparsity.safetensors.

Written for and tested against sae-lens 6.54.12. The encoder is transposed: W_enc [d,n]. Configurations from before
version 6 are flat; later ones keep what the SAE was trained on under `metadata`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsecode.checkpoint import save_tensors, write_json
from sparsecode.dictionary import AbsTopK, Activation, BatchTopK, Dictionary, Gated, JumpRelu, Relu, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, about, check_ranking, made, read_json, read_tensors, same_length, setting
from sparsecode.interop.fold import folded

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
VERSION = "6.54.12"  # version of the format written here; without one, SAELens assumes a version before 6
_EPS = 1e-10  # SAELens writes log10(frequency + 1e-10)

_TRANSCODERS: dict[str, type[Activation]] = {
    "transcoder": Relu, "skip_transcoder": Relu, "jumprelu_transcoder": JumpRelu, "jumprelu_skip_transcoder": JumpRelu,
}  # fmt: skip
_KINDS: dict[str, type[Activation]] = {
    "standard": Relu, "topk": TopK, "abstopk": AbsTopK, "jumprelu": JumpRelu, "gated": Gated, "batchtopk": BatchTopK,
    "matryoshka_batchtopk": BatchTopK,
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
    if architecture not in _KINDS:
        known = ", ".join(_KINDS)
        raise DictionaryInvalid(f"{path}: architecture {architecture!r} is unknown; known: {known}")
    kind = _KINDS[architecture]
    weights = Weights(folder / WEIGHTS, read_tensors(folder / WEIGHTS), setting(config, "dtype", str, path, "float32"))
    parts = weights.parts("W_enc", "b_gate" if kind is Gated else "b_enc", "W_dec", "b_dec", turned=["W_enc"])
    n = len(parts["W_dec"])
    parts["activation"] = _activation(kind, weights, config, path, n)
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
    return made(
        folder,
        **parts,
        meta=meta,
        features=_density(folder / SPARSITY, n),
        apply_b_dec_to_input=setting(config, "apply_b_dec_to_input", bool, path, True) and not transcoder,
        input_norm=norm,
        transcoder=transcoder,
    )


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
        **plain.activation.tensors,
    }
    if plain.W_skip is not None:
        tensors["W_skip"] = plain.W_skip
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
    if isinstance(plain.activation, TopK | AbsTopK):
        config |= {"k": int(plain.activation.k), "rescale_acts_by_decoder_norm": False}
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


def _activation(kind: type[Activation], weights: Weights, config: dict[str, Any], path: Path, n: int) -> Activation:
    if kind is Gated:
        return Gated(weights.take("r_mag", 1), weights.take("b_mag", 1))
    if kind is JumpRelu:
        log = "log_threshold" in weights
        threshold = weights.take("log_threshold" if log else "threshold", 1)
        return JumpRelu(threshold.exp() if log else threshold)
    if kind is BatchTopK:
        return BatchTopK(torch.full((n,), weights.number("topk_threshold")), config.get("k"))
    if kind is Relu:
        return Relu()
    k = setting(config, "k", int, path)
    return TopK(k) if kind is TopK else AbsTopK(k)


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
    check_ranking(found.activation, "SAELens")
    # A trained BatchTopK is a JumpReLU.
    kind = JumpRelu if isinstance(found.activation, JumpRelu) else type(found.activation)
    skips = found.W_skip is not None
    if skips and not found.transcoder:
        raise NotExpressible("in SAELens only transcoders have a skip connection")
    known = _TRANSCODERS if found.transcoder else _KINDS
    names = [name for name, own in known.items() if own is kind and ("skip" in name) == skips]
    if not names and found.transcoder:
        raise NotExpressible(f"SAELens has no {found.activation.name} transcoder: relu and jumprelu only")
    if not names:
        raise NotExpressible(f"SAELens has no architecture for the activation {found.activation.name}")
    return names[0]
