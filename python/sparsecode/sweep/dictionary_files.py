"""The pair of files of a dictionary.

    NAME.safetensors   W_enc [n,d], b_enc [n], W_dec [n,o], optional b_dec [o]; `features.*` [n]: facts per feature
    NAME.json          sizes, activation, l1, seed, normalisation, loss convention, metrics: everything else

Format 1 holds what the sweeps here train: relu, d = o, b_dec (if any) subtracted from the input. A dictionary that
needs more is written as format 2: the tensors threshold, selection_scale, r_mag, b_mag [n] and W_skip [o,d] as far as
its activation has them, and in the JSON `output_dim, k, apply_b_dec_to_input, input_norm, transcoder`. Both are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparsecode import machine
from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.errors import CheckpointCorrupt, DictionaryInvalid

D = TypeVar("D")

FORMATS = (1, 2)
_SUFFIXES = (".safetensors", ".json")
_SETTINGS = ("output_dim", "k", "apply_b_dec_to_input", "input_norm", "transcoder")  # of format 2
_OWN_KEYS = (
    "format", "sparsecode_version", "dict_size", "activation_dim", "activation", "normalization", *_SETTINGS,
)  # fmt: skip
_WEIGHTS = ("W_enc", "b_enc", "W_dec")
_OPTIONAL = ("b_dec", "threshold", "selection_scale", "r_mag", "b_mag", "W_skip")
_PREFIX = "features."


def save(fields: Mapping[str, Any], normalization: Mapping[str, Any], path: str | Path) -> None:
    """Writes PATH.safetensors, then PATH.json; each appears whole or not at all.

    Args:
        fields: of a `Dictionary`, by name.
        normalization: what is done to raw activations: kind, mean and scale.
        path: with or without one of the two suffixes.
    """
    weights, description = pair(path)
    tensors = {name: fields[name] for name in (*_WEIGHTS, *_OPTIONAL) if fields[name] is not None}
    tensors |= {_PREFIX + name: values for name, values in fields["features"].items()}
    save_tensors(weights, {name: value.clone() for name, value in tensors.items()})
    dict_size, output_dim = map(int, fields["W_dec"].shape)
    second = needs_format_2(fields)
    record = {
        "format": 2 if second else 1,
        "sparsecode_version": machine.versions().get("sparsecode"),
        "dict_size": dict_size,
        "activation_dim": int(fields["W_enc"].shape[1]),
        "activation": fields["activation"],
        "normalization": dict(normalization),
    }
    if second:
        record |= {"output_dim": output_dim} | {name: fields[name] for name in _SETTINGS[1:]}
    write_json(description, record | {key: value for key, value in fields["meta"].items() if key not in _OWN_KEYS})


def needs_format_2(fields: Mapping[str, Any]) -> bool:
    """Whether a reader that knows format 1 alone would read something else."""
    plain = fields["activation"] == "relu" and fields["input_norm"] == "none" and fields["W_skip"] is None
    other = fields["b_dec"] is not None and not fields["apply_b_dec_to_input"]
    return not plain or fields["transcoder"] or other


def load(make: Callable[..., D], path: str | Path) -> D:
    """Reads a pair by its path, with or without one of the two suffixes; `make` is the class. See `Dictionary.load`."""
    weights, description = pair(path)
    about = read_description(description)
    try:
        tensors, _ = load_tensors(weights)
    except CheckpointCorrupt as error:
        raise DictionaryInvalid(f"{weights}: missing or not a safetensors file; train or copy it again") from error
    missing = set(_WEIGHTS) - tensors.keys()
    if missing:
        raise DictionaryInvalid(f"{weights}: no tensor {', '.join(sorted(missing))}; is this a dictionary?")
    mean, scale = _read_normalization(about, description)
    optional: dict[str, Any] = {name: tensors[name].float() for name in _OPTIONAL if name in tensors}
    facts = {name[len(_PREFIX) :]: value for name, value in tensors.items() if name.startswith(_PREFIX)}
    try:
        found = make(
            W_enc=tensors["W_enc"].float(),
            b_enc=tensors["b_enc"].float(),
            W_dec=tensors["W_dec"].float(),
            **optional,
            mean=mean,
            scale=scale,
            meta={key: value for key, value in about.items() if key not in _OWN_KEYS},
            features=facts,
            activation=str(about.get("activation", "relu")),
            **_read_settings(about, description),
        )
    except DictionaryInvalid as error:
        raise type(error)(f"{weights}: {error}", remedy=error.remedy) from error
    for key in ("dict_size", "activation_dim", *(("output_dim",) if about["format"] > 1 else ())):
        if about.get(key) != getattr(found, key):
            raise DictionaryInvalid(
                f"{description}: {key} is {about.get(key)!r}, but the weights have {getattr(found, key)}; "
                "the two files do not belong together"
            )
    return found


def pair(path: str | Path) -> tuple[Path, Path]:
    """The two files of the dictionary that a path names, by one of them or by their common name.

    Raises:
        DictionaryInvalid: a path without a name.
    """
    path = Path(path)
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise DictionaryInvalid(f"{path}: the root of all folders is no dictionary; name a .safetensors or .json file")
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return path.with_name(name + ".safetensors"), path.with_name(name + ".json")


def read_description(path: Path) -> Mapping[str, Any]:
    """What the JSON file of a pair says.

    Raises:
        DictionaryInvalid: it is missing or broken, not of a dictionary, or of a format that is not known here.
    """
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file; a dictionary is a .safetensors and a .json file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DictionaryInvalid(f"{path}: not a readable JSON file; train or copy it again") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise DictionaryInvalid(f"{path}: not the description of a dictionary (no 'format')")
    if about["format"] not in FORMATS:
        raise DictionaryInvalid(f"{path}: dictionary format {about['format']} is not {FORMATS[-1]}; update sparsecode")
    return about


def _read_normalization(about: Mapping[str, Any], path: Path) -> tuple[Tensor | None, float]:
    try:
        record = about["normalization"]
        mean = None if record["mean"] is None else torch.tensor([float(value) for value in record["mean"]])
        return mean, float(record["scale"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DictionaryInvalid(f"{path}: 'normalization' needs a mean (list or null) and a scale") from error


def _read_settings(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if about["format"] == 1:
        return {}
    kinds = {"k": int | float | None, "apply_b_dec_to_input": bool, "input_norm": str, "transcoder": bool}
    for name, kind in kinds.items():
        if name not in about or not isinstance(about[name], kind):
            raise DictionaryInvalid(f"{path}: '{name}' is {about.get(name)!r}, which format 2 does not allow")
    return {name: about[name] for name in kinds}
