"""sparsify (EleutherAI): a folder RUN/HOOKPOINT of cfg.json and sae.safetensors.

Written for and tested against eai-sparsify 1.3.3. All its coders are topk of ReLU'd codes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sparsecode.checkpoint import save_tensors, write_json
from sparsecode.dictionary import AbsTopK, Dictionary, GroupMax, Relu, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible
from sparsecode.interop.files import Weights, check_ranking, made, read_json, read_tensors, setting
from sparsecode.interop.fold import folded

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_KINDS = {"topk": TopK, "groupmax": GroupMax}
ABOUT = "sparsecode.json"  # holds what cfg.json cannot: sparsify rejects names that it does not know


def read(folder: Path) -> Dictionary:
    """The sparse coder in a folder.

    Raises:
        DictionaryInvalid: a file is missing or broken, or does not fit its configuration.
    """
    path = folder / CONFIG
    config = read_json(path)
    weights = Weights(folder / WEIGHTS, read_tensors(folder / WEIGHTS))
    parts = weights.parts("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    d = setting(config, "d_in", int, path)
    n = setting(config, "num_latents", int, path, 0) or d * setting(config, "expansion_factor", int, path, 32)
    if (shape := list(parts["W_enc"].shape)) != [n, d]:
        raise DictionaryInvalid(f"{path}: says {n} latents of {d} dimensions, but the weights are {shape}")
    activation = setting(config, "activation", str, path, "topk")
    if activation not in _KINDS:
        raise DictionaryInvalid(f"{path}: activation {activation!r} is unknown; known: {', '.join(_KINDS)}")
    # Before version 1 some took the largest by magnitude, with sign.
    kind = AbsTopK if config.get("signed") else _KINDS[activation]
    transcode = setting(config, "transcode", bool, path, False)
    if setting(config, "skip_connection", bool, path, False):
        parts["W_skip"] = weights.take("W_skip", 2)
    weights.done()
    meta = {"hook_point": folder.resolve().name, "source": {"format": "sparsify", "config": config}}
    return made(
        folder,
        **parts,
        meta=read_json(folder / ABOUT) if (folder / ABOUT).is_file() else meta,
        activation=kind(setting(config, "k", int, path, 32)),
        apply_b_dec_to_input=not transcode,
        transcoder=transcode,
    )


def write(found: Dictionary, folder: Path) -> None:
    """Writes a folder for `SparseCoder.load_from_disk`; relu becomes topk of all features, which is equivalent.

    Raises:
        NotExpressible: sparsify has no configuration for it.
    """
    activation = found.activation
    if not isinstance(activation, Relu | TopK | GroupMax):
        raise NotExpressible(f"sparsify has topk and groupmax only, not {activation.name}")
    check_ranking(activation, "sparsify")
    if found.input_norm != "none":
        raise NotExpressible(f"sparsify cannot normalise each row ({found.input_norm})")
    if found.output_dim != found.activation_dim:
        raise NotExpressible(
            f"a transcoder of sparsify writes as many dimensions as it reads, not {found.activation_dim} to "
            f"{found.output_dim}"
        )
    plain = folded(found, subtract=not found.transcoder)
    tensors = {
        "encoder.weight": plain.W_enc,
        "encoder.bias": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": torch.zeros(plain.output_dim) if plain.b_dec is None else plain.b_dec,
    }
    if plain.W_skip is not None:
        tensors["W_skip"] = plain.W_skip
    norms = plain.W_dec.norm(dim=1)
    save_tensors(folder / WEIGHTS, tensors)
    write_json(folder / ABOUT, plain.meta)
    write_json(
        folder / CONFIG,
        {
            "activation": "groupmax" if isinstance(activation, GroupMax) else "topk",
            "expansion_factor": max(1, plain.dict_size // plain.activation_dim),
            "normalize_decoder": bool(torch.allclose(norms, torch.ones_like(norms))),
            "num_latents": plain.dict_size,
            "k": plain.dict_size if isinstance(activation, Relu) else int(activation.k),
            "multi_topk": False,
            "skip_connection": plain.W_skip is not None,
            "transcode": plain.transcoder,
            "d_in": plain.activation_dim,
        },
    )
