"""One dictionary: weights, the normalisation of the data they were trained on, and a pair of files.

Shape letters: d activation dimension, n features.

    NAME.safetensors   W_enc [n,d], b_enc [n], W_dec [n,d], optional b_dec [d]; `features.*` [n]: facts per feature
    NAME.json          sizes, activation, l1, seed, normalisation, loss convention, metrics: everything else
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode import machine
from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.errors import CheckpointCorrupt, DictionaryInvalid, InvalidArgument, ZeroAtom

FORMAT = 1
ACTIVATIONS = {"relu": torch.relu}
_SUFFIXES = (".safetensors", ".json")
_OWN_KEYS = ("format", "sparsecode_version", "dict_size", "activation_dim", "activation", "normalization")
_PREFIX = "features."


@dataclass(eq=False)
class Dictionary:
    """Encodes activations into codes and back.

        codes = act(((x - mean) / scale - b_dec) W_enc^T + b_enc)
        x_hat = (codes W_dec + b_dec) * scale + mean

    Attributes:
        W_enc: [n, d] float32.
        b_enc: [n].
        W_dec: [n, d], atoms.
        b_dec: [d] pre-bias, or None.
        mean: [d] subtracted from raw activations, or None.
        scale: what they are then divided by.
        meta: what the JSON file holds beside sizes and normalisation: l1, seed, hook_point, dataset_fingerprint, loss,
            samples_seen, metrics.
        features: per-feature facts [n] float32, such as `density` (share of the held-out rows on which a feature
            fires) and `initial_cosine` (of each atom with the one it started from).
        activation: name of the nonlinearity.

    Raises:
        DictionaryInvalid: shapes that contradict each other, values that are not finite, an unknown activation.
        ZeroAtom: an atom of norm zero.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor | None = None
    mean: Tensor | None = None
    scale: float = 1.0
    meta: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    activation: str = "relu"

    def __post_init__(self) -> None:
        _check(self, "dictionary")

    @property
    def dict_size(self) -> int:
        """n, the number of features."""
        return int(self.W_dec.shape[0])

    @property
    def activation_dim(self) -> int:
        """d, the width of the activations."""
        return int(self.W_dec.shape[1])

    @property
    def normalization(self) -> dict[str, Any]:
        """What is done to raw activations: `kind` (none, rms, center), `mean` (list or None) and `scale`."""
        kind = "center" if self.mean is not None else "none" if self.scale == 1 else "rms"
        return {"kind": kind, "mean": None if self.mean is None else self.mean.tolist(), "scale": self.scale}

    def normalize(self, x: Tensor) -> Tensor:
        """Raw activations [..., d] as the weights expect them, float32."""
        if x.shape[-1:] != (self.activation_dim,):
            raise InvalidArgument(f"activations of shape {tuple(x.shape)}: the last must be {self.activation_dim}")
        x = x.to(self.W_enc.dtype)
        x = x - self.mean if self.mean is not None else x
        return x / self.scale

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes [..., n] of raw activations [..., d]."""
        x = self.normalize(x)
        x = x - self.b_dec if self.b_dec is not None else x
        return ACTIVATIONS[self.activation](x @ self.W_enc.T + self.b_enc)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Raw activations [..., d] from codes [..., n]."""
        if z.shape[-1:] != (self.dict_size,):
            raise InvalidArgument(f"codes of shape {tuple(z.shape)}: the last must be {self.dict_size}")
        x = z.to(self.W_dec.dtype) @ self.W_dec
        x = x + self.b_dec if self.b_dec is not None else x
        x = x * self.scale
        return x + self.mean if self.mean is not None else x

    def to(self, device: str | torch.device) -> Dictionary:
        """The same dictionary on another device."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return Dictionary(
            self.W_enc.to(device),
            self.b_enc.to(device),
            self.W_dec.to(device),
            move(self.b_dec),
            move(self.mean),
            self.scale,
            dict(self.meta),
            {name: value.to(device) for name, value in self.features.items()},
            self.activation,
        )

    def save(self, path: str | Path) -> None:
        """Writes PATH.safetensors, then PATH.json; each appears whole or not at all."""
        weights, description = _pair(path)
        tensors = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec}
        if self.b_dec is not None:
            tensors["b_dec"] = self.b_dec
        tensors |= {_PREFIX + name: values for name, values in self.features.items()}
        save_tensors(weights, {name: value.clone() for name, value in tensors.items()})
        write_json(
            description,
            {
                "format": FORMAT,
                "sparsecode_version": machine.versions().get("sparsecode"),
                "dict_size": self.dict_size,
                "activation_dim": self.activation_dim,
                "activation": self.activation,
                "normalization": self.normalization,
            }
            | {key: value for key, value in self.meta.items() if key not in _OWN_KEYS},
        )

    @classmethod
    def load(cls, path: str | Path) -> Dictionary:
        """Reads a pair by its path, with or without one of the two suffixes.

        Raises:
            DictionaryInvalid: a file is missing or broken, or the two contradict each other.
            ZeroAtom: an atom has no direction.
        """
        weights, description = _pair(path)
        about = _read_json(description)
        try:
            tensors, _ = load_tensors(weights)
        except CheckpointCorrupt as error:
            raise DictionaryInvalid(f"{weights}: missing or not a safetensors file; train or copy it again") from error
        missing = {"W_enc", "b_enc", "W_dec"} - tensors.keys()
        if missing:
            raise DictionaryInvalid(f"{weights}: no tensor {', '.join(sorted(missing))}; is this a dictionary?")
        mean, scale = _read_normalization(about, description)
        facts = {name[len(_PREFIX) :]: value for name, value in tensors.items() if name.startswith(_PREFIX)}
        try:
            found = cls(
                W_enc=tensors["W_enc"].float(),
                b_enc=tensors["b_enc"].float(),
                W_dec=tensors["W_dec"].float(),
                b_dec=tensors["b_dec"].float() if "b_dec" in tensors else None,
                mean=mean,
                scale=scale,
                meta={key: value for key, value in about.items() if key not in _OWN_KEYS},
                features=facts,
                activation=str(about.get("activation", "relu")),
            )
        except DictionaryInvalid as error:
            raise type(error)(f"{weights}: {error}") from error
        for key in ("dict_size", "activation_dim"):
            if about.get(key) != getattr(found, key):
                raise DictionaryInvalid(
                    f"{description}: {key} is {about.get(key)!r}, but the weights have {getattr(found, key)}; "
                    "the two files do not belong together"
                )
        return found


def _pair(path: str | Path) -> tuple[Path, Path]:
    path = Path(path)
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return path.with_name(name + ".safetensors"), path.with_name(name + ".json")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file; a dictionary is a .safetensors and a .json file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DictionaryInvalid(f"{path}: not a readable JSON file; train or copy it again") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise DictionaryInvalid(f"{path}: not the description of a dictionary (no 'format')")
    if about["format"] != FORMAT:
        raise DictionaryInvalid(f"{path}: dictionary format {about['format']} is not {FORMAT}; update sparsecode")
    return about


def _read_normalization(about: Mapping[str, Any], path: Path) -> tuple[Tensor | None, float]:
    try:
        record = about["normalization"]
        mean = None if record["mean"] is None else torch.tensor([float(value) for value in record["mean"]])
        return mean, float(record["scale"])
    except (KeyError, TypeError, ValueError) as error:
        raise DictionaryInvalid(f"{path}: 'normalization' needs a mean (list or null) and a scale") from error


def _check(found: Dictionary, where: str) -> None:
    if found.W_dec.ndim != 2 or 0 in found.W_dec.shape:
        raise DictionaryInvalid(f"{where}: W_dec has shape {list(found.W_dec.shape)}, not [features, dimensions]")
    n, d = found.W_dec.shape
    expected = {"W_enc": (found.W_enc, (n, d)), "b_enc": (found.b_enc, (n,)), "W_dec": (found.W_dec, (n, d))}
    if found.b_dec is not None:
        expected["b_dec"] = (found.b_dec, (d,))
    if found.mean is not None:
        expected["mean"] = (found.mean, (d,))
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            raise DictionaryInvalid(f"{where}: {name} has shape {list(value.shape)}, not {list(shape)}")
        if not bool(torch.isfinite(value).all()):
            raise DictionaryInvalid(f"{where}: {name} holds NaN or infinities; its training diverged, lower --lr")
    for name, value in found.features.items():
        if tuple(value.shape) != (n,):
            raise DictionaryInvalid(f"{where}: features.{name} has shape {list(value.shape)}, not [{n}]")
    if not (math.isfinite(found.scale) and found.scale > 0):
        raise DictionaryInvalid(f"{where}: scale {found.scale} is not a positive number")
    if found.activation not in ACTIVATIONS:
        raise DictionaryInvalid(f"{where}: activation '{found.activation}' is unknown; known: {', '.join(ACTIVATIONS)}")
    zero = (found.W_dec.abs().amax(1) == 0).nonzero()
    if len(zero):
        raise ZeroAtom(f"{where}: atom {int(zero[0])} is zero and has no direction ({len(zero)} such)")
