"""Reads and writes `.pt` files; no other module does.

They are zip files around a pickle, and a pickle can run code when it is read. PyTorch's reader with `weights_only=True`
builds tensors, numbers, strings and containers of these, and refuses everything else. Before it is used, the zip file
must be one that PyTorch writes: nothing is packed, so it cannot unpack to more than its size.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import write_atomic
from sparsecode.errors import DictionaryInvalid, PickleRefused

_PICKLE_BYTES = 16 << 20  # a state dict's pickle is a few kB; the tensors are separate
_VIEWS = 4  # tensors may share bytes (tied weights), but not without bound: a view can claim any shape


def read_state_dict(path: Path) -> dict[str, Any]:
    """The dict in a `.pt` file: tensors on the CPU, numbers, strings, and dicts of these, by name.

    Raises:
        PickleRefused: it holds anything else, or its parts do not match its size.
        DictionaryInvalid: it cannot be read, or is not a dict.
    """
    size = _check_archive(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DictionaryInvalid(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # PyTorch's unpickler raises UnpicklingError, RuntimeError, KeyError, ...
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise PickleRefused(
            f"{path}: not a file of tensors alone ({reason[0][:200]}); it was not run. Save its state_dict() again, or "
            "ask for it as safetensors"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise DictionaryInvalid(f"{path}: holds a {type(held).__name__}, not a state dict (names and tensors)")
    claimed = 0
    for name, value in _tensors(held):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise PickleRefused(f"{path}: {name} is not a plain tensor; it was not used")
        claimed += value.numel() * value.element_size()
    if claimed > _VIEWS * size:
        raise PickleRefused(f"{path}: claims {claimed} bytes of tensors in a file of {size}; it was not used")
    return held


def mentions(path: Path, names: Collection[str]) -> bool:
    """Whether a `.pt` file's pickle contains all these names; it is searched as bytes and not unpickled.

    Raises:
        PickleRefused, DictionaryInvalid: see `read_state_dict`.
    """
    _check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [archive.read(part) for part in archive.infolist() if part.filename.endswith(".pkl")]
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted
        raise PickleRefused(f"{path}: its pickle cannot be read ({error}); save its state_dict() again") from error
    return any(all(name.encode() in held for name in names) for held in pickles)


def write_state_dict(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a flat state dict in PyTorch's format, for libraries that read nothing else; completely or not at all."""
    plain = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    write_atomic(path, lambda tmp: torch.save(plain, tmp))


def _check_archive(path: Path) -> int:
    """Checks that the table of contents is one that PyTorch writes; returns the file's size."""
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file") from error
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise PickleRefused(
            f"{path}: not a .pt file of PyTorch 1.6 or later, or cut short; save its state_dict() again"
        ) from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
        raise PickleRefused(f"{path}: unpacks to more than its {size} bytes, which PyTorch never writes; not read")
    if any(part.filename.endswith(".pkl") and part.file_size > _PICKLE_BYTES for part in parts):
        raise PickleRefused(f"{path}: its pickle is larger than {_PICKLE_BYTES >> 20} MB beside the tensors; not read")
    return size


def _tensors(held: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a dict of dicts and lists, with its name; a repeated container is visited once."""
    waiting: list[tuple[str, Any]] = [("", held)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key}" if name else str(key), inner) for key, inner in items]
