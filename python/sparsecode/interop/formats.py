"""Recognises which library wrote the files at a path; reads and writes dictionaries by format name.

sparsecode            NAME.safetensors + NAME.json
saelens               folder of cfg.json + sae_weights.safetensors
sparsify              folder of cfg.json + sae.safetensors
dictionary_learning   folder of config.json + ae.pt, or a .pt file of its class's tensors
openai                a .pt file with pre_bias and latent_bias
llamascopium          folder of config.json (with sae_type) + sae_weights.safetensors
gemma_scope           folder of params.npz, or of params.safetensors (+ config.json), or a .npz file of such arrays
llama_scope           folder of hyperparams.json + checkpoints/final.safetensors
circuit_tracer        a file layer_L.safetensors with config.yaml beside it
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecode.dictionary.files import SUFFIXES, common_name, files_of, whole
from sparsecode.errors import InvalidSetting, NotRecognised
from sparsecode.interop.layouts import (
    GEMMA_ARRAYS,
    LLAMA_WEIGHTS,
    SET_CONFIG,
    array_names,
    is_gemma_scope_2,
    is_layer,
    is_llama_scope,
    keys,
    natural,
)
from sparsecode.interop.unread import looks_like

if TYPE_CHECKING:
    from sparsecode.dictionary import Dictionary

OWN = "sparsecode"
TARGETS = (OWN, "saelens", "dictionary_learning", "sparsify")  # formats that can be written
_PARTS = {
    "cfg.json", "config.json", "hyperparams.json", "sae_weights.safetensors", "sae.safetensors", "sparsity.safetensors",
    "ae.pt", "params.npz", "params.safetensors",
}  # fmt: skip
# Below a folder: RUN/trainer_i, RUN/checkpoints/STEP/HOOKPOINT, REPOSITORY/layer_L/width_W/average_l0_K; and the
# repositories in a folder of the hub's cache: models--X/snapshots/REVISION/...
_DEPTH = 6
_FOLDERS = 20_000  # folders searched before giving up: more than any collection has, fewer than a disk


@dataclass(frozen=True)
class Found:
    """A dictionary on disk: its format, and the path to give to its reader."""

    format: str
    path: Path

    @property
    def home(self) -> Path:
        """Its folder, or its file without the suffix; names its copy below another folder."""
        if self.path.name == "ae.pt":
            return self.path.parent
        single = self.format in ("circuit_tracer", "gemma_scope") and self.path.suffix in (".safetensors", ".npz")
        return self.path.with_suffix("") if single and self.path.is_file() else self.path

    @property
    def files(self) -> list[Path]:
        """Its file, or the files of its folder."""
        if not self.path.is_dir():
            return [self.path]
        below = [self.path / name for name in LLAMA_WEIGHTS if "/" in name] if is_llama_scope(self.path) else []
        return [file for file in (*sorted(self.path.iterdir()), *below) if file.is_file()]

    @property
    def name(self) -> str:
        """Its name beside others: that of its file or folder."""
        return self.home.name.removesuffix(".pt")


def find_format(path: str | Path) -> Found | None:
    """The dictionary that a path names, or None; looks at names and at small JSON files, and reads no weights.

    A path is a folder, one of the files in it, or (for this project's pairs) the common name of two files.
    """
    path = _with_a_name(Path(path))
    own = common_name(path)
    if whole(own) and path.name not in _PARTS and files_of(own)[0].name not in _PARTS:
        return Found(OWN, own)
    if path.suffix == ".pt" and path.name != "ae.pt":
        return Found(_kind_of_pt(path), path) if path.is_file() else None
    if is_layer(path):
        return Found("circuit_tracer", path)
    if path.suffix == ".npz" and path.name not in _PARTS:
        return Found("gemma_scope", path) if set(array_names(path)) >= GEMMA_ARRAYS else None
    folder = path.parent if path.name in _PARTS and path.is_file() else path
    # Llama Scope's weights are one folder below its configuration.
    if f"{path.parent.name}/{path.name}" in LLAMA_WEIGHTS and is_llama_scope(path.parent.parent):
        folder = path.parent.parent
    if (folder / "cfg.json").is_file():
        if (folder / "sae_weights.safetensors").is_file():
            return Found("saelens", folder)
        if (folder / "sae.safetensors").is_file():
            return Found("sparsify", folder)
    if (folder / "ae.pt").is_file():
        return Found("dictionary_learning", folder / "ae.pt")
    if is_llama_scope(folder):
        return Found("llama_scope", folder)
    if (folder / "sae_weights.safetensors").is_file():
        said = keys(folder / "config.json")
        return Found("llamascopium", folder) if "sae_type" in said or {"hook_point_in", "act_fn"} <= said else None
    if (folder / "params.npz").is_file() or is_gemma_scope_2(folder):
        return Found("gemma_scope", folder)
    return None


def find_dictionaries(path: str | Path) -> list[Found]:
    """Every dictionary at a path: the one it names, or all in a folder and its subfolders, by name.

    Folders without permission to read are skipped.

    Raises:
        OSError: there are only such folders.
    """
    path = Path(path)
    if path.name == SET_CONFIG and path.is_file():
        path = path.parent  # names the set
    single = find_format(path)
    if single is not None or not path.is_dir():
        return [single] if single is not None else []
    found: list[Found] = []
    closed: list[OSError] = []
    left = _FOLDERS

    def collect(folder: Path, depth: int) -> None:
        nonlocal left
        left -= 1
        try:
            entries = sorted(folder.iterdir(), key=natural) if left >= 0 else []
        except OSError as error:
            closed.append(error)
            return
        for entry in entries:
            if entry.is_dir():
                if entry.name.startswith("."):
                    continue
                inside = find_format(entry)
                if inside is not None:
                    found.append(inside)
                elif depth > 1:
                    collect(entry, depth - 1)
            elif entry.suffix == ".json" and "dict_size" in keys(entry) and (pair := find_format(entry)) is not None:
                found.append(pair)
            elif is_layer(entry):
                found.append(Found("circuit_tracer", entry))
            elif entry.suffix == ".npz" and (arrays := find_format(entry)) is not None:
                found.append(arrays)

    collect(path, _DEPTH)
    if closed and not found:
        raise closed[0]
    return found


def load_dictionary(path: str | Path) -> Dictionary:
    """The dictionary at a path, whichever library wrote it.

    Raises:
        NotRecognised: there is none, or several.
        DictionaryInvalid, PickleRefused, ZeroAtom: its files are broken, or hold what they must not.
        NotExpressible: it encodes in a way that `Dictionary` cannot.
    """
    found = find_format(path)
    if found is None:
        path = Path(path)
        if path.suffix in SUFFIXES and path.is_file() and path.name not in _PARTS and looks_like(path) is None:
            found = Found(OWN, path)  # its other half is missing, which its reader reports
        else:
            raise not_recognised(path)
    return load_found(found)


def load_found(found: Found) -> Dictionary:
    """The dictionary that `find_format` found; see `load_dictionary`."""
    from sparsecode.dictionary import Dictionary

    read: Callable[[Path], Dictionary] = Dictionary.load if found.format == OWN else _library(found.format).read
    return read(found.path)


def save_dictionary(found: Dictionary, path: str | Path, to: str) -> None:
    """Writes a dictionary in one of `TARGETS`: a pair of files for sparsecode, a folder for the others.

    Raises:
        NotExpressible: the format cannot express what the dictionary does; nothing was written.
        InvalidSetting: no such format.
        OutOfSpace, IoFailed: the operating system refused.
    """
    if to not in TARGETS:
        raise InvalidSetting(f"cannot write {to!r}; formats: {', '.join(TARGETS)}")
    if to == OWN:
        found.save(path)
    else:
        _library(to).write(found, Path(path))


def not_recognised(path: Path) -> NotRecognised:
    """The error for a path without a dictionary, with what it looks like and what to do next."""
    if not path.exists():
        return NotRecognised(f"{path}: no such file or folder; name a dictionary of any of these: {', '.join(_KNOWN)}")
    inside = find_dictionaries(path)
    if inside:
        names = ", ".join(str(one.path) for one in inside[:3]) + (", ..." if len(inside) > 3 else "")
        return NotRecognised(f"{path}: holds {len(inside)} dictionaries; name one of them: {names}")
    files = sorted(file.name for file in path.glob("*.pt")) if path.is_dir() else []
    if files:  # any program may write .pt files, so none is opened unasked
        return NotRecognised(f"{path}: no dictionary is a folder like this; name a .pt file in it: {', '.join(files)}")
    seen = looks_like(path)
    if seen is not None:
        return NotRecognised(f"{path}: {seen}")
    return NotRecognised(f"{path}: no dictionary of any of these: {', '.join(_KNOWN)}")


_KNOWN = (
    "sparsecode", "SAELens", "sparsify", "dictionary_learning", "openai/sparse_autoencoder", "Llamascopium",
    "Gemma Scope", "Llama Scope", "circuit-tracer",
)  # fmt: skip


def _with_a_name(path: Path) -> Path:
    """An equivalent path that ends in a name, which `.` and `..` do not."""
    return path.resolve() if path.name in ("", "..") else path


def _library(name: str) -> Any:
    """The module of a format's name, which reads it and, if it is one of `TARGETS`, writes it."""
    return importlib.import_module(f"sparsecode.interop.{name}")


def _kind_of_pt(path: Path) -> str:
    from sparsecode.interop.openai import MARKS
    from sparsecode.interop.state_dict import mentions

    return "openai" if mentions(path, MARKS) else "dictionary_learning"
