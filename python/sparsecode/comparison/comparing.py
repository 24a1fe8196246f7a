"""One comparison: all pairs of its dictionaries, the one-to-one matchings, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.consistency import consistency, encoder_cosines
from sparsecode.comparison.duplicates import mutual, nearest_own
from sparsecode.comparison.loading import fingerprint
from sparsecode.comparison.matching import matched_mcs, turned
from sparsecode.comparison.mcs import BestMatches
from sparsecode.comparison.members import Member, Place, check_widths, member_of, place
from sparsecode.comparison.pairs import AllPairs, all_pairs, live_mmcs_matrix, mmcs_matrix
from sparsecode.comparison.recurrence import found_in_all, stability, steadiest
from sparsecode.comparison.result import FORMAT, Comparison
from sparsecode.comparison.settings import CompareSettings
from sparsecode.comparison.statistics import chance_mmcs, summary
from sparsecode.errors import InvalidSetting
from sparsecode.machine import versions
from sparsecode.sweep import Dictionary, dictionary_name
from sparsecode.watch import UNWATCHED, Watch

MATCH_ALL = 16  # dictionaries up to which every pair is matched one-to-one; beyond, each with its relatives


class Pairing:
    """A one-to-one matching of members i and j, found once and seen from either side."""

    def __init__(self, members: Sequence[Member], i: int, j: int, config: CompareSettings) -> None:
        a, b = members[i], members[j]
        names = (a.name, b.name)
        means = {}
        for absolute in (not config.absolute, config.absolute):
            found = matched_mcs(a.atoms, b.atoms, absolute=absolute, names=names)
            means[absolute] = found.mean
        self.first, self.sizes = i, (a.size, b.size)
        self.matched: BestMatches = found
        encoders = None
        if a.encoder is not None and b.encoder is not None:
            encoders = encoder_cosines(found, a.encoder, b.encoder)
            encoders = encoders.abs() if config.absolute else encoders
        self.consistency = consistency(found, means[False], means[True], encoders)

    def seen_from(self, k: int) -> BestMatches:
        """Partners of the features of member k, one of the two."""
        return self.matched if k == self.first else turned(self.matched, self.sizes[1])


def compare(
    dictionaries: Sequence[Dictionary] | Mapping[str, Dictionary],
    *,
    threshold: float = 0.9,
    duplicate_threshold: float = 0.8,
    bins: int = 50,
    absolute: bool = False,
    watch: Watch = UNWATCHED,
) -> Comparison:
    """Compares every dictionary with every other.

    Up to 16 dictionaries every pair is matched one-to-one as well; beyond, each with the next larger one and with the
    same from another seed.

    Args:
        dictionaries: two or more of the same activations, by name where they have none of their own.
        threshold: cosine above which a feature counts as found again.
        duplicate_threshold: cosine with another atom of its own dictionary above which a feature counts as a
            near-duplicate.
        bins: bins of the histograms of maximum cosine similarities, over 0 to 1.
        absolute: ignore the sign of cosines.
        watch: what it is watched with.

    Raises:
        InvalidSetting: fewer than two dictionaries, or a setting outside its range.
        DictionaryInvalid: dimensions differ.
        ZeroAtom: a dictionary without a single atom.

    >>> atoms = torch.nn.functional.normalize(torch.randn(8, 4), dim=1)
    >>> one, other = (Dictionary(atoms[:n], torch.zeros(n), atoms[:n]) for n in (6, 8))
    >>> compare({"small": one, "large": other}).found_again()["small"].tolist()
    [1, 1, 1, 1, 1, 1]
    """
    settings = CompareSettings(
        threshold=threshold, duplicate_threshold=duplicate_threshold, bins=bins, absolute=absolute
    )
    named = dict(dictionaries) if isinstance(dictionaries, Mapping) else names_of(dictionaries)
    if len(named) < 2:
        raise InvalidSetting(f"a comparison needs two or more dictionaries, not {len(named)}")
    members = [member_of(dictionary, name) for name, dictionary in named.items()]
    check_widths(members)
    return compare_members(members, [None] * len(members), settings, match_all=True, watch=watch)


def names_of(dictionaries: Sequence[Dictionary]) -> dict[str, Dictionary]:
    """Dictionaries by a name of their own: that of a sweep where size, L1 and seed tell them apart, else numbers."""
    names = [
        dictionary_name(one.dict_size, one.meta["l1"], one.meta["seed"])
        if isinstance(one.meta.get("l1"), float) and isinstance(one.meta.get("seed"), int)
        else ""
        for one in dictionaries
    ]
    if "" in names or len(set(names)) < len(names):
        names = [str(number) for number in range(len(names))]
    return dict(zip(names, dictionaries, strict=True))


def compare_members(
    members: list[Member],
    paths: Sequence[Path | None],
    config: CompareSettings,
    *,
    match_all: bool,
    watch: Watch = UNWATCHED,
) -> Comparison:
    """Compares all members, in this order; `paths` are where they came from, None for what never lay on disk."""
    sizes = [member.size for member in members]
    work = (sum(sizes) ** 2 - sum(size * size for size in sizes)) // 2
    live = [member.live_or_all for member in members]
    with watch.task("compare", work, "pairs") as progress:
        pairs = all_pairs(
            [member.atoms for member in members], live, absolute=config.absolute, advance=progress.advance
        )
    own = [nearest_own(member.atoms, absolute=config.absolute) for member in members]
    relatives = [place(members, k) for k in range(len(members))]
    wanted = _pairs_to_match(members, relatives, match_all and len(members) <= MATCH_ALL)
    pairings: dict[tuple[int, int], Pairing] = {}
    with watch.task("match", len(wanted), "dictionary pairs") as progress:
        for i, j in wanted:
            pairings[i, j] = pairings[j, i] = Pairing(members, i, j, config)
            progress.advance(1)
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "inputs": [
            {"name": member.name, "path": path and str(path), "fingerprint": path and fingerprint(path)}
            for member, path in zip(members, paths, strict=True)
        ],
        "dictionaries": [
            _entry(members, k, relatives[k], pairs, own[k], pairings, config) for k in range(len(members))
        ],
        "mmcs": {"all": mmcs_matrix(pairs), "live": live_mmcs_matrix(pairs, live)},
        "matched": {
            f"{members[i].name} -> {members[j].name}": _one_to_one(members[i], pairings[i, j], i, config)
            for i, j in wanted
        },
        "steadiest": steadiest(members, relatives, pairs.cosine, config.threshold),
    }
    return Comparison(
        record, _tensors(members, pairs, own, {pair: pairings[pair] for pair in wanted}, config.threshold)
    )


def _pairs_to_match(members: Sequence[Member], relatives: Sequence[Place], every: bool) -> list[tuple[int, int]]:
    """The pairs to match one-to-one, each once, the smaller dictionary first."""
    K = len(members)
    if every:
        chosen = [(i, j) for i in range(K) for j in range(i + 1, K)]
    else:
        chosen = [(k, j) for k in range(K) for j in (relatives[k].next, relatives[k].other_seed) if j is not None]
    ordered = [(i, j) if (members[i].size, i) <= (members[j].size, j) else (j, i) for i, j in chosen]
    return list(dict.fromkeys(ordered))


def _one_to_one(own: Member, pairing: Pairing, k: int, config: CompareSettings) -> dict[str, Any]:
    found = summary(pairing.seen_from(k).values, own.live, config.threshold, config.bins)
    return found | {"consistency": pairing.consistency}


def _entry(
    members: Sequence[Member],
    k: int,
    found: Place,
    pairs: AllPairs,
    nearest_own: Tensor,
    pairings: Mapping[tuple[int, int], Pairing],
    config: CompareSettings,
) -> dict[str, Any]:
    own, cosine = members[k], pairs.cosine[k]

    def against(j: int | None) -> dict[str, Any] | None:
        if j is None:
            return None
        pairing = pairings.get((k, j))
        return {
            "dictionary": members[j].name,
            "chance_mmcs": chance_mmcs(own.size, members[j].atoms),
            "mcs": summary(cosine[:, j], own.live, config.threshold, config.bins),
            "mutual": int(
                (mutual(pairs.index[k][:, j], pairs.index[j][:, k]) & (cosine[:, j] > config.threshold)).sum()
            ),
            "matched": pairing and _one_to_one(own, pairing, k, config),
        }

    everywhere = found_in_all(cosine, found.larger, config.threshold)
    return {
        "name": own.name,
        "dict_size": own.dict_size,
        **({} if own.kept is None else {"without_direction": own.dict_size - own.size}),
        "activation_dim": own.atoms.shape[1],
        **own.about,
        "live": None if own.live is None else int(own.live.sum()),
        "near_duplicates": {
            "threshold": config.duplicate_threshold,
            "features": int(((nearest_own > config.duplicate_threshold) & own.live_or_all).sum()),
        },
        "next": against(found.next),
        "other_seed": against(found.other_seed),
        "next_other_seed": against(found.next_other_seed),
        "every_larger": None
        if everywhere is None
        else {
            "dictionaries": [members[j].name for j in found.larger],
            "features": int(everywhere.sum()),
            "live": None if own.live is None else int((everywhere & own.live).sum()),
        },
        "mean_stability": float(stability(cosine, k, config.threshold).mean()),
    }


def _tensors(
    members: Sequence[Member],
    pairs: AllPairs,
    nearest_own: Sequence[Tensor],
    pairings: Mapping[tuple[int, int], Pairing],
    threshold: float,
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for k, member in enumerate(members):
        own = pairs.index[k].int()
        numbers = torch.stack([other.numbers(own[:, j]) for j, other in enumerate(members)], dim=1)
        tensors[f"{member.name}.cosine"] = member.spread(pairs.cosine[k], torch.nan)
        tensors[f"{member.name}.index"] = member.spread(numbers, -1)
        tensors[f"{member.name}.own_cosine"] = member.spread(nearest_own[k], torch.nan)
        tensors[f"{member.name}.stability"] = member.spread(stability(pairs.cosine[k], k, threshold), 0)
        if member.live is not None:
            tensors[f"{member.name}.live"] = member.spread(member.live.to(torch.uint8), 0)
        if member.initial_cosine is not None:
            tensors[f"{member.name}.initial_cosine"] = member.spread(member.initial_cosine, torch.nan)
    for (i, j), pairing in pairings.items():
        prefix = f"{members[i].name}.matched.{members[j].name}"
        tensors[f"{prefix}.cosine"] = members[i].spread(pairing.matched.values, torch.nan)
        tensors[f"{prefix}.index"] = members[i].spread(members[j].numbers(pairing.matched.indices.int()), -1)
    return tensors
