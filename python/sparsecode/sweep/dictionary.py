"""One dictionary: weights, the nonlinearity between them, and the normalisation of the data they were trained on.

Shape letters: d activation dimension, n features, o output dimension (d but for transcoders).
Its pair of files is described and written in `dictionary_files`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.errors import DictionaryInvalid, InvalidArgument, ZeroAtom
from sparsecode.sweep import activations, dictionary_files
from sparsecode.sweep.activations import ACTIVATIONS

INPUT_NORMS = ("none", "layer_norm", "constant_norm_rescale")
# What is added to a row's size before it divides, not when it is undone: as OpenAI's sparse_autoencoder and SAELens do.
_NORM_EPS = {"layer_norm": 1e-5, "constant_norm_rescale": 0.0}


@dataclass(eq=False, repr=False)
class Dictionary:
    """Encodes activations into codes and back.

        u = input_norm((x - mean) / scale)
        codes = act((u - b_dec) W_enc^T + b_enc)                 u alone without `apply_b_dec_to_input`
        x_hat = undo_input_norm(codes W_dec + b_dec) * scale + mean

    A transcoder writes other activations than it reads: its output is `codes W_dec + b_dec`, and no normalisation is
    undone. `W_skip` adds `(x - mean) / scale W_skip^T` to the output (for an autoencoder before scale and mean).

    Attributes:
        W_enc: [n, d] float32.
        b_enc: [n]; of a gated dictionary the bias that decides what fires.
        W_dec: [n, o], atoms.
        b_dec: [o] pre-bias, or None.
        mean: [d] subtracted from raw activations, or None.
        scale: what they are then divided by.
        meta: what the JSON file holds beside sizes and normalisation: l1, seed, hook_point, dataset_fingerprint, loss,
            samples_seen, metrics; `source` where another library wrote it.
        features: per-feature facts [n] float32, such as `density` (share of the held-out rows on which a feature
            fires) and `initial_cosine` (of each atom with the one it started from).
        activation: name of the nonlinearity, of `activations.ACTIVATIONS`.
        k: for the topk family, how many features fire (batchtopk: on average); for groupmax, the number of groups.
        threshold: [n] for jumprelu and batchtopk.
        selection_scale: [n] by which topk ranks, or None.
        r_mag, b_mag: [n] for gated: logarithm of the gain, and bias, of what a firing feature gives.
        W_skip: [o, d] or None.
        apply_b_dec_to_input: whether b_dec is subtracted from the input.
        input_norm: "none", "layer_norm" or "constant_norm_rescale" (to norm sqrt(d)): done to each row by itself.
        transcoder: whether it writes other activations than it reads.

    Raises:
        DictionaryInvalid: shapes that contradict each other, values that are not finite, an unknown activation.
        ZeroAtom: an atom of norm zero in a dictionary that was trained here, where atoms have norm 1.
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
    k: float | None = None
    threshold: Tensor | None = None
    selection_scale: Tensor | None = None
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None
    W_skip: Tensor | None = None
    apply_b_dec_to_input: bool = True
    input_norm: str = "none"
    transcoder: bool = False

    def __post_init__(self) -> None:
        _check(self, "dictionary")

    def __repr__(self) -> str:
        told = "".join(f", {name} {self.meta[name]}" for name in ("l1", "seed") if self.meta.get(name) is not None)
        return f"Dictionary({self.dict_size} features of {self.activation_dim} dimensions, {self.activation}{told})"

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
    def normalization(self) -> dict[str, Any]:
        """What is done to raw activations: `kind` (none, rms, center), `mean` (list or None) and `scale`."""
        kind = "center" if self.mean is not None else "none" if self.scale == 1 else "rms"
        return {"kind": kind, "mean": None if self.mean is None else self.mean.tolist(), "scale": self.scale}

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
        projected = x @ self.W_enc.T
        if self.activation == "gated":
            assert self.r_mag is not None
            assert self.b_mag is not None
            return activations.gated(projected, self.b_enc, self.r_mag, self.b_mag)
        return self._activate(projected + self.b_enc)

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
        moved = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            moved[item.name] = value.to(device) if isinstance(value, Tensor) else value
        moved["features"] = {name: value.to(device) for name, value in self.features.items()}
        return Dictionary(**moved | {"meta": dict(self.meta)})

    def save(self, path: str | Path) -> None:
        """Writes PATH.safetensors, then PATH.json; each appears whole or not at all."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        dictionary_files.save(fields, self.normalization, path)

    @classmethod
    def load(cls, path: str | Path) -> Dictionary:
        """Reads a pair by its path, with or without one of the two suffixes.

        Raises:
            DictionaryInvalid: a file is missing or broken, or the two contradict each other.
            ZeroAtom: an atom has no direction.
        """
        return dictionary_files.load(cls, path)

    def _activate(self, pre: Tensor) -> Tensor:
        if self.activation == "relu":
            return pre.relu()
        if self.threshold is not None:
            return activations.jumprelu(pre, self.threshold)
        assert self.k is not None
        if self.activation == "topk":
            return activations.topk(pre, int(self.k), self.selection_scale)
        plain = {"topk_linear": activations.topk_linear, "abstopk": activations.abstopk}
        return plain.get(self.activation, activations.groupmax)(pre, int(self.k))

    def _row_norm(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `input_norm` takes from each row, and the size [..., 1] that it then makes 1."""
        if self.input_norm == "layer_norm":
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return x.new_zeros(()), x.norm(dim=-1, keepdim=True) / math.sqrt(self.activation_dim)


def _check(found: Dictionary, where: str) -> None:
    if found.W_dec.ndim != 2 or 0 in found.W_dec.shape:
        raise DictionaryInvalid(f"{where}: W_dec has shape {list(found.W_dec.shape)}, not [features, dimensions]")
    n, o = found.W_dec.shape
    d = found.W_enc.shape[-1] if found.transcoder and found.W_enc.ndim == 2 else o
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "W_enc": (found.W_enc, (n, d)),
        "b_enc": (found.b_enc, (n,)),
        "W_dec": (found.W_dec, (n, o)),
        "b_dec": (found.b_dec, (o,)),
        "mean": (found.mean, (d,)),
        "threshold": (found.threshold, (n,)),
        "selection_scale": (found.selection_scale, (n,)),
        "r_mag": (found.r_mag, (n,)),
        "b_mag": (found.b_mag, (n,)),
        "W_skip": (found.W_skip, (o, d)),
    }
    for name, (value, shape) in expected.items():
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise DictionaryInvalid(f"{where}: {name} has shape {list(value.shape)}, not {list(shape)}")
        if not bool(torch.isfinite(value).all()):
            raise DictionaryInvalid(f"{where}: {name} holds NaN or infinities", remedy="diverged")
    for name, value in found.features.items():
        if tuple(value.shape) != (n,):
            raise DictionaryInvalid(f"{where}: features.{name} has shape {list(value.shape)}, not [{n}]")
    if not (math.isfinite(found.scale) and found.scale > 0):
        raise DictionaryInvalid(f"{where}: scale {found.scale} is not a positive number")
    _check_activation(found, where, n)
    zero = (found.W_dec.abs().amax(1) == 0).nonzero()
    if len(zero) and "source" not in found.meta:
        raise ZeroAtom(f"{where}: atom {int(zero[0])} is zero and has no direction ({len(zero)} such)")


def _check_activation(found: Dictionary, where: str, n: int) -> None:
    if found.activation not in ACTIVATIONS:
        raise DictionaryInvalid(f"{where}: activation '{found.activation}' is unknown; known: {', '.join(ACTIVATIONS)}")
    if found.input_norm not in INPUT_NORMS:
        raise DictionaryInvalid(f"{where}: input_norm '{found.input_norm}' is unknown; known: {', '.join(INPUT_NORMS)}")
    needed, possible = ACTIVATIONS[found.activation]
    for name in ("k", "threshold", "selection_scale", "r_mag", "b_mag"):
        given = getattr(found, name) is not None
        if given != (name in needed) and name not in possible:
            verb = "has no use for" if given else "needs"
            raise DictionaryInvalid(f"{where}: activation '{found.activation}' {verb} {name}")
    given_k: Any = found.k  # from a file, it may be anything
    if given_k is not None and not isinstance(given_k, Real):
        raise DictionaryInvalid(f"{where}: k is {given_k!r}, not a number of features")
    k = found.k
    whole = "threshold" not in needed  # batchtopk's k is an average
    if k is not None and not (0 < k <= n and (not whole or k == int(k))):
        raise DictionaryInvalid(f"{where}: k is {k}, not a {'whole ' if whole else ''}number from 1 to {n} features")
    if found.activation == "groupmax" and k is not None and n % int(k):
        raise DictionaryInvalid(f"{where}: {n} features do not make {int(k)} groups of the same size")
    if found.transcoder and found.b_dec is not None and found.apply_b_dec_to_input:
        raise DictionaryInvalid(f"{where}: a transcoder cannot subtract b_dec, which belongs to its output")
