"""Which library wrote what lies at a path, found by looking; reading and writing by that name.

sparsecode            NAME.safetensors + NAME.json
saelens               folder of cfg.json + sae_weights.safetensors
sparsify              folder of cfg.json + sae.safetensors
dictionary_learning   folder of config.json + ae.pt, or a .pt file of its class's tensors
openai                a .pt file with pre_bias and latent_bias
llamascopium          folder of config.json (with sae_type) + sae_weights.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecode.errors import InvalidSetting, NotRecognised

if TYPE_CHECKING:
    from sparsecode.sweep.dictionary import Dictionary

TARGETS = ("sparsecode", "saelens", "dictionary_learning", "sparsify")  # formats that can be written
_ENDINGS = (".safetensors", ".json")
_PARTS = {"cfg.json", "config.json", "sae_weights.safetensors", "sae.safetensors", "sparsity.safetensors", "ae.pt"}
_DEPTH = 3  # folders below one that is searched for dictionaries: RUN/trainer_i, RUN/checkpoints/STEP/HOOKPOINT


@dataclass(frozen=True)
class Found:
    """A dictionary on disk: its format, and the path that its reader takes."""

    format: str
    path: Path

    @property
    def name(self) -> str:
        """What to call it beside others: the name of its file or folder."""
        return self.path.parent.name if self.path.name == "ae.pt" else self.path.name.removesuffix(".pt")


def find_format(path: str | Path) -> Found | None:
    """The dictionary that a path names, or None; looks at names and at small JSON files, and reads no weights.

    A path is a folder, one of the files in it, or (for this project's pairs) the common name of two files.
    """
    path = Path(path)
    own = path.with_name(path.name.removesuffix(path.suffix)) if path.suffix in _ENDINGS else path
    if path.name not in _PARTS and _is_pair(own):
        return Found("sparsecode", own)
    if path.suffix == ".pt" and path.name != "ae.pt":
        return Found(_kind_of_pt(path), path) if path.is_file() else None
    folder = path.parent if path.name in _PARTS and path.is_file() else path
    if (folder / "cfg.json").is_file():
        if (folder / "sae_weights.safetensors").is_file():
            return Found("saelens", folder)
        if (folder / "sae.safetensors").is_file():
            return Found("sparsify", folder)
    if (folder / "ae.pt").is_file():
        return Found("dictionary_learning", folder / "ae.pt")
    if (folder / "sae_weights.safetensors").is_file() and "sae_type" in _keys(folder / "config.json"):
        return Found("llamascopium", folder)
    return None


def find_dictionaries(path: str | Path) -> list[Found]:
    """Every dictionary at a path: the one that it names, or all in a folder and the folders in it, by name."""
    path = Path(path)
    single = find_format(path)
    if single is not None or not path.is_dir():
        return [single] if single is not None else []
    found: list[Found] = []
    _collect(path, _DEPTH, found)
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
        if Path(path).suffix in _ENDINGS and Path(path).is_file() and Path(path).name not in _PARTS:
            found = Found("sparsecode", Path(path))  # its other half is missing: its reader says so
        else:
            raise not_recognised(Path(path))
    return load_found(found)


def load_found(found: Found) -> Dictionary:
    """The dictionary that `find_format` found; see `load_dictionary`."""
    from sparsecode.interop import dictionary_learning, llamascopium, openai, saelens, sparsify
    from sparsecode.sweep.dictionary import Dictionary

    readers: dict[str, Callable[[Path], Dictionary]] = {
        "sparsecode": Dictionary.load,
        "saelens": saelens.read,
        "sparsify": sparsify.read,
        "dictionary_learning": dictionary_learning.read,
        "openai": openai.read,
        "llamascopium": llamascopium.read,
    }
    return readers[found.format](found.path)


def save_dictionary(found: Dictionary, path: str | Path, to: str) -> None:
    """Writes a dictionary in one of `TARGETS`: a pair of files for sparsecode, a folder for the others.

    Raises:
        NotExpressible: the format has no way to say what the dictionary does; nothing was written.
        InvalidSetting: no such format.
        OutOfSpace, IoFailed: the operating system refused.
    """
    from sparsecode.interop import dictionary_learning, saelens, sparsify

    writers: dict[str, Callable[[Dictionary, Path], None]] = {
        "sparsecode": lambda dictionary, place: dictionary.save(place),
        "saelens": saelens.write,
        "sparsify": sparsify.write,
        "dictionary_learning": dictionary_learning.write,
    }
    if to not in writers:
        raise InvalidSetting(f"cannot write {to!r}; formats: {', '.join(TARGETS)}")
    writers[to](found, Path(path))


def not_recognised(path: Path) -> NotRecognised:
    """The failure to find a dictionary, with what to do next."""
    if not path.exists():
        return NotRecognised(f"{path}: no such file or folder; name a dictionary of any of these: {', '.join(_KNOWN)}")
    inside = find_dictionaries(path)
    if inside:
        names = ", ".join(str(one.path) for one in inside[:3]) + (", ..." if len(inside) > 3 else "")
        return NotRecognised(f"{path}: holds {len(inside)} dictionaries; name one of them: {names}")
    files = sorted(file.name for file in path.glob("*.pt")) if path.is_dir() else []
    if files:  # any program writes .pt files: none is opened unasked
        return NotRecognised(f"{path}: no dictionary is a folder like this; name a .pt file in it: {', '.join(files)}")
    return NotRecognised(f"{path}: no dictionary of any of these: {', '.join(_KNOWN)}")


_KNOWN = ("sparsecode", "SAELens", "sparsify", "dictionary_learning", "openai/sparse_autoencoder", "Llamascopium")


def _is_pair(own: Path) -> bool:
    weights, about = (own.with_name(own.name + ending) for ending in _ENDINGS)
    return weights.is_file() and about.is_file() and weights.name not in _PARTS


def _keys(path: Path) -> set[str]:
    """Names in a JSON object; none where it cannot be read."""
    try:
        value = json.loads(path.read_text()) if path.stat().st_size < 1 << 20 else None
    except (OSError, ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()


def _kind_of_pt(path: Path) -> str:
    from sparsecode.interop.openai import MARKS
    from sparsecode.interop.state_dict import mentions

    return "openai" if mentions(path, MARKS) else "dictionary_learning"


def _collect(folder: Path, depth: int, found: list[Found]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            inside = find_format(entry)
            if inside is not None:
                found.append(inside)
            elif depth > 1:
                _collect(entry, depth - 1, found)
        elif entry.suffix == ".json" and "dict_size" in _keys(entry) and (pair := find_format(entry)) is not None:
            found.append(pair)
