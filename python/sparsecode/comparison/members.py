"""The dictionaries of one comparison: found at paths, loaded, and their relatives in the sweep."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors
from sparsecode.comparison.cosine import require_same_width, unit_rows
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import common_name, files_of
from sparsecode.errors import (
    CheckpointCorrupt,
    DictionaryInvalid,
    InvalidSetting,
    LeftOut,
    NotExpressible,
    NotRecognised,
)
from sparsecode.interop import Found, find_dictionaries, load_found, looks_like, not_recognised
from sparsecode.machine import usable_memory

STABILITY = "stability"  # what `compare` adds to a dictionary's files; not part of its fingerprint
MADE_OF = "members"  # of a consensus: name and fingerprint of each dictionary that it averages
_COPIES = 1.5  # copies of the weights: as read, and the atoms as unit rows
_FAMILY = ("kind", "l1", "hook_point", "dataset_fingerprint", "loss")
_ABOUT = ("kind", "l1", "seed", "hook_point", "dataset_fingerprint", "loss", "samples_seen", "metrics")


@dataclass(frozen=True, eq=False)
class Member:
    """One dictionary of a comparison."""

    name: str
    dict_size: int  # number of the dictionary's features, atoms of norm zero included
    atoms: Tensor  # [n, d] unit rows, without atoms of norm zero, which have no direction
    about: dict[str, Any]  # those of `_ABOUT` that its file holds
    density: Tensor | None = None  # [n] share of held-out rows on which a feature fires
    initial_cosine: Tensor | None = None  # [n] cosine of each atom with the one it started from
    encoder: Tensor | None = None  # [n, d] rows of the encoder, of any norm
    alignment: Tensor | None = None  # [n] product of each encoder row and its atom; None for a transcoder
    init: dict[str, Any] | None = None  # `initial.Given` that it began near
    made_of: Mapping[str, str] = field(default_factory=dict)  # fingerprints and names of the dictionaries it averages
    kept: Tensor | None = None  # [n] numbers of these features in the dictionary; None for all

    @property
    def size(self) -> int:
        """Its number of features that have a direction."""
        return len(self.atoms)

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """Values of these features [n, ...] spread over all of the dictionary's; `fill` for atoms of norm zero."""
        if self.kept is None:
            return values
        whole = torch.full((self.dict_size, *values.shape[1:]), fill, dtype=values.dtype)
        whole[self.kept] = values
        return whole

    def numbers(self, indices: Tensor) -> Tensor:
        """Indices into these features as numbers in the dictionary; -1 stays."""
        if self.kept is None:
            return indices
        return torch.where(indices >= 0, self.kept[indices.long().clamp(min=0)].to(indices.dtype), indices)

    @property
    def live(self) -> Tensor | None:
        """[n] which features fired on the held-out rows; None if that was not counted."""
        return None if self.density is None else self.density > 0

    @property
    def live_or_all(self) -> Tensor:
        """[n] which features fired on the held-out rows; all, if that was not counted."""
        return torch.ones(self.size, dtype=torch.bool) if self.live is None else self.live

    @property
    def family(self) -> str:
        """A key that dictionaries share if they differ only in size and seed."""
        return json.dumps([self.about.get(key) for key in _FAMILY], sort_keys=True)


def places(paths: Iterable[str | Path], left_out: LeftOut) -> list[Found]:
    """What is at each path: a folder stands for all dictionaries that are in it; without one it goes to `left_out`."""
    found: list[Found] = []
    for path in map(Path, paths):
        with left_out.where(str(path), NotRecognised, DictionaryInvalid):
            found += _dictionaries(path)
    return found


def bytes_of(path: Path) -> int:
    """Size of a dictionary's weights on disk: its file, or the files of its folder."""
    weights, _ = files_of(path)
    return sum(file.stat().st_size for file in ([weights] if weights.is_file() else _files(path)))


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
    return found or [Found("sparsecode", common_name(path))]  # its reader names the missing file


def load_members(paths: Iterable[str | Path], *, least: int = 2) -> list[Member]:
    """Reads dictionaries of any library; the path of a run or folder means all in it.

    Each is named by its file, or by its path if two share a name.

    Args:
        paths: their paths.
        least: the number needed.

    Raises:
        NotRecognised: a folder holds no dictionary.
        DictionaryInvalid, PickleRefused, ZeroAtom: a file is missing or broken, or dimensions differ.
        NotExpressible: a dictionary encodes in a way that is unknown here.
        InvalidSetting: fewer than `least`, or one given twice.
    """
    strict = LeftOut(None)
    return [member for _, member in load_found_members(places(paths, strict), strict, least=least)]


def load_found_members(found: Sequence[Found], left_out: LeftOut, *, least: int = 2) -> list[tuple[Found, Member]]:
    """Reads the dictionaries that `places` found; returns them with their paths."""
    left_out.check(found, least)
    if len(found) < least:
        raise InvalidSetting(f"a comparison needs two or more dictionaries, not {len(found)}")
    if len({one.path.resolve() for one in found}) < len(found):
        raise InvalidSetting("a dictionary was given twice; name each file once")
    check_memory("compare", [one.path for one in found])
    short = [one.name for one in found]
    unique = len(set(short)) == len(short)
    members: list[tuple[Found, Member]] = []
    for one in found:
        with left_out.where(str(one.path), DictionaryInvalid, NotExpressible):
            members.append((one, member_of(load_found(one), one.name if unique else str(one.path))))
    left_out.check(members, least)
    check_widths([member for _, member in members])
    return members


def check_widths(members: Sequence[Member]) -> None:
    """Raises DictionaryInvalid where atoms have different numbers of dimensions."""
    for other in members[1:]:
        require_same_width(members[0].atoms, other.atoms, (members[0].name, other.name))


def member_of(dictionary: Dictionary, name: str) -> Member:
    """A loaded dictionary as a member of a comparison, without atoms of norm zero, which have no direction.

    Raises:
        ZeroAtom: all are.
    """
    kept = torch.nonzero(dictionary.W_dec.abs().amax(1) > 0).flatten()
    whole = len(kept) in (0, dictionary.dict_size)

    def of_kept(values: Tensor) -> Tensor:
        return values if whole else values[kept]

    known = {key: of_kept(own) for key, own in dictionary.features.items() if key in ("density", "initial_cosine")}
    return Member(
        name,
        dictionary.dict_size,
        unit_rows(of_kept(dictionary.W_dec), name),
        {key: dictionary.meta[key] for key in _ABOUT if key in dictionary.meta},
        **known,
        encoder=of_kept(dictionary.W_enc),
        alignment=None if dictionary.transcoder else of_kept((dictionary.W_enc * dictionary.W_dec).sum(1)),
        made_of=_made_of(dictionary),
        init=dictionary.meta.get("init"),
        kept=None if whole else kept,
    )


def akin(members: Sequence[Member], marks: Sequence[str | None]) -> dict[tuple[int, int], list[str]]:
    """Pairs of members that agree by construction, and the names of the dictionaries that both are, or are made of.

    Args:
        members: of a comparison.
        marks: fingerprint of each, where it has one.
    """
    known = [
        dict(one.made_of) | ({mark: one.name} if mark else {}) | ({str(one.init["fingerprint"]): "a start"} if one.init
        else {}) for one, mark in zip(members, marks, strict=True)
    ]  # fmt: skip
    found = {}
    for i, j in combinations(range(len(members)), 2):
        made = any(one.made_of or one.init for one in (members[i], members[j]))
        if made and (common := known[i].keys() & known[j].keys()):
            found[i, j] = sorted(known[i][mark] for mark in common)
    return found


def started_together(one: Member, other: Member) -> tuple[float, float] | None:
    """Mean cosine, at the start and now, of two dictionaries' features that began near the same atoms.

    The difference is how far they came together. At the start it is that of two atoms which both were turned by the
    jitter, in independent directions. None where they began otherwise, or atoms are left out.
    """
    if one.init is None or other.init is None or one.init["fingerprint"] != other.init["fingerprint"]:
        return None
    count = min(one.init["atoms"], one.size, other.size)
    if one.kept is not None or other.kept is not None or not count:
        return None
    begun = 1 / math.sqrt((1 + one.init["jitter"] ** 2) * (1 + other.init["jitter"] ** 2))
    return begun, float((one.atoms[:count] * other.atoms[:count]).sum(1).double().mean())


def _made_of(dictionary: Dictionary) -> dict[str, str]:
    """Fingerprints and names of the dictionaries that it averages; those that never lay on disk have none."""
    told = dictionary.meta.get(MADE_OF)
    known = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return {str(one["fingerprint"]): str(one.get("name")) for one in known if one.get("fingerprint")}


@dataclass(frozen=True)
class Place:
    """The positions of a dictionary's relatives among the members of a comparison.

    Relatives differ only in size and seed. `next`: the next larger one of the same seed. `other_seed`: the same size
    from the next seed, after the last the first. `next_other_seed`: the next larger size from that seed.
    `larger`: every larger one, of any seed.
    """

    next: int | None
    other_seed: int | None
    next_other_seed: int | None
    larger: tuple[int, ...]


def place(members: Sequence[Member], k: int) -> Place:
    """Relatives of member k; if two qualify, the first."""
    own = members[k]
    seed = own.about.get("seed")
    family = [j for j, other in enumerate(members) if other.family == own.family]
    known = {members[j].about["seed"] for j in family if members[j].about.get("seed") is not None}
    seeds = sorted(known - {seed})
    following = next((s for s in seeds if seed is not None and s > seed), seeds[0] if seeds else None)

    def nearest(sizes: Iterable[int], wanted: Any) -> int | None:
        fits = [j for j in sizes if members[j].about.get("seed") == wanted]
        return min(fits, key=lambda j: members[j].size, default=None)

    larger = [j for j in family if members[j].size > own.size]
    same = [j for j in family if members[j].size == own.size and j != k]
    return Place(
        next=nearest(larger, seed),
        other_seed=nearest(same, following) if following is not None else None,
        next_other_seed=nearest(larger, following) if following is not None else None,
        larger=tuple(larger),
    )


def fingerprint(path: Path) -> str:
    """Digest of a dictionary's two files without the stability scores that a comparison stored in them.

    For a dictionary of another library, a digest of its file or the files of its folder. A missing or broken file is no
    error here; loading it reports the fault.
    """
    digest = hashlib.sha256(path.name.encode())
    weights, description = files_of(path)
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
    return [file for file in Found("", path).files if file.is_file()]


def _description(path: Path) -> Any:
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return {key: value for key, value in about.items() if key != STABILITY} if isinstance(about, Mapping) else about


def fingerprint_of(paths: Iterable[Path]) -> str:
    """Digest of several dictionaries, without the stability scores that a comparison stores in their files."""
    return hashlib.sha256("".join(map(fingerprint, paths)).encode()).hexdigest()[:16]
