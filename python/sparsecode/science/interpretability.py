"""Claim 3: maximum-activating examples of features found in every size look interpretable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sparsecode.progress import Progress
from sparsecode.science import bootstrap
from sparsecode.science.evidence import Evidence, Family, Finding
from sparsecode.science.examples import SPARE, Encoder, contexts, directions, neurons, select, top_rows
from sparsecode.science.verdicts import interpretable, not_tested
from sparsecode.sweep import Dictionary

CLAIM = "Maximum-activating examples of the features found across sizes usually look interpretable."
BESIDE = 3  # one neuron and one random direction are shown for this many features


def judge(evidence: Evidence, *, quiet: bool = True) -> Finding:
    """The strongest contexts of features, of neurons of the same layer and of random directions."""
    config, dataset, family = evidence.config, evidence.dataset, evidence.main
    if dataset is None or evidence.decode is None:
        return Finding(CLAIM, not_tested(evidence.missing.get("text", "The activations are not there.")))
    chosen = steadiest(family, config.directions)
    width = family.dimensions
    generator = torch.Generator().manual_seed(config.seed)
    count = min(config.directions, width)
    own = torch.randperm(width, generator=generator)[:count].tolist()
    random = torch.nn.functional.normalize(torch.randn(count, width, generator=generator))
    mean = torch.as_tensor(dataset.statistics["mean"], dtype=torch.float32)

    grouped, columns = _by_dictionary(family, chosen)
    encoders = [*grouped, neurons(own), directions(random, mean)]
    # (kind, description, its column in the search, the direction alone)
    probes: list[tuple[str, dict[str, Any], int, Encoder]] = [
        ("feature", entry, column, select(family.dictionaries[entry["dictionary"]], [entry["feature"]]).encode)
        for entry, column in zip(chosen, columns, strict=True)
    ]
    after = len(chosen)
    probes += [("neuron", {"neuron": i}, after + at, neurons([i])) for at, i in enumerate(own)]
    after += len(own)
    probes += [("random", {"direction": i}, after + i, directions(random[i : i + 1], mean)) for i in range(count)]

    rows = dataset.rows if config.rows is None else min(config.rows, dataset.rows)
    with Progress("claims", rows, "rows", quiet=quiet) as progress:
        top = top_rows(dataset, encoders, config.contexts * SPARE, rows, advance=progress.advance)
    found: dict[str, list[dict[str, Any]]] = {"feature": [], "neuron": [], "random": []}
    for kind, about, column, encode in probes:
        some = config.features if kind == "feature" else -(-config.features // BESIDE)
        shown = config.shown if len(found[kind]) < some else 0
        read = contexts(dataset, evidence.decode, encode, top, column, count=config.contexts, shown=shown)
        found[kind].append(about | read.as_json())
    return _finding(evidence, found, top.searched)


def _finding(evidence: Evidence, found: dict[str, list[dict[str, Any]]], searched: int) -> Finding:
    values = {
        kind: [one["consistency"] for one in group if one["consistency"] is not None] for kind, group in found.items()
    }
    draws = evidence.config.draws
    over = {
        kind: bootstrap.difference(values["feature"], values[kind], draws=draws)
        for kind in ("random", "neuron")
        if values["feature"] and values[kind]
    }
    numbers = {
        "searched": searched,
        "contexts": evidence.config.contexts,
        "consistency": values,
        "mean_consistency": {
            kind: bootstrap.interval(own, draws=draws).as_json() for kind, own in values.items() if own
        },
        "over": {kind: interval.as_json() for kind, interval in over.items()},
        "examples": {kind: [one for one in group if one["examples"]] for kind, group in found.items()},
    }
    return Finding(CLAIM, interpretable(values["feature"], over.get("random")), numbers)


def steadiest(family: Family, count: int) -> list[dict[str, Any]]:
    """Up to `count` distinct live features found in every size, steadiest first."""
    masks: dict[str, torch.Tensor] = {}
    kept = []
    for entry in family.comparison.record["steadiest"]:
        name = entry["dictionary"]
        if name not in masks:
            masks[name] = family.in_every_size(name)
        if bool(masks[name][entry["feature"]]):
            kept.append(entry)
    return kept[:count]


def _by_dictionary(family: Family, chosen: Sequence[dict[str, Any]]) -> tuple[list[Encoder], list[int]]:
    """Encoders of all of `chosen`, and the column that each has among them.

    Dictionaries that were trained on the same normalised data, as those of one sweep are, become one encoder.
    """
    groups: dict[str, list[int]] = {}
    for i, entry in enumerate(chosen):
        own = family.dictionaries[entry["dictionary"]]
        alone = entry["dictionary"] if own.b_dec is not None else ""
        groups.setdefault(f"{own.normalization} {own.activation} {alone}", []).append(i)
    encoders = []
    for members in groups.values():
        first = family.dictionaries[chosen[members[0]]["dictionary"]]
        parts = [select(family.dictionaries[chosen[i]["dictionary"]], [chosen[i]["feature"]]) for i in members]
        joined = Dictionary(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("W_enc", "b_enc", "W_dec")),
            b_dec=first.b_dec, mean=first.mean, scale=first.scale, activation=first.activation,
        )  # fmt: skip
        encoders.append(joined.encode)
    order = [i for members in groups.values() for i in members]
    return encoders, [order.index(i) for i in range(len(chosen))]
