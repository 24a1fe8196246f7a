"""The pair of files of a dictionary; no other module knows how it is named and what is in it. Loads no torch by itself.

    NAME.safetensors   W_enc [n,d], b_enc [n], W_dec [n,o], optional b_dec [o]; `features.*` [n]: facts per feature
    NAME.json          sizes, activation, l1, seed, normalisation, loss convention, metrics: everything else

Format 1 holds what the sweeps here train: relu, d = o, b_dec (if any) subtracted from the input. A dictionary that
needs more is written as format 2: the tensors threshold, selection_scale, r_mag, b_mag [n] and W_skip [o,d] as far as
its activation has them, and in the JSON `output_dim, k, apply_b_dec_to_input, input_norm, transcoder`, and the scale of
the normalisation may be a list, of several layers side by side. Both are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sparsecode import machine
from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.errors import CheckpointCorrupt, DictionaryInvalid

if TYPE_CHECKING:
    from torch import Tensor

D = TypeVar("D")

FORMATS = (1, 2)
SUFFIXES = (".safetensors", ".json")
FIRST = ("dict_size", "activation_dim", "activation", "normalization")  # of the JSON of both formats
SECOND = ("output_dim", "k", "apply_b_dec_to_input", "input_norm", "transcoder")  # of format 2's
_OWN_KEYS = ("format", "sparsecode_version", *FIRST, *SECOND)
_WEIGHTS = ("W_enc", "b_enc", "W_dec")
_PREFIX = "features."


def files_of(name: Path) -> tuple[Path, Path]:
    """The two files of the dictionary with that common name: weights, then description."""
    weights, description = (name.with_name(name.name + suffix) for suffix in SUFFIXES)
    return weights, description


def common_name(path: Path) -> Path:
    """The common name of the two files that a path names: by one of them, or itself."""
    if path.name in ("", ".."):
        path = path.resolve()
    return path.with_name(path.name.removesuffix(path.suffix)) if path.suffix in SUFFIXES else path


def whole(name: Path) -> bool:
    """Whether both files with that common name are there."""
    return bool(name.name) and all(file.is_file() for file in files_of(name))


def names_in(folder: Path) -> list[Path]:
    """The common names of all pairs in a folder."""
    names = [file.with_suffix("") for file in sorted(folder.glob("*.safetensors"))]
    return [name for name in names if whole(name)]


def save(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    features: Mapping[str, Tensor],
    about: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> None:
    """Writes PATH.safetensors, then PATH.json; each appears whole or not at all.

    Args:
        path: with or without one of the two suffixes.
        tensors: all of a dictionary's by name.
        features: facts per feature [n] by name.
        about: values of `FIRST` and `SECOND`.
        meta: everything else for the JSON file.
    """
    weights, description = _pair(path)
    facts = {_PREFIX + name: values for name, values in features.items()}
    save_tensors(weights, {name: value.clone() for name, value in (dict(tensors) | facts).items()})
    second = _needs_format_2(tensors, about)
    record = {"format": 2 if second else 1, "sparsecode_version": machine.versions().get("sparsecode")}
    record |= {key: about[key] for key in (*FIRST, *(SECOND if second else ()))}
    write_json(description, record | {key: value for key, value in meta.items() if key not in _OWN_KEYS})


def load(make: Callable[..., D], path: str | Path) -> D:
    """Reads a pair by its path, with or without one of the two suffixes; `make` is the class. See `Dictionary.load`."""
    from sparsecode.dictionary.activations import VALUES, from_file

    weights, description = _pair(path)
    about = read_description(description)
    try:
        tensors, _ = load_tensors(weights)
    except CheckpointCorrupt as error:
        raise DictionaryInvalid(f"{weights}: missing or not a safetensors file; train or copy it again") from error
    missing = set(_WEIGHTS) - tensors.keys()
    if missing:
        raise DictionaryInvalid(f"{weights}: no tensor {', '.join(sorted(missing))}; is this a dictionary?")
    normalization, settings = _read_normalization(about, description), _read_settings(about, description)
    held = {name: tensors[name].float() for name in (*_WEIGHTS, "b_dec", "W_skip", *VALUES) if name in tensors}
    own: dict[str, Any] = {name: held.pop(name) for name in VALUES if name in held}
    try:
        found = make(
            **held,
            **normalization,
            meta={key: value for key, value in about.items() if key not in _OWN_KEYS},
            features={name[len(_PREFIX) :]: value for name, value in tensors.items() if name.startswith(_PREFIX)},
            activation=from_file(str(about.get("activation", "relu")), own | {"k": settings.pop("k", None)}),
            **settings,
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


def _pair(path: str | Path) -> tuple[Path, Path]:
    name = common_name(Path(path))
    if not name.name:
        raise DictionaryInvalid(f"{path}: the root of all folders is no dictionary; name a .safetensors or .json file")
    return files_of(name)


def _needs_format_2(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bool:
    """Whether a reader that knows format 1 alone would read something else."""
    plain = about["activation"] == "relu" and about["input_norm"] == "none" and "W_skip" not in tensors
    plain = plain and not isinstance(about["normalization"]["scale"], list)
    return not plain or about["transcoder"] or ("b_dec" in tensors and not about["apply_b_dec_to_input"])


def _read_normalization(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    import torch

    try:
        record = about["normalization"]
        mean = None if record["mean"] is None else torch.tensor([float(value) for value in record["mean"]])
        scale = record["scale"]
        several = torch.tensor([float(value) for value in scale]) if isinstance(scale, list) else None
        return {"mean": mean, "scale": float(scale) if several is None else several}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DictionaryInvalid(f"{path}: 'normalization' needs a mean (list or null) and a scale (or list)") from error


def _read_settings(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if about["format"] == 1:
        return {}
    kinds = {"k": int | float | None, "apply_b_dec_to_input": bool, "input_norm": str, "transcoder": bool}
    for name, kind in kinds.items():
        if name not in about or not isinstance(about[name], kind):
            raise DictionaryInvalid(f"{path}: '{name}' is {about.get(name)!r}, which format 2 does not allow")
    return {name: about[name] for name in kinds}
