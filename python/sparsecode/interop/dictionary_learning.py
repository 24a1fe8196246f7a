"""dictionary_learning: a folder `trainer_i` of ae.pt, a bare state_dict, and config.json.

Written for and tested against dictionary-learning 0.1.0. config.json names the class that the tensors belong to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import write_json
from sparsecode.dictionary import Activation, BatchTopK, Dictionary, Gated, JumpRelu, Relu, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, about, check_ranking, made, read_json
from sparsecode.interop.fold import folded
from sparsecode.interop.state_dict import read_state_dict, write_state_dict

CONFIG, WEIGHTS = "config.json", "ae.pt"
_NAMES = {
    "submodule_name": "hook_point", "lm_name": "model", "l1_penalty": "l1", "seed": "seed", "layer": "layer",
    "steps": "steps",
}  # fmt: skip
# What is b_dec in the classes made of torch.nn.Linear.
_BIASES = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
_TRAINERS = {
    "AutoEncoder": "StandardTrainer",
    "AutoEncoderNew": "StandardTrainerAprilUpdate",
    "GatedAutoEncoder": "GatedSAETrainer",
    "JumpReluAutoEncoder": "JumpReluTrainer",
    "AutoEncoderTopK": "TopKTrainer",
    "BatchTopKSAE": "BatchTopKTrainer",
    "MatryoshkaBatchTopKSAE": "MatryoshkaBatchTopKTrainer",
}


def read(file: Path) -> Dictionary:
    """The dictionary of a state dict and the configuration beside it (or beside its folder of checkpoints).

    `AutoEncoder.from_pretrained` scales atoms to norm 1 unless told otherwise; here the weights are unchanged.

    Raises:
        PickleRefused: the .pt file holds more than tensors.
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
    """
    held = read_state_dict(file)
    config, path = _config(file)
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    name = trainer.get("dict_class") or _class_of(held, file)
    if not isinstance(name, str) or name not in _TRAINERS:
        raise DictionaryInvalid(f"{path or file}: dict_class {name!r} is unknown; known: {', '.join(_TRAINERS)}")
    weights = Weights(file, held)
    parts = _linear(weights, name) if "encoder.weight" in weights else _plain(weights)
    meta: dict[str, Any] = about(trainer, _NAMES)
    if "TopK" in name:
        parts["activation"] = _top_k(weights, name, trainer, path or file, len(parts["W_dec"]))
    if name == "JumpReluAutoEncoder":
        parts["activation"] = JumpRelu(weights.take("threshold", 1))
    if name == "MatryoshkaBatchTopKSAE":
        sizes = held.get("group_sizes")
        meta["group_sizes"] = sizes.tolist() if isinstance(sizes, Tensor) else None
        weights.drop(["group_sizes"])
    weights.done()
    meta["source"] = {"format": "dictionary_learning", "dict_class": name, "config": config}
    own = config.get("sparsecode")
    return made(file, **parts, meta=dict(own) if isinstance(own, dict) else meta)


def write(found: Dictionary, folder: Path) -> None:
    """A folder that the library's `load_dictionary` reads.

    Raises:
        NotExpressible: the library has no class for it.
    """
    name = _class_for(found)
    subtract = name not in ("AutoEncoderNew", "JumpReluAutoEncoder")
    plain = folded(found, subtract=subtract)
    b_dec = torch.zeros(plain.output_dim) if plain.b_dec is None else plain.b_dec
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        tensors = {"W_enc": plain.W_enc.T, "b_enc": plain.b_enc, "W_dec": plain.W_dec, "b_dec": b_dec}
    else:
        tensors = {"encoder.weight": plain.W_enc, "decoder.weight": plain.W_dec.T, _BIASES.get(name, "b_dec"): b_dec}
        tensors["gate_bias" if name == "GatedAutoEncoder" else "encoder.bias"] = plain.b_enc
    activation, k = plain.activation, plain.activation.settings["k"]
    if isinstance(activation, Gated):
        tensors |= {"r_mag": activation.r_mag, "mag_bias": activation.b_mag}
    elif "TopK" in name and k is not None:
        threshold = activation.threshold[0].clone() if isinstance(activation, BatchTopK) else torch.tensor(-1.0)
        tensors |= {"k": torch.tensor(int(k), dtype=torch.int32), "threshold": threshold}
    elif isinstance(activation, JumpRelu):
        tensors["threshold"] = activation.threshold
    if name == "MatryoshkaBatchTopKSAE":
        tensors["group_sizes"] = torch.tensor(plain.meta["group_sizes"])
    meta = plain.meta
    trainer = {
        "dict_class": name,
        "trainer_class": _TRAINERS[name],
        "activation_dim": plain.activation_dim,
        "dict_size": plain.dict_size,
        **({"k": int(k)} if k is not None and "TopK" in name else {"l1_penalty": meta.get("l1")}),
        "lr": meta.get("lr"),
        "steps": meta.get("steps"),
        "seed": meta.get("seed"),
        "device": "cpu",
        "layer": meta.get("layer"),
        "lm_name": meta.get("model"),
        "wandb_name": name,
        "submodule_name": meta.get("hook_point"),
    }
    write_state_dict(folder / WEIGHTS, tensors)
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"ctx_len": meta.get("context")}, "sparsecode": meta})


def _linear(weights: Weights, name: str) -> dict[str, Any]:
    """Classes made of torch.nn.Linear, whose decoder is transposed."""
    gated = name == "GatedAutoEncoder"
    b_enc, b_dec = "gate_bias" if gated else "encoder.bias", _BIASES.get(name, "b_dec")
    parts = weights.parts("encoder.weight", b_enc, "decoder.weight", b_dec, turned=["W_dec"])
    if gated:
        return parts | {"activation": Gated(weights.take("r_mag", 1), weights.take("mag_bias", 1))}
    return parts | {"apply_b_dec_to_input": name != "AutoEncoderNew"}


def _plain(weights: Weights) -> dict[str, Any]:
    """JumpReluAutoEncoder and MatryoshkaBatchTopKSAE: bare parameters, with the encoder transposed."""
    parts = weights.parts("W_enc", "b_enc", "W_dec", "b_dec", turned=["W_enc"])
    return parts | {"apply_b_dec_to_input": "k" in weights}


def _top_k(weights: Weights, name: str, trainer: dict[str, Any], path: Path, n: int) -> Activation:
    k: Any = weights.number("k") if "k" in weights else trainer.get("k")
    if isinstance(k, float):
        if not k.is_integer():
            raise DictionaryInvalid(f"{weights.path}: k is {k}, not a number of features")
        k = int(k)
    if trainer.get("k") not in (None, k):
        raise DictionaryInvalid(f"{path}: k is {trainer['k']}, but {k} in the weights; are both of the same training?")
    threshold = weights.number("threshold") if "threshold" in weights else -1.0
    return TopK(k) if name == "AutoEncoderTopK" else BatchTopK(torch.full((n,), threshold), k)


def _config(file: Path) -> tuple[dict[str, Any], Path | None]:
    """config.json beside the weights, or one folder up, since checkpoints have a folder of their own."""
    for path in (file.parent / CONFIG, file.parent.parent / CONFIG):
        if path.is_file():
            config = read_json(path)
            if "trainer" in config:
                return config, path
    return {}, None


def _class_of(held: dict[str, Any], file: Path) -> str:
    """The class that has these tensors, for weights without a configuration."""
    if "encoder.weight" in held and "k" in held:
        raise DictionaryInvalid(
            f"{file}: its tensors are the same in AutoEncoderTopK and BatchTopKSAE; put its config.json beside it"
        )
    marks = {
        "decoder.bias": "AutoEncoderNew", "decoder_bias": "GatedAutoEncoder", "bias": "AutoEncoder",
        "group_sizes": "MatryoshkaBatchTopKSAE", "threshold": "JumpReluAutoEncoder",
    }  # fmt: skip
    found = next((name for mark, name in marks.items() if mark in held), None)
    if found is None:
        names = ", ".join(sorted(held)[:8]) or "no tensors"
        raise DictionaryInvalid(f"{file}: holds {names}: no class of dictionary_learning; is it an optimizer's state?")
    return found


def _class_for(found: Dictionary) -> str:
    if found.transcoder or found.W_skip is not None:
        raise NotExpressible("dictionary_learning has no transcoders and no skip connections")
    if found.input_norm != "none":
        raise NotExpressible(f"dictionary_learning cannot normalise each row ({found.input_norm})")
    activation = found.activation
    check_ranking(activation, "dictionary_learning")
    if isinstance(activation, Relu):
        # The library scales an AutoEncoder's atoms and codes to norm 1 when it loads it, but not an AutoEncoderNew's.
        unit = torch.allclose((found.W_dec * found.scale).norm(dim=1), torch.ones(found.dict_size))
        return "AutoEncoder" if unit and found.b_dec is not None and found.apply_b_dec_to_input else "AutoEncoderNew"
    if isinstance(activation, BatchTopK) and activation.k is not None and activation.k == int(activation.k):
        one = bool((activation.threshold == activation.threshold[0]).all())
        several = "MatryoshkaBatchTopKSAE" if found.meta.get("group_sizes") else "BatchTopKSAE"
        return several if one else "JumpReluAutoEncoder"
    for kind, name in ((JumpRelu, "JumpReluAutoEncoder"), (Gated, "GatedAutoEncoder"), (TopK, "AutoEncoderTopK")):
        if isinstance(activation, kind):
            return name
    raise NotExpressible(f"dictionary_learning has no class for the activation {activation.name}")
