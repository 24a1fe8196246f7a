"""The compare stage: all pairs of a run's dictionaries, or of any dictionary files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from sparsecode.compare.matching import matched_mcs
from sparsecode.compare.mcs import BestMatches
from sparsecode.compare.members import Member, Place, load_members, place
from sparsecode.compare.pairs import AllPairs, all_pairs, live_mmcs_matrix, mmcs_matrix
from sparsecode.compare.recurrence import found_in_all, stability, steadiest
from sparsecode.compare.result import FORMAT, Comparison
from sparsecode.compare.statistics import chance_mmcs, summary
from sparsecode.config import CompareConfig
from sparsecode.errors import InvalidSetting
from sparsecode.machine import versions
from sparsecode.progress import Progress, say
from sparsecode.run import DEFAULT_RUN, Run


def compare_dicts(
    run: str | Path | Run = DEFAULT_RUN,
    config: CompareConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Comparison:
    """Compares every dictionary of a run with every other: `RUN/comparison.json` and `RUN/comparison.safetensors`.

    A run with a single dictionary has an empty comparison, so that its report can still be written.

    Args:
        run: the run folder, after `train_dicts`.
        config: settings; `settings` change single ones (`threshold=0.8`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Raises:
        StageMissing: the run has no trained dictionaries.
        DictionaryInvalid, ZeroAtom: one of them cannot be used.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
    """
    run = run if isinstance(run, Run) else Run(run)
    config = _checked((config or CompareConfig()).changed(**settings))
    trained = run.finished("train-dicts", "sparsecode train-dicts")
    paths = [run.dictionaries_path / name for name in trained["dictionaries"]]
    outputs = [run.comparison_path, run.comparison_path.with_suffix(".safetensors")]
    inputs = {"dictionaries": _fingerprint(paths)}
    with run.stage("compare", config, inputs=inputs, outputs=outputs, force=force) as stage:
        if stage.done:
            if not quiet:
                say(f"compare: already done in {run.path} with the same settings")
            return Comparison.load(run.comparison_path)
        comparison = _compare(load_members(paths, least=1), config, match_all=False, quiet=quiet)
        comparison.save(run.comparison_path)
        stage.finish(_headline(comparison))
        return comparison


def compare_files(
    paths: Iterable[str | Path], config: CompareConfig | None = None, *, quiet: bool = False, **settings: Any
) -> Comparison:
    """Compares any two or more dictionary files, all pairs, with the one-to-one matching of each pair.

    Raises:
        InvalidSetting: fewer than two files, or one given twice.
        DictionaryInvalid, ZeroAtom: a file cannot be used, or dimensions differ.
    """
    config = _checked((config or CompareConfig()).changed(**settings))
    return _compare(load_members(paths), config, match_all=True, quiet=quiet)


def _checked(config: CompareConfig) -> CompareConfig:
    if not -1 <= config.threshold < 1 or not 1 <= config.bins <= 10_000:
        raise InvalidSetting("compare: --threshold must be below 1 and --bins between 1 and 10000")
    return config


def _fingerprint(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for suffix in (".safetensors", ".json"):
            file = path.with_name(path.name + suffix)
            digest.update(file.name.encode())
            if file.is_file():  # a missing one is named when it is loaded
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _compare(members: list[Member], config: CompareConfig, *, match_all: bool, quiet: bool) -> Comparison:
    sizes = [member.size for member in members]
    work = (sum(sizes) ** 2 - sum(size * size for size in sizes)) // 2
    live = [member.live_or_all for member in members]
    with Progress("compare", work, "pairs", quiet=quiet) as progress:
        pairs = all_pairs([member.atoms for member in members], live, advance=progress.advance)
    places = [place(members, k) for k in range(len(members))]
    wanted = _pairs_to_match(members, places, match_all)
    matched = {
        (i, j): matched_mcs(members[i].atoms, members[j].atoms, names=(members[i].name, members[j].name))
        for i, j in wanted
    }
    record = {
        "format": FORMAT,
        "sparsecode_version": versions().get("sparsecode"),
        "settings": config.record(),
        "dictionaries": [_entry(members, k, places[k], pairs, matched, config) for k in range(len(members))],
        "mmcs": {"all": mmcs_matrix(pairs), "live": live_mmcs_matrix(pairs, live)},
        "matched": {
            f"{members[i].name} -> {members[j].name}": summary(
                found.values, members[i].live, config.threshold, config.bins
            )
            for (i, j), found in matched.items()
        },
        "steadiest": steadiest(members, places, pairs.cosine, config.threshold),
    }
    return Comparison(record, _tensors(members, pairs, matched, config.threshold))


def _pairs_to_match(members: Sequence[Member], places: Sequence[Place], every: bool) -> list[tuple[int, int]]:
    """Which (smaller, larger) pairs get the exact matching, whose cost grows with the cube of the size."""
    if not every:
        return [(k, found.next) for k, found in enumerate(places) if found.next is not None]
    K = len(members)
    ordered = [(i, j) for i in range(K) for j in range(i + 1, K)]
    return [(i, j) if members[i].size <= members[j].size else (j, i) for i, j in ordered]


def _entry(
    members: Sequence[Member],
    k: int,
    found: Place,
    pairs: AllPairs,
    matched: dict[tuple[int, int], BestMatches],
    config: CompareConfig,
) -> dict[str, Any]:
    own, cosine = members[k], pairs.cosine[k]

    def against(j: int | None) -> dict[str, Any] | None:
        if j is None:
            return None
        one_to_one = matched.get((k, j))
        return {
            "dictionary": members[j].name,
            "chance_mmcs": chance_mmcs(own.size, members[j].atoms),
            "mcs": summary(cosine[:, j], own.live, config.threshold, config.bins),
            "matched": one_to_one and summary(one_to_one.values, own.live, config.threshold, config.bins),
        }

    everywhere = found_in_all(cosine, found.larger, config.threshold)
    steady = stability(cosine, k, config.threshold)
    return {
        "name": own.name,
        "dict_size": own.size,
        "activation_dim": own.atoms.shape[1],
        **own.about,
        "live": None if own.live is None else int(own.live.sum()),
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
        "mean_stability": float(steady.mean()),
    }


def _tensors(
    members: Sequence[Member], pairs: AllPairs, matched: dict[tuple[int, int], BestMatches], threshold: float
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for k, member in enumerate(members):
        tensors[f"{member.name}.cosine"] = pairs.cosine[k]
        tensors[f"{member.name}.index"] = pairs.index[k].int()
        tensors[f"{member.name}.stability"] = stability(pairs.cosine[k], k, threshold)
        if member.live is not None:
            tensors[f"{member.name}.live"] = member.live.to(torch.uint8)
        if member.initial_cosine is not None:
            tensors[f"{member.name}.initial_cosine"] = member.initial_cosine
    for (i, j), found in matched.items():
        prefix = f"{members[i].name}.matched.{members[j].name}"
        tensors[f"{prefix}.cosine"] = found.values
        tensors[f"{prefix}.index"] = found.indices.int()
    return tensors


def _headline(comparison: Comparison) -> dict[str, Any]:
    """The stage's result in config.json: for each dictionary what is above the threshold."""
    return {
        "dictionaries": comparison.names,
        "mmcs_next": {
            e["name"]: e["next"]["mcs"]["all"]["mean"] for e in comparison.record["dictionaries"] if e["next"]
        },
        "every_larger": {
            e["name"]: e["every_larger"]["features"] for e in comparison.record["dictionaries"] if e["every_larger"]
        },
        "steadiest": len(comparison.record["steadiest"]),
    }
