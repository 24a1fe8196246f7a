"""Compares: all pairs of some dictionaries, the one-to-one matchings, and their statistics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from sparsecode.comparison.comparison import FORMAT, Comparison
from sparsecode.comparison.cosine import (
    AllPairs,
    all_pairs,
    chance_mmcs,
    matrices,
    mean,
    mutual,
    nearest_own,
    summary,
)
from sparsecode.comparison.matching import Pairing
from sparsecode.comparison.members import (
    Member,
    Place,
    akin,
    check_widths,
    fingerprint,
    member_of,
    place,
    started_together,
)
from sparsecode.comparison.records import (
    Akin,
    Alignment,
    CompareSettings,
    Contents,
    Entry,
    EveryLarger,
    Input,
    NearDuplicates,
    Nearest,
)
from sparsecode.comparison.seeds import by_seed, groups_by_seed, times_found
from sparsecode.comparison.stability import found_in_all, stability, steadiest
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting
from sparsecode.machine import versions
from sparsecode.sweep.kinds import as_kind, parse_kinds
from sparsecode.watch import UNWATCHED, Watch

MATCH_ALL = 16  # dictionaries up to which every pair is matched one-to-one; beyond, each with its relatives


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
    """Dictionaries by a name of their own: that of a sweep where size, kind and seed tell them apart, else numbers."""
    names = [_name(one) for one in dictionaries]
    if "" in names or len(set(names)) < len(names):
        names = [str(number) for number in range(len(names))]
    return dict(zip(names, dictionaries, strict=True))


def _name(dictionary: Dictionary) -> str:
    """The name that it has in a sweep; empty where its file does not say which that is."""
    kind, l1, seed = (dictionary.meta.get(name) for name in ("kind", "l1", "seed"))
    if not isinstance(seed, int):
        return ""
    try:
        if isinstance(kind, str):
            return parse_kinds(kind)[0].file_name(dictionary.dict_size, seed)
        return as_kind(l1).file_name(dictionary.dict_size, seed) if isinstance(l1, float) else ""
    except InvalidSetting:
        return ""


def compare_members(
    members: list[Member],
    paths: Sequence[Path | None],
    settings: CompareSettings,
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
            [member.atoms for member in members], live, absolute=settings.absolute, advance=progress.advance
        )
    own = [nearest_own(member.atoms, absolute=settings.absolute) for member in members]
    relatives = [place(members, k) for k in range(len(members))]
    wanted = _pairs_to_match(members, relatives, match_all and len(members) <= MATCH_ALL)
    marks = [fingerprint(path) if path else None for path in paths]
    kin = akin(members, marks)
    own_columns = [{k, *(i + j - k for i, j in kin if k in (i, j))} for k in range(len(members))]
    groups = groups_by_seed(members)
    pairings: dict[tuple[int, int], Pairing] = {}
    with watch.task("match", len(wanted), "dictionary pairs") as progress:
        for i, j in wanted:
            pairings[i, j] = pairings[j, i] = Pairing(members[i], members[j], settings)
            progress.advance(1)
    contents = Contents(
        format=FORMAT,
        sparsecode_version=versions().get("sparsecode"),
        settings=settings,
        inputs=[
            Input(member.name, str(path) if path else None, mark)
            for member, path, mark in zip(members, paths, marks, strict=True)
        ],
        dictionaries=[
            _entry(members, k, relatives[k], pairs, own[k], pairings, own_columns[k], settings)
            for k in range(len(members))
        ],
        mmcs=matrices(pairs, live),
        matched={f"{members[i].name} -> {members[j].name}": pairings[i, j].seen_from(members[i]) for i, j in wanted},
        steadiest=steadiest(members, relatives, pairs.cosine, own_columns, settings.threshold),
        by_seed=[by_seed(members, group, pairs.cosine, settings.threshold) for group in groups] or None,
        akin=[
            Akin(members[i].name, members[j].name, names, *(started_together(members[i], members[j]) or ()))
            for (i, j), names in kin.items()
        ]
        or None,
    )
    tensors = _tensors(members, pairs, own, [pairings[pair] for pair in wanted], own_columns, settings.threshold)
    for group in groups:
        for k in group:
            found = times_found(pairs.cosine[k], [j for j in group if j != k], settings.threshold)
            tensors[f"{members[k].name}.by_seed"] = members[k].spread(found.float() / (len(group) - 1), 0)
    return Comparison(contents, tensors)


def _pairs_to_match(members: Sequence[Member], relatives: Sequence[Place], every: bool) -> list[tuple[int, int]]:
    """The pairs to match one-to-one, each once, the smaller dictionary first."""
    if every:
        chosen = list(combinations(range(len(members)), 2))
    else:
        chosen = [(k, j) for k, own in enumerate(relatives) for j in (own.next, own.other_seed) if j is not None]
    ordered = [(i, j) if (members[i].size, i) <= (members[j].size, j) else (j, i) for i, j in chosen]
    return list(dict.fromkeys(ordered))


def _entry(
    members: Sequence[Member],
    k: int,
    found: Place,
    pairs: AllPairs,
    nearest_own: Tensor,
    pairings: Mapping[tuple[int, int], Pairing],
    own_columns: Collection[int],
    settings: CompareSettings,
) -> Entry:
    own, cosine, threshold = members[k], pairs.cosine[k], settings.threshold

    def against(j: int | None) -> Nearest | None:
        if j is None:
            return None
        both, pairing = mutual(pairs.index[k][:, j], pairs.index[j][:, k]), pairings.get((k, j))
        return Nearest(
            dictionary=members[j].name,
            chance_mmcs=chance_mmcs(own.size, members[j].atoms),
            mcs=summary(cosine[:, j], own.live, threshold, settings.bins),
            mutual=int((both & (cosine[:, j] > threshold)).sum()),
            matched=pairing.seen_from(own) if pairing else None,
        )

    steady = stability(cosine, own_columns, threshold)
    everywhere = found_in_all(cosine, found.larger, threshold)
    return Entry(
        name=own.name,
        dict_size=own.dict_size,
        without_direction=None if own.kept is None else own.dict_size - own.size,
        activation_dim=own.atoms.shape[1],
        about=own.about,
        live=None if own.live is None else int(own.live.sum()),
        near_duplicates=NearDuplicates(
            settings.duplicate_threshold,
            int(((nearest_own > settings.duplicate_threshold) & own.live_or_all).sum()),
        ),
        next=against(found.next),
        other_seed=against(found.other_seed),
        next_other_seed=against(found.next_other_seed),
        every_larger=None
        if everywhere is None
        else EveryLarger(
            [members[j].name for j in found.larger],
            int(everywhere.sum()),
            None if own.live is None else int((everywhere & own.live).sum()),
        ),
        mean_stability=float(steady.mean()),
        alignment=None if own.alignment is None else _alignment(own, own.alignment, steady),
    )


def _alignment(own: Member, values: Tensor, steady: Tensor) -> Alignment:
    """The values of all features, of live and dead ones where these were counted, and how they go with stability."""
    parts = {} if own.live is None else {"live": values[own.live], "dead": values[~own.live]}
    live = own.live_or_all
    if live.sum() > 1 and all(float(one.min()) < float(one.max()) for one in (steady[live], values[live])):
        related = float(spearmanr(values[live].numpy(), steady[live].numpy()).statistic)
    else:
        related = None
    of_live, of_dead = (mean(parts[one]) if len(parts.get(one, ())) else None for one in ("live", "dead"))
    return Alignment(mean(values), of_live, of_dead, related)


def _tensors(
    members: Sequence[Member],
    pairs: AllPairs,
    nearest_own: Sequence[Tensor],
    pairings: Sequence[Pairing],
    own_columns: Sequence[Collection[int]],
    threshold: float,
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for k, member in enumerate(members):
        own = pairs.index[k].int()
        numbers = torch.stack([other.numbers(own[:, j]) for j, other in enumerate(members)], dim=1)
        tensors[f"{member.name}.cosine"] = member.spread(pairs.cosine[k], torch.nan)
        tensors[f"{member.name}.index"] = member.spread(numbers, -1)
        tensors[f"{member.name}.own_cosine"] = member.spread(nearest_own[k], torch.nan)
        tensors[f"{member.name}.stability"] = member.spread(stability(pairs.cosine[k], own_columns[k], threshold), 0)
        if member.live is not None:
            tensors[f"{member.name}.live"] = member.spread(member.live.to(torch.uint8), 0)
        if member.alignment is not None:
            tensors[f"{member.name}.alignment"] = member.spread(member.alignment, torch.nan)
        if member.initial_cosine is not None:
            tensors[f"{member.name}.initial_cosine"] = member.spread(member.initial_cosine, torch.nan)
    for pairing in pairings:
        a, b, found = pairing.first, pairing.second, pairing.matched
        tensors[f"{a.name}.matched.{b.name}.cosine"] = a.spread(found.values, torch.nan)
        tensors[f"{a.name}.matched.{b.name}.index"] = a.spread(b.numbers(found.indices.int()), -1)
    return tensors
