"""The dictionaries of one comparison, and who stands where in the sweep: the next larger one, another seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.compare.loading import check_memory, places
from sparsecode.compare.mcs import unit_rows
from sparsecode.errors import DictionaryInvalid, InvalidSetting
from sparsecode.interop import load_found
from sparsecode.sweep import Dictionary

_ABOUT = ("kind", "l1", "seed", "hook_point", "dataset_fingerprint", "loss", "samples_seen", "metrics")


@dataclass(frozen=True, eq=False)
class Member:
    """One dictionary of a comparison."""

    name: str
    atoms: Tensor  # [n, d] unit rows
    about: dict[str, Any]  # those of `_ABOUT` that its file holds
    density: Tensor | None = None  # [n] share of held-out rows on which a feature fires
    initial_cosine: Tensor | None = None  # [n] of each atom with the one it started from
    encoder: Tensor | None = None  # [n, d] rows of the encoder, of any norm

    @property
    def size(self) -> int:
        """Its number of features."""
        return len(self.atoms)

    @property
    def live(self) -> Tensor | None:
        """[n] which features fired on the held-out rows; None where nobody counted."""
        return None if self.density is None else self.density > 0

    @property
    def live_or_all(self) -> Tensor:
        """[n] the same, with every feature counted as live where nobody counted."""
        return torch.ones(self.size, dtype=torch.bool) if self.density is None else self.density > 0

    @property
    def family(self) -> str:
        """What two dictionaries share that differ in size and seed only."""
        keys = ("kind", "l1", "hook_point", "dataset_fingerprint", "loss")
        return json.dumps([self.about.get(key) for key in keys], sort_keys=True)


def load_members(paths: Iterable[str | Path], *, least: int = 2) -> list[Member]:
    """Reads dictionaries of any library, all of a run for its folder.

    Each is called by its file's name, or by its path where two share a name.

    Raises:
        NotRecognised: a folder holds no dictionary, or several.
        DictionaryInvalid, PickleRefused, ZeroAtom: a file is missing or broken, or dimensions differ.
        NotExpressible: a dictionary encodes in a way that is not known here.
        InvalidSetting: fewer than `least`, or one given twice.
    """
    found = places(paths)
    if len(found) < least:
        raise InvalidSetting(f"a comparison needs two or more dictionaries, not {len(found)}")
    if len({one.path.resolve() for one in found}) < len(found):
        raise InvalidSetting("a dictionary was given twice; name each file once")
    check_memory("compare", [one.path for one in found])
    short = [one.name for one in found]
    unique = len(set(short)) == len(short)
    members = [member_of(load_found(one), one.name if unique else str(one.path)) for one in found]
    for other in members[1:]:
        if other.atoms.shape[1] != members[0].atoms.shape[1]:
            raise DictionaryInvalid(
                f"{members[0].name} has atoms of {members[0].atoms.shape[1]} dimensions, {other.name} of "
                f"{other.atoms.shape[1]}; only dictionaries of the same activations can be compared"
            )
    return members


def member_of(dictionary: Dictionary, name: str) -> Member:
    """A loaded dictionary as a member of a comparison."""
    about = {key: dictionary.meta[key] for key in _ABOUT if key in dictionary.meta}
    return Member(
        name,
        unit_rows(dictionary.W_dec, name),
        about,
        dictionary.features.get("density"),
        dictionary.features.get("initial_cosine"),
        dictionary.W_enc,
    )


@dataclass(frozen=True)
class Place:
    """Where a dictionary stands: positions of its relatives among the members of a comparison.

    Relatives differ in size and seed only. `next`: the next larger one of the same seed. `other_seed`: the same size
    from the next seed, after the last the first. `next_other_seed`: the next larger size from that seed.
    `larger`: every larger one, of any seed.
    """

    next: int | None
    other_seed: int | None
    next_other_seed: int | None
    larger: tuple[int, ...]


def place(members: Sequence[Member], k: int) -> Place:
    """Relatives of member k; where two would do, the first."""
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
