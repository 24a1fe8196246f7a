"""Finds the dictionaries that paths name: the only code that knows what a path may be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsecode.checkpoint import load_tensors
from sparsecode.errors import (
    CheckpointCorrupt,
    DictionaryInvalid,
    InvalidSetting,
    NotRecognised,
    SparsecodeError,
)
from sparsecode.interop import Found, find_dictionaries, looks_like, not_recognised
from sparsecode.machine import usable_memory

STABILITY = "stability"  # what `compare` adds to a dictionary's files; not part of its fingerprint
_COPIES = 1.5  # copies of the weights: as read, and the atoms as unit rows
_SUFFIXES = (".safetensors", ".json")


@dataclass(frozen=True)
class LeftOut:
    """A path that could not be used, and why."""

    path: Path
    error: SparsecodeError


def places(paths: Iterable[str | Path], left_out: list[LeftOut] | None = None) -> list[Found]:
    """What is at each path: a folder stands for all dictionaries that are in it.

    Raises:
        NotRecognised, PickleRefused: there is no dictionary; added to `left_out` instead where that is given.
    """
    found: list[Found] = []
    for path in map(Path, paths):
        try:
            found += _dictionaries(path)
        except (NotRecognised, DictionaryInvalid) as error:
            if left_out is None:
                raise
            left_out.append(LeftOut(path, error))
    return found


def bytes_of(path: Path) -> int:
    """Size of a dictionary's weights on disk: its file, or the files of its folder."""
    weights, _ = _pair(path)
    files = [weights] if weights.is_file() else list(path.iterdir()) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_memory(command: str, found: Iterable[Path], more: int = 0) -> None:
    """Refuses a comparison that cannot fit: atoms and encoders of all dictionaries are in memory, and `more` bytes.

    Raises:
        InvalidSetting: it needs more memory than is available.
    """
    paths = list(found)
    need, there = int(_COPIES * sum(map(bytes_of, paths))) + more, usable_memory()
    if there is not None and need > there:
        raise InvalidSetting(
            f"{command}: {len(paths)} dictionaries need about {need / 1e9:,.1f} GB of memory; this machine has "
            f"{there / 1e9:,.1f}; take fewer of them at a time"
        )


def _dictionaries(path: Path) -> list[Found]:
    found = find_dictionaries(path)
    if not found and (path.is_dir() or looks_like(path) is not None):
        raise not_recognised(path)
    stem = path.with_suffix("") if path.suffix in _SUFFIXES else path
    return found or [Found("sparsecode", stem)]  # its reader names the missing file


def _pair(stem: Path) -> tuple[Path, Path]:
    weights, description = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    return weights, description


def fingerprint(path: Path) -> str:
    """Digest of a dictionary's two files without the stability scores that a comparison stored in them.

    For a dictionary of another library, a digest of its file or the files of its folder. A missing or broken file is no
    error here; loading it reports the fault.
    """
    digest = hashlib.sha256(path.name.encode())
    weights, description = _pair(path)
    if not weights.is_file():
        for file in _files(path):
            with file.open("rb") as opened:
                digest.update(json.dumps([file.name, hashlib.file_digest(opened, "sha256").hexdigest()]).encode())
        return digest.hexdigest()[:16]
    try:
        tensors, _ = load_tensors(weights)
    except CheckpointCorrupt:
        digest.update(weights.read_bytes())
    else:
        for name in sorted(tensors.keys() - {f"features.{STABILITY}"}):
            value = tensors[name].contiguous()
            digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps(_description(description), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    """The files of a dictionary of another library: one file, or those of its folder."""
    found = Found("", path).files
    return [file for file in found if file.is_file()]


def _description(path: Path) -> Any:
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return {key: value for key, value in about.items() if key != STABILITY} if isinstance(about, Mapping) else about


def fingerprint_of(paths: Iterable[Path]) -> str:
    """Digest of several dictionaries, without the stability scores that a comparison stores in their files."""
    return hashlib.sha256("".join(map(fingerprint, paths)).encode()).hexdigest()[:16]
