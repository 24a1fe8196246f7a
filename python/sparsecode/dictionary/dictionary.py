"""One dictionary: weights, the nonlinearity between them, and the normalisation of the data they were trained on.

Shape letters: d activation dimension, n features, o output dimension (d but for transcoders).
The nonlinearities are in `activations`, and its pair of files is described and written in `files`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.dictionary import files
from sparsecode.dictionary.activations import ACTIVATIONS, Activation, Relu, check_tensor
from sparsecode.errors import DictionaryInvalid, InvalidArgument, ZeroAtom

INPUT_NORMS = ("none", "layer_norm", "constant_norm_rescale")
# What is added to a row's size before it divides, not when it is undone: as OpenAI's sparse_autoencoder and SAELens do.
_NORM_EPS = {"layer_norm": 1e-5, "constant_norm_rescale": 0.0}


@dataclass(eq=False, repr=False)
class Dictionary:
    """Encodes activations into codes and back.

        u = input_norm((x - mean) / scale)
        codes = activation((u - b_dec) W_enc^T + b_enc)          u alone without `apply_b_dec_to_input`
        x_hat = undo_input_norm(codes W_dec + b_dec) * scale + mean

    A transcoder writes other activations than it reads: its output is `codes W_dec + b_dec`, and no normalisation is
    undone. `W_skip` adds `(x - mean) / scale W_skip^T` to the output (for an autoencoder before scale and mean).

    Attributes:
        W_enc: [n, d] float32.
        b_enc: [n]; of a gated dictionary the bias that decides what fires.
        W_dec: [n, o], atoms.
        b_dec: [o] pre-bias, or None.
        mean: [d] subtracted from raw activations, or None.
        scale: what they are then divided by, one number or [d].
        meta: what the JSON file holds beside sizes and normalisation: l1, seed, hook_point, dataset_fingerprint, loss,
            samples_seen, metrics; `source` where another library wrote it.
        features: per-feature facts [n] float32, such as `density` (share of the held-out rows on which a feature
            fires) and `initial_cosine` (of each atom with the one it started from).
        activation: the nonlinearity, such as `TopK(32)`.
        W_skip: [o, d] or None.
        apply_b_dec_to_input: whether b_dec is subtracted from the input.
        input_norm: "none", "layer_norm" or "constant_norm_rescale" (to norm sqrt(d)): done to each row by itself.
        transcoder: whether it writes other activations than it reads.

    Raises:
        DictionaryInvalid: shapes that contradict each other, values that are not finite, no `Activation`.
        ZeroAtom: an atom of norm zero in a dictionary that was trained here, where atoms have norm 1.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor | None = None
    mean: Tensor | None = None
    scale: float | Tensor = 1.0
    meta: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    activation: Activation = field(default_factory=Relu)
    W_skip: Tensor | None = None
    apply_b_dec_to_input: bool = True
    input_norm: str = "none"
    transcoder: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        told = "".join(f", {name} {self.meta[name]}" for name in ("l1", "seed") if self.meta.get(name) is not None)
        told = f"{self.activation.name}{told}"
        return f"Dictionary({self.dict_size} features of {self.activation_dim} dimensions, {told})"

    @property
    def dict_size(self) -> int:
        """n, the number of features."""
        return int(self.W_dec.shape[0])

    @property
    def activation_dim(self) -> int:
        """d, the width of the activations that it reads."""
        return int(self.W_enc.shape[1])

    @property
    def output_dim(self) -> int:
        """o, the width of what it writes: d but for transcoders."""
        return int(self.W_dec.shape[1])

    @property
    def decode_needs_input(self) -> bool:
        """Whether `decode` must be given x: for a skip connection, or a normalisation of each row to undo."""
        return self.W_skip is not None or (self.input_norm != "none" and not self.transcoder)

    @property
    def normalized(self) -> bool:
        """Whether anything is done to raw activations before they are encoded."""
        return self.mean is not None or isinstance(self.scale, Tensor) or self.scale != 1

    @property
    def normalization(self) -> dict[str, Any]:
        """What is done to raw activations: `kind` (none, rms, center), `mean` (list or None), `scale` (or a list)."""
        kind = "center" if self.mean is not None else "rms" if self.normalized else "none"
        scale = self.scale.tolist() if isinstance(self.scale, Tensor) else self.scale
        return {"kind": kind, "mean": None if self.mean is None else self.mean.tolist(), "scale": scale}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their names in the file, those of the activation included."""
        held = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        held |= {**self.activation.tensors, "W_skip": self.W_skip}
        return {name: value for name, value in held.items() if value is not None}

    @property
    def about(self) -> dict[str, Any]:
        """Sizes and settings as the JSON file has them, the number that the activation has included."""
        return {
            "dict_size": self.dict_size,
            "activation_dim": self.activation_dim,
            "output_dim": self.output_dim,
            "activation": self.activation.name,
            **self.activation.settings,
            "apply_b_dec_to_input": self.apply_b_dec_to_input,
            "input_norm": self.input_norm,
            "transcoder": self.transcoder,
            "normalization": self.normalization,
        }

    def normalize(self, x: Tensor) -> Tensor:
        """Raw activations [..., d] less the mean, over the scale, float32."""
        if x.shape[-1:] != (self.activation_dim,):
            raise InvalidArgument(f"activations of shape {tuple(x.shape)}: the last must be {self.activation_dim}")
        x = x.to(self.W_enc.dtype)
        x = x - self.mean if self.mean is not None else x
        return x / self.scale

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes [..., n] of raw activations [..., d]."""
        x = self.normalize(x)
        if self.input_norm != "none":
            shift, size = self._row_norm(x)
            x = (x - shift) / (size + _NORM_EPS[self.input_norm])
        if self.b_dec is not None and self.apply_b_dec_to_input:
            x = x - self.b_dec
        return self.activation.encode(x @ self.W_enc.T, self.b_enc)

    @torch.no_grad()
    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Raw activations [..., o] from codes [..., n].

        Args:
            z: codes.
            x: the raw activations [..., d] they came from, where `decode_needs_input`.
        """
        if z.shape[-1:] != (self.dict_size,):
            raise InvalidArgument(f"codes of shape {tuple(z.shape)}: the last must be {self.dict_size}")
        out = z.to(self.W_dec.dtype) @ self.W_dec
        out = out + self.b_dec if self.b_dec is not None else out
        if self.decode_needs_input:
            if x is None:
                raise InvalidArgument("this dictionary's decode needs the activations too: decode(codes, x)")
            inputs = self.normalize(x)
            if self.input_norm != "none" and not self.transcoder:
                shift, size = self._row_norm(inputs)
                out = out * size + shift
            if self.W_skip is not None:
                out = out + inputs @ self.W_skip.T
        if self.transcoder:
            return out
        out = out * self.scale
        return out + self.mean if self.mean is not None else out

    def reconstruct(self, x: Tensor) -> Tensor:
        """`decode(encode(x), x)`: what is left of raw activations [..., d], or what a transcoder makes of them."""
        return self.decode(self.encode(x), x)

    def to(self, device: str | torch.device) -> Dictionary:
        """A copy of this dictionary on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        features = {name: value.to(device) for name, value in self.features.items()}
        activation = self.activation.to(device)
        return replace(self, **moved, features=features, activation=activation, meta=dict(self.meta))

    def save(self, path: str | Path) -> None:
        """Writes PATH.safetensors, then PATH.json; each appears whole or not at all."""
        files.save(path, self.tensors, self.features, self.about, self.meta)

    @classmethod
    def load(cls, path: str | Path) -> Dictionary:
        """Reads a pair by its path, with or without one of the two suffixes.

        Raises:
            DictionaryInvalid: a file is missing or broken, or the two contradict each other.
            ZeroAtom: an atom has no direction.
        """
        return files.load(cls, path)

    def _row_norm(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `input_norm` takes from each row, and the size [..., 1] that it then makes 1."""
        if self.input_norm == "layer_norm":
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return x.new_zeros(()), x.norm(dim=-1, keepdim=True) / math.sqrt(self.activation_dim)


def _check(found: Dictionary) -> None:
    if found.W_dec.ndim != 2 or 0 in found.W_dec.shape:
        raise DictionaryInvalid(f"W_dec has shape {list(found.W_dec.shape)}, not [features, dimensions]")
    n, o = found.W_dec.shape
    d = found.W_enc.shape[-1] if found.transcoder and found.W_enc.ndim == 2 else o
    expected: dict[str, tuple[int, ...]] = {
        "W_enc": (n, d), "b_enc": (n,), "W_dec": (n, o), "b_dec": (o,), "mean": (d,), "W_skip": (o, d),
    }  # fmt: skip
    for name, shape in expected.items():
        if (value := getattr(found, name)) is not None:
            check_tensor(name, value, shape)
    for name, value in found.features.items():
        if tuple(value.shape) != (n,):
            raise DictionaryInvalid(f"features.{name} has shape {list(value.shape)}, not [{n}]")
    if isinstance(found.scale, Tensor):
        check_tensor("scale", found.scale, (d,))
        if not bool((found.scale > 0).all()):
            raise DictionaryInvalid("scale holds numbers that are not positive")
    elif not (math.isfinite(found.scale) and found.scale > 0):
        raise DictionaryInvalid(f"scale {found.scale} is not a positive number")
    if found.input_norm not in INPUT_NORMS:
        raise DictionaryInvalid(f"input_norm '{found.input_norm}' is unknown; known: {', '.join(INPUT_NORMS)}")
    activation: Any = found.activation  # whatever a caller gave
    if not isinstance(activation, Activation):
        known = ", ".join(kind.__name__ for kind in ACTIVATIONS.values())
        raise DictionaryInvalid(f"activation {activation!r} is none of sparsecode.dictionary's: {known}")
    activation.check(n)
    if found.transcoder and found.b_dec is not None and found.apply_b_dec_to_input:
        raise DictionaryInvalid("a transcoder cannot subtract b_dec, which belongs to its output")
    zero = (found.W_dec.abs().amax(1) == 0).nonzero()
    if len(zero) and "source" not in found.meta:
        raise ZeroAtom(f"atom {int(zero[0])} is zero and has no direction ({len(zero)} such)")
