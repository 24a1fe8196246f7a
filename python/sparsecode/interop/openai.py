"""openai/sparse_autoencoder: one .pt file, a state_dict with the name and settings of its activation.

Read only; tested against commit 4965b94 of the repository. TopK means that each row is layer-normalised first.
"""

from __future__ import annotations

from pathlib import Path

from sparsecode.dictionary import Dictionary, TopK, TopKLinear
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, made
from sparsecode.interop.state_dict import read_state_dict

MARKS = {"pre_bias", "latent_bias", "encoder.weight"}  # tensors that identify such a state dict


def read(file: Path) -> Dictionary:
    """The autoencoder in a .pt file.

    Raises:
        PickleRefused: the file holds more than tensors, numbers and strings.
        DictionaryInvalid: something is missing or does not fit.
        NotExpressible: its activation is neither ReLU nor TopK.
    """
    held = dict(read_state_dict(file))
    name = held.pop("activation", "ReLU")
    settings = held.pop("activation_state_dict", {})
    weights = Weights(file, held)
    frequency = weights.take_if("latents_activation_frequency", 1)
    weights.drop(["stats_last_nonzero", "latents_mean_square", "activation.k", "activation.postact_fn"])
    if "decoder.linear.weight" in weights:
        raise NotExpressible(f"{file}: encoder and decoder are tied, which the library itself cannot load; untie them")
    parts = weights.parts("encoder.weight", "latent_bias", "decoder.weight", "pre_bias", turned=["W_dec"])
    weights.done()
    if name == "TopK":
        after = settings.get("postact_fn", "ReLU") if isinstance(settings, dict) else None
        if after not in ("ReLU", "Identity"):
            raise NotExpressible(f"{file}: after TopK comes {after!r}, which is neither ReLU nor Identity")
        k = settings.get("k")
        if not isinstance(k, int):
            raise DictionaryInvalid(f"{file}: activation_state_dict has k {k!r}, not a number of features")
        parts |= {"activation": TopK(k) if after == "ReLU" else TopKLinear(k), "input_norm": "layer_norm"}
    elif name != "ReLU":
        raise NotExpressible(f"{file}: activation {name!r} is none of ReLU and TopK")
    source = {"format": "openai", "activation": name, "activation_state_dict": settings}
    fits = frequency is not None and bool(((frequency >= 0) & (frequency <= 1)).all())
    return made(file, **parts, meta={"source": source}, features={"density": frequency} if fits else {})
