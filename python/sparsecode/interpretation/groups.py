"""Which directions stand beside each other: features that are found again, other features, and baselines.

Shape letters: R rows of the sample, F directions of a group, n features of a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.comparison import Entry
from sparsecode.dictionary import Dictionary
from sparsecode.interpretation.sample import Sample
from sparsecode.science.claims.evidence import ComparedSweep

FOUND, OTHER, FEATURES, CONTROL = "found again", "other features", "features", "untrained"
_CODES = 1 << 26  # codes computed at a time: 256 MB
_SAME = "identity"  # the baseline whose directions are the neurons, once more with the other sign


@dataclass(frozen=True)
class Direction:
    """One feature of a dictionary, as a member of a group."""

    group: str
    dictionary: str
    feature: int


@dataclass(frozen=True, eq=False)
class Group:
    """A group's name, and the features that were drawn for it by dictionary."""

    name: str
    chosen: Mapping[str, list[int]]

    @property
    def directions(self) -> list[Direction]:
        """Its members."""
        return [Direction(self.name, name, feature) for name, own in self.chosen.items() for feature in own]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Groups, and the dictionaries that their directions are features of, by name."""

    groups: list[Group] = field(default_factory=list)
    dictionaries: dict[str, Dictionary] = field(default_factory=dict)

    def add(self, name: str, features: Mapping[str, Sequence[int]], of: Mapping[str, Dictionary]) -> None:
        """Adds a group unless it is empty."""
        own = {key: [int(i) for i in found] for key, found in features.items() if len(found)}
        if own:
            self.groups.append(Group(name, own))
            self.dictionaries.update({key: of[key] for key in own})

    @property
    def directions(self) -> list[Direction]:
        """The members of all groups."""
        return [one for group in self.groups for one in group.directions]


def feature_groups(
    sweep: ComparedSweep | None, dictionaries: Mapping[str, Dictionary], count: int, seed: int
) -> Chosen:
    """Features of trained dictionaries: those found again and the other live ones, `count` of each drawn by seed.

    Args:
        sweep: the comparison that says which features are found again; None where there is none.
        dictionaries: by name. Those that are not in the comparison, or have no relative there, make a group of their
            own, since it is not known which of their features are found again.
        count: most directions of a group.
        seed: of the draw.
    """
    entries = {} if sweep is None else {entry.name: entry for entry in sweep.entries}
    pools: dict[str, dict[str, npt.NDArray[np.int64]]] = {FOUND: {}, OTHER: {}, FEATURES: {}}
    for name, dictionary in dictionaries.items():
        live = _live(dictionary)
        again = None
        if sweep is not None and name in entries and _related(entries[name]):
            again = sweep.found_again(entries[name])
        if again is None:
            pools[FEATURES][name] = _numbers(live)
        else:
            pools[FOUND][name], pools[OTHER][name] = _numbers(live & again), _numbers(live & ~again)
    chosen = Chosen()
    for group, pool in pools.items():
        chosen.add(group, _drawn(group, pool, count, seed), dictionaries)
    return chosen


def add_baselines(chosen: Chosen, baselines: Mapping[str, Dictionary], count: int, seed: int) -> None:
    """A group for each baseline; of directions with both signs one, drawn by seed.

    The identity is left out: its directions are the neurons, each once more with the other sign.
    """
    for kind, dictionary in baselines.items():
        if kind == _SAME:
            continue
        if dictionary.meta.get("codes") == "signed":
            half = dictionary.dict_size // 2
            own = _drawn(kind, {kind: np.arange(half)}, count, seed)[kind]
            signs = generator(f"{kind} signs", seed).integers(0, 2, len(own))
            own = [feature + half * int(sign) for feature, sign in zip(own, signs, strict=True)]
        else:
            own = _drawn(kind, {kind: _numbers(_live(dictionary))}, count, seed)[kind]
        chosen.add(kind, {kind: own}, {kind: dictionary})


def add_all(chosen: Chosen, group: str, dictionary: Dictionary, count: int, seed: int) -> None:
    """A group of the live features of one dictionary, which has the name of the group."""
    pool = {group: _numbers(_live(dictionary))}
    chosen.add(group, _drawn(group, pool, count, seed), {group: dictionary})


def codes(chosen: Mapping[str, Sequence[int]], of: Mapping[str, Dictionary], parts: Iterator[tuple[slice, Tensor]],
          sample: Sample) -> dict[str, npt.NDArray[np.float32]]:  # fmt: skip
    """Codes [R, F] of features of each dictionary, nothing below 0.

    The whole dictionary encodes each row: whether a feature is among the k largest depends on all of them.

    Args:
        chosen: features by dictionary.
        of: the dictionaries.
        parts: activations of the sample, see `sample.chunks`.
        sample: its rows.
    """
    wanted = {name: torch.tensor(list(own), dtype=torch.int64) for name, own in chosen.items()}
    found = {name: np.empty((sample.rows, len(own)), np.float32) for name, own in chosen.items()}
    for rows, x in parts:
        for name, own in wanted.items():
            found[name][rows] = of[name].encode(x)[:, own].clamp_(min=0).numpy()
    return found


def most_rows(dictionaries: Mapping[str, Dictionary]) -> int:
    """How many rows to encode at a time."""
    return max(1, _CODES // max(one.dict_size for one in dictionaries.values()))


def _related(entry: Entry) -> bool:
    return any((entry.next_other_seed, entry.other_seed, entry.next))


def _live(dictionary: Dictionary) -> Tensor:
    """[n] which features fired on held-out rows; all, if that was not counted."""
    density = dictionary.features.get("density")
    return torch.ones(dictionary.dict_size, dtype=torch.bool) if density is None else density > 0


def _numbers(mask: Tensor) -> npt.NDArray[np.int64]:
    return mask.nonzero().flatten().numpy()


def _drawn(group: str, pool: Mapping[str, npt.NDArray[np.int64]], count: int, seed: int) -> dict[str, list[int]]:
    """`count` of all features of a pool, each as likely as the others; rising by dictionary."""
    members = [(name, int(feature)) for name, own in pool.items() for feature in own]
    order = generator(group, seed).permutation(len(members))[:count]
    found: dict[str, list[int]] = {name: [] for name in pool}
    for place in np.sort(order).tolist():
        name, feature = members[place]
        found[name].append(feature)
    return found


def generator(name: str, seed: int) -> np.random.Generator:
    """Random numbers of a name: other groups do not change what is drawn for this one."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest, "little")]))
