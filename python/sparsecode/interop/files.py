"""Shared by all readers of other libraries' files: configurations and named tensors, with helpful errors."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from sparsecode.dictionary import Activation, Dictionary, TopK
from sparsecode.errors import DictionaryInvalid, NotExpressible, SparsecodeError

_JSON_BYTES = 64 << 20  # configurations are kilobytes; a larger file is something else
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")
}
T = TypeVar("T")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DictionaryInvalid: there is none.
    """
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise DictionaryInvalid(f"{path}: larger than any configuration ({path.stat().st_size} bytes); not read")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file; copy the whole folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DictionaryInvalid(f"{path}: not a readable JSON file; copy it again") from error
    if not isinstance(value, dict):
        raise DictionaryInvalid(f"{path}: not a JSON object; is this a configuration?")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, as it is stored.

    Raises:
        DictionaryInvalid: the file is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise DictionaryInvalid(f"{path}: missing or not a whole safetensors file; copy it again") from error


class Weights:
    """Named tensors of a file, taken one by one in float32; it knows which were never taken.

    Args:
        path: the file, for messages.
        tensors: by name.
        dtype: the type the library rounds them to when it loads them, such as "bfloat16"; None to leave them unchanged.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Any], dtype: str | None = None) -> None:
        self.path = path
        self._tensors = dict(tensors)
        self._dtype = dtype_of(dtype, path)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def dimensions(self, name: str) -> int | None:
        """Number of dimensions of a tensor; None if there is no tensor of that name."""
        value = self._tensors.get(name)
        return value.ndim if isinstance(value, Tensor) else None

    def take(self, name: str, ndim: int) -> Tensor:
        """A tensor of `ndim` dimensions, float32.

        Raises:
            DictionaryInvalid: it is missing, or of another shape.
        """
        value = self._tensors.pop(name, None)
        if not isinstance(value, Tensor):
            raise DictionaryInvalid(f"{self.path}: no tensor {name}; is the file whole, and of this library?")
        if value.ndim != ndim or not (value.is_floating_point() or ndim == 0):
            raise DictionaryInvalid(f"{self.path}: {name} is {value.dtype} {list(value.shape)}, not {ndim}-dimensional")
        if self._dtype is not None:
            value = value.to(self._dtype)
        return value.float().contiguous()

    def take_if(self, name: str, ndim: int) -> Tensor | None:
        """A tensor as `take` returns it, or None if there is none."""
        return self.take(name, ndim) if name in self else None

    def parts(
        self, W_enc: str, b_enc: str, W_dec: str, b_dec: str | None, turned: Collection[str] = ()
    ) -> dict[str, Any]:
        """The tensors of a dictionary by the file's names for them; those in `turned` are stored transposed there."""
        found: dict[str, Any] = {}
        for ours, theirs in {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}.items():
            value = None if theirs is None else self.take(theirs, 2 if ours in ("W_enc", "W_dec") else 1)
            found[ours] = value.T.contiguous() if value is not None and ours in turned else value
        return found

    def number(self, name: str) -> float:
        """A tensor of one number, or a number."""
        value = self._tensors.pop(name, None)
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value.item())
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise DictionaryInvalid(f"{self.path}: no number {name}; is the file whole, and of this library?")

    def drop(self, names: Iterable[str]) -> None:
        """Discards tensors that do not affect what the dictionary does."""
        for name in names:
            self._tensors.pop(name, None)

    def done(self) -> None:
        """Checks that no tensor is left: one that is not understood may change what the dictionary does.

        Raises:
            DictionaryInvalid: one is left.
        """
        if self._tensors:
            left = ", ".join(sorted(self._tensors))
            raise DictionaryInvalid(f"{self.path}: holds {left}, which this format is not known to have")


def dtype_of(name: str | None, path: Path) -> torch.dtype | None:
    """The dtype that a configuration names: `bfloat16`, `torch.float32`.

    Raises:
        DictionaryInvalid: it names none.
    """
    if name is None:
        return None
    found = _DTYPES.get(str(name).removeprefix("torch."))
    if found is None:
        raise DictionaryInvalid(f"{path}: dtype {name!r} is none of {', '.join(_DTYPES)}")
    return found


def setting(config: Mapping[str, Any], name: str, kind: type[T], path: Path, default: T | None = None) -> T:
    """A value of a configuration, checked for its type.

    Raises:
        DictionaryInvalid: it is missing and has no default, or is of another type.
    """
    value = config.get(name, default)
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not right:
        raise DictionaryInvalid(f"{path}: {name} is {value!r}, not {kind.__name__}; is this configuration whole?")
    return cast(T, value)


def same_length(path: Path, **tensors: Tensor) -> None:
    """Checks that tensors have one entry per feature each, before anything is computed from two of them.

    Raises:
        DictionaryInvalid: they have different numbers of entries.
    """
    if len({len(value) for value in tensors.values()}) > 1:
        sizes = ", ".join(f"{name} {len(value)}" for name, value in tensors.items())
        raise DictionaryInvalid(f"{path}: different numbers of features: {sizes}; is the file whole?")


def about(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Entries of a configuration under the names used here; missing ones are left out."""
    return {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs) is not None}


def made(where: Path, **parts: Any) -> Dictionary:
    """The dictionary of these parts; raises DictionaryInvalid with `where` in front if they do not fit each other."""
    try:
        return Dictionary(**parts)
    except DictionaryInvalid as error:
        raise DictionaryInvalid(f"{where}: {error}") from error


def check_ranking(activation: Activation, library: str) -> None:
    """Raises NotExpressible for a topk that ranks codes after a scale of their own, which the library does not."""
    if isinstance(activation, TopK) and activation.selection_scale is not None:
        raise NotExpressible(f"{library} ranks topk by the codes themselves, not after a scale of their own")


def named(error: SparsecodeError, path: Path) -> SparsecodeError:
    """A failure with the file's name in front."""
    return type(error)(f"{path}: {error}", remedy=error.remedy)
