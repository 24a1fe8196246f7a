"""Converts dictionaries from one library's files to another's, and checks that the copy does the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import files_of
from sparsecode.errors import InvalidSetting, NotExpressible
from sparsecode.interop.files import named
from sparsecode.interop.formats import Found, load_dictionary, load_found, save_dictionary

ROWS = 64  # random activations on which original and copy are compared


@dataclass(frozen=True)
class Converted:
    """A dictionary that was written in another format."""

    source: Found
    path: Path
    to: str
    dictionary: Dictionary
    difference: float  # largest difference of codes and output, over the largest value of the original
    notes: tuple[str, ...] = ()  # what the target expresses differently

    def as_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "source": str(self.source.path),
            "from": self.source.format,
            "path": str(self.path),
            "to": self.to,
            "activation": self.dictionary.activation.name,
            "dict_size": self.dictionary.dict_size,
            "activation_dim": self.dictionary.activation_dim,
            "difference": self.difference,
            "notes": list(self.notes),
        }


def convert(source: Found, path: Path, to: str, *, force: bool = False) -> Converted:
    """Reads a dictionary and writes it in the format `to` at `path`: a pair of files, or a folder.

    Raises:
        NotExpressible: the target cannot express what the dictionary does; nothing was written.
        InvalidSetting: `path` exists and `force` is not given, or it is the source itself.
        DictionaryInvalid, PickleRefused: the source is broken, or holds what it must not.
    """
    _check_place(source, path, to, force)
    dictionary = load_found(source)
    try:
        save_dictionary(dictionary, path, to)
    except NotExpressible as error:
        raise named(error, source.path) from error
    copy = load_dictionary(path)
    return Converted(source, path, to, dictionary, largest_difference(dictionary, copy), _notes(dictionary, copy, to))


def largest_difference(original: Dictionary, copy: Dictionary) -> float:
    """Largest difference of codes and output on random activations, over the largest value of the original's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, original.activation_dim, generator=generator) * original.scale
    x = x + original.mean if original.mean is not None else x
    pairs = [(original.encode(x), copy.encode(x)), (original.reconstruct(x), copy.reconstruct(x))]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in pairs)


def _notes(original: Dictionary, copy: Dictionary, to: str) -> tuple[str, ...]:
    """What a reader of the copy should know; empty if nothing is expressed differently."""
    found = []
    note = original.meta.get("source", {}).get("note")
    if note:
        found.append(note)
    if to != "sparsecode" and original.normalized:
        found.append("the normalisation of the data is in the weights now: atoms have other norms")
    before, after = original.activation, copy.activation
    if before.name != after.name:
        k = "" if (k := after.settings["k"]) is None else f" of {k:g}"
        found.append(f"{before.name} is written as {after.name}{k}, which does the same")
    subtracts = [one.b_dec is not None and one.apply_b_dec_to_input for one in (original, copy)]
    if subtracts[0] != subtracts[1] and original.b_dec is not None and bool(original.b_dec.any()):
        verb = "no longer subtracted" if subtracts[0] else "now subtracted"
        found.append(f"b_dec is {verb} from the input; the encoder's bias makes up for it")
    return tuple(found)


def _check_place(source: Found, path: Path, to: str, force: bool) -> None:
    if not path.name:
        raise InvalidSetting(f"{path}: has no name to write under; name a file or folder in it")
    places = files_of(path) if to == "sparsecode" else (path,)
    if path.resolve() == source.home.resolve() or source.path.resolve() in [place.resolve() for place in places]:
        raise InvalidSetting(f"{path}: source and destination are the same place")
    taken = [place for place in places if place.is_file() or (place.is_dir() and any(place.iterdir()))]
    if taken and not force:
        raise InvalidSetting(f"{taken[0]}: is there already", remedy="force")
    if to != "sparsecode" and path.is_file():
        raise InvalidSetting(f"{path}: is a file, and {to} dictionaries are folders")
