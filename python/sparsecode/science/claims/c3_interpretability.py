"""Claim 3: maximum-activating examples of features found in every size look interpretable."""

from __future__ import annotations

from typing import Any

import torch

from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import Evidence, Family, Finding
from sparsecode.science.claims.verdicts import LEAST_DIRECTIONS, interpretable, not_tested
from sparsecode.science.statistics import bootstrap
from sparsecode.science.top_contexts import SPARE, Probes, contexts, directions, features, neurons, top_rows

CLAIM = "Maximum-activating examples of the features found across sizes usually look interpretable."
BESIDE = 3  # one neuron and one random direction are shown for this many features


def judge(evidence: Evidence) -> Finding:
    """The strongest contexts of features, of neurons of the same layer and of random directions."""
    config, dataset, family = evidence.config, evidence.dataset, evidence.main
    if dataset is None or evidence.decode is None:
        return Finding(CLAIM, not_tested(evidence.missing.get("text", "The activations are not there.")))
    chosen, left_out = steadiest(family, config.directions)
    width = family.dimensions
    generator = torch.Generator().manual_seed(config.seed)
    count = min(config.directions, width)
    own = torch.randperm(width, generator=generator)[:count].tolist()
    random = torch.nn.functional.normalize(torch.randn(count, width, generator=generator))
    mean = torch.as_tensor(dataset.statistics["mean"], dtype=torch.float32)

    probes = Probes.joined(
        [features(family.dictionaries[entry["dictionary"]], [entry["feature"]]) for entry in chosen]
        + [neurons(own, width), directions(random, mean)]
    )
    about: list[tuple[str, dict[str, Any]]] = [("feature", entry) for entry in chosen]
    about += [("neuron", {"neuron": i}) for i in own]
    about += [("random", {"direction": i}) for i in range(count)]

    rows = dataset.rows if config.rows is None else min(config.rows, dataset.rows)
    with evidence.watch.task("claims", rows, "rows") as progress:
        top = top_rows(dataset, probes, config.contexts * SPARE, rows, advance=progress.advance)
    found: dict[str, list[dict[str, Any]]] = {"feature": [], "neuron": [], "random": []}
    for f, (kind, words) in enumerate(about):
        some = config.features if kind == "feature" else -(-config.features // BESIDE)
        shown = config.shown if len(found[kind]) < some else 0
        read = contexts(dataset, evidence.decode, probes, top, f, count=config.contexts, shown=shown)
        found[kind].append(words | read.as_json())
    return _finding(evidence, found, top.searched, left_out)


def _finding(
    evidence: Evidence, found: dict[str, list[dict[str, Any]]], searched: int, left_out: dict[str, str]
) -> Finding:
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
    verdict = interpretable(values["feature"], over.get("random"))
    if left_out and len(values["feature"]) < LEAST_DIRECTIONS:
        verdict = trained.too_thin(trained.listed(left_out))
    return Finding(CLAIM, verdict, numbers)


def steadiest(family: Family, count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Up to `count` distinct live features of trained dictionaries found in every size of these, steadiest first; and
    the untrained dictionaries, which were left out.
    """
    masks: dict[str, torch.Tensor] = {}
    kept = []
    for entry in family.comparison.record["steadiest"]:
        name = entry["dictionary"]
        if name in family.untrained:
            continue
        if name not in masks:
            masks[name] = family.in_every_size(name)
        if bool(masks[name][entry["feature"]]):
            kept.append(entry)
    return kept[:count], family.untrained
