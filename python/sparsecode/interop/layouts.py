"""How to recognise published dictionaries by the names of files, tensors and settings, without heavy imports.

`formats` uses this to choose the reader for a path, `unread` to describe files that no reader takes.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from sparsecode.errors import DictionaryInvalid

GEMMA_ARRAYS = {"W_enc", "W_dec", "threshold"}  # identify Gemma Scope's .npz file under another name
GEMMA_TENSORS = {"w_enc", "w_dec", "threshold"}
LLAMA_CONFIG = "hyperparams.json"
# In the order in which lm-saes looks for them.
LLAMA_WEIGHTS = ("sae_weights.safetensors", "checkpoints/pruned.safetensors", "checkpoints/final.safetensors")
SET_CONFIG, SET_LAYER = "config.yaml", re.compile(r"layer_(\d{1,6})\.safetensors")
_SMALL = 1 << 20  # largest JSON file or header to read: configurations are kilobytes


def is_layer(path: Path) -> bool:
    """Whether a file is one layer of circuit-tracer's transcoder sets, by its name and the files beside it."""
    return SET_LAYER.fullmatch(path.name) is not None and path.is_file() and (path.parent / SET_CONFIG).is_file()


def is_llama_scope(folder: Path) -> bool:
    """Whether a folder is one of Llama Scope's SAEs."""
    return (folder / LLAMA_CONFIG).is_file() and any((folder / name).is_file() for name in LLAMA_WEIGHTS)


def is_gemma_scope_2(folder: Path) -> bool:
    """Whether a folder is one of Gemma Scope 2's dictionaries; its configuration may be missing."""
    weights = folder / "params.safetensors"
    return weights.is_file() and (
        "hf_hook_point_in" in keys(folder / "config.json") or tensor_names(weights) >= GEMMA_TENSORS
    )


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key for names with numbers: layer_2 before layer_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() and len(part) < 19 else (1, part) for part in parts]


def keys(path: Path) -> set[str]:
    """Names in a JSON object; none if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig")) if path.stat().st_size < _SMALL else None
    except (OSError, ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, from its header alone; none if it cannot be read."""
    try:
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length <= _SMALL else None
    except (OSError, ValueError, RecursionError):
        return set()
    return {name for name in header if name != "__metadata__"} if isinstance(header, dict) else set()


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a `.npz` file, from its table of contents alone; none if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(part.removesuffix(".npy") for part in archive.namelist() if part.endswith(".npy"))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def read_yaml(path: Path) -> dict[str, str | list[str]]:
    """The top-level names of a YAML file with their values as text or lists of text, without nested values.

    The configurations that are read here need no more of YAML, so no package is required.

    Raises:
        DictionaryInvalid: it cannot be read, or is not text.
    """
    try:
        if path.stat().st_size > _SMALL:
            raise DictionaryInvalid(f"{path}: larger than any configuration ({path.stat().st_size} bytes); not read")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DictionaryInvalid(f"{path}: no such file; copy the whole folder") from error
    except (OSError, ValueError) as error:
        raise DictionaryInvalid(f"{path}: not a readable YAML file; copy it again") from error
    found: dict[str, str | list[str]] = {}
    last = ""
    for line in lines:
        item = re.match(r"\s*-\s+(.*)", line)
        named = re.match(r"([A-Za-z_][\w.-]*)\s*:(?:\s+(.*))?$", line)
        if item and last:
            held = found[last]
            found[last] = [*(held if isinstance(held, list) else []), _plain(item[1])]
        elif named:
            last = named[1]
            found[last] = _plain(named[2] or "")
    return found


def _plain(value: str) -> str:
    """A YAML scalar without quotes and comment."""
    value = value.strip()
    quoted = re.match(r"""(["'])(.*?)\1""", value)
    return quoted[2] if quoted else re.sub(r"(^|\s)#.*", "", value).strip()
