"""The dictionaries of one comparison, and their relatives in the sweep: the next larger one, another seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.loading import LeftOut, check_memory, places
from sparsecode.comparison.mcs import unit_rows
from sparsecode.errors import DictionaryInvalid, InvalidSetting, NotExpressible
from sparsecode.interop import Found, load_found
from sparsecode.sweep import Dictionary

_ABOUT = ("kind", "l1", "seed", "hook_point", "dataset_fingerprint", "loss", "samples_seen", "metrics")


@dataclass(frozen=True, eq=False)
class Member:
    """One dictionary of a comparison."""

    name: str
    atoms: Tensor  # [n, d] unit rows, without atoms of norm zero, which have no direction
    about: dict[str, Any]  # those of `_ABOUT` that its file holds
    density: Tensor | None = None  # [n] share of held-out rows on which a feature fires
    initial_cosine: Tensor | None = None  # [n] cosine of each atom with the one it started from
    encoder: Tensor | None = None  # [n, d] rows of the encoder, of any norm
    kept: Tensor | None = None  # [n] numbers of these features in the dictionary; None for all
    total: int | None = None  # number of the dictionary's features, if not all are here

    @property
    def size(self) -> int:
        """Its number of features that have a direction."""
        return len(self.atoms)

    @property
    def dict_size(self) -> int:
        """Its number of features, atoms of norm zero included."""
        return self.size if self.total is None else self.total

    def feature(self, i: int) -> int:
        """The number in the dictionary of feature `i` of these."""
        return i if self.kept is None else int(self.kept[i])

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
        return torch.ones(self.size, dtype=torch.bool) if self.density is None else self.density > 0

    @property
    def family(self) -> str:
        """A key that dictionaries share if they differ only in size and seed."""
        keys = ("kind", "l1", "hook_point", "dataset_fingerprint", "loss")
        return json.dumps([self.about.get(key) for key in keys], sort_keys=True)


def load_members(paths: Iterable[str | Path], *, least: int = 2, left_out: list[LeftOut] | None = None) -> list[Member]:
    """Reads dictionaries of any library; the path of a run or folder means all in it.

    Each is named by its file, or by its path if two share a name.

    Args:
        paths: their paths.
        least: the number needed.
        left_out: receives those that cannot be used, so that the rest can be; without it, the first error is raised.

    Raises:
        NotRecognised: a folder holds no dictionary.
        DictionaryInvalid, PickleRefused, ZeroAtom: a file is missing or broken, or dimensions differ.
        NotExpressible: a dictionary encodes in a way that is unknown here.
        InvalidSetting: fewer than `least`, or one given twice.
    """
    return [member for _, member in load_found_members(places(paths, left_out), least=least, left_out=left_out)]


def load_found_members(
    found: Sequence[Found], *, least: int = 2, left_out: list[LeftOut] | None = None
) -> list[tuple[Found, Member]]:
    """Reads the dictionaries that `places` found; returns them with their paths."""
    if len(found) < least:
        if left_out:
            raise left_out[0].error
        raise InvalidSetting(f"a comparison needs two or more dictionaries, not {len(found)}")
    if len({one.path.resolve() for one in found}) < len(found):
        raise InvalidSetting("a dictionary was given twice; name each file once")
    check_memory("compare", [one.path for one in found])
    short = [one.name for one in found]
    unique = len(set(short)) == len(short)
    members: list[tuple[Found, Member]] = []
    for one in found:
        try:
            members.append((one, member_of(load_found(one), one.name if unique else str(one.path))))
        except (DictionaryInvalid, NotExpressible) as error:
            if left_out is None:
                raise
            left_out.append(LeftOut(one.path, error))
    if left_out and len(members) < least:
        raise left_out[0].error
    check_widths([member for _, member in members])
    return members


def check_widths(members: Sequence[Member]) -> None:
    """Raises DictionaryInvalid where atoms have different numbers of dimensions."""
    first = members[0]
    for other in members[1:]:
        if other.atoms.shape[1] != first.atoms.shape[1]:
            raise DictionaryInvalid(
                f"{first.name} has atoms of {first.atoms.shape[1]} dimensions, {other.name} of "
                f"{other.atoms.shape[1]}; only dictionaries of the same activations can be compared"
            )


def member_of(dictionary: Dictionary, name: str) -> Member:
    """A loaded dictionary as a member of a comparison, without atoms of norm zero, which have no direction.

    Raises:
        ZeroAtom: all are.
    """
    about = {key: dictionary.meta[key] for key in _ABOUT if key in dictionary.meta}
    density, started = (dictionary.features.get(name) for name in ("density", "initial_cosine"))
    kept = torch.nonzero(dictionary.W_dec.abs().amax(1) > 0).flatten()
    if len(kept) in (0, dictionary.dict_size):
        return Member(name, unit_rows(dictionary.W_dec, name), about, density, started, dictionary.W_enc)
    return Member(
        name,
        unit_rows(dictionary.W_dec[kept], name),
        about,
        None if density is None else density[kept],
        None if started is None else started[kept],
        dictionary.W_enc[kept],
        kept,
        dictionary.dict_size,
    )


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
