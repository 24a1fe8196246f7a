"""Claim 3: maximum-activating examples of features found in every size look interpretable.

Needs: the model; the activations and their text; the dictionaries whose features are read, trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison.records import Steady
from sparsecode.records import as_json
from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import ComparedSweep, Evidence
from sparsecode.science.claims.verdicts import MOST, NOT_REPRODUCED, REPRODUCED, Finding, Verdict, not_tested
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.top_contexts import SPARE, Probes, contexts, directions, features, neurons, top_rows

CLAIM = "Maximum-activating examples of the features found across sizes usually look interpretable."
BESIDE = 3  # one neuron and one random direction are shown for this many features
# A feature whose strongest contexts have nothing in common is not interpretable; one where half of them share the very
# token at the peak, or the one before it, plainly is. A feature for a class of tokens (all brackets) fails this: the
# measure errs against the claim.
CONSISTENT = 0.5


@dataclass(frozen=True)
class Numbers:
    """How alike the strongest contexts are of each "feature", "neuron" and "random" direction, and some of them."""

    searched: int
    contexts: int
    consistency: dict[str, list[float]]
    mean_consistency: dict[str, Interval]
    over: dict[str, Interval]  # by how much features are above the others
    examples: dict[str, list[dict[str, Any]]]  # which direction it is, with the fields of `TopContexts`


def judge(evidence: Evidence) -> Finding[Numbers]:
    """The strongest contexts of features, of neurons of the same layer and of random directions."""
    config, dataset, sweep = evidence.config, evidence.dataset, evidence.main
    if dataset is None or evidence.decode is None:
        return Finding(CLAIM, not_tested(evidence.missing.get("text", "The activations are not there.")))
    chosen = _steadiest(sweep, config.directions)
    width = sweep.comparison.dimensions
    own, random = beside(config.directions, width, config.seed)
    mean = torch.as_tensor(dataset.statistics["mean"], dtype=torch.float32)

    probes = Probes.joined(
        [features(sweep.dictionaries[one.dictionary], [one.feature]) for one in chosen]
        + [neurons(own, width), directions(random, mean)]
    )
    about: list[tuple[str, dict[str, Any]]] = [("feature", as_json(one)) for one in chosen]
    about += [("neuron", {"neuron": i}) for i in own]
    about += [("random", {"direction": i}) for i in range(len(random))]

    rows = dataset.rows if config.rows is None else min(config.rows, dataset.rows)
    with evidence.watch.task("claims", rows, "rows") as progress:
        top = top_rows(dataset, probes, config.contexts * SPARE, rows, advance=progress.advance)
    found: dict[str, list[dict[str, Any]]] = {"feature": [], "neuron": [], "random": []}
    for f, (kind, words) in enumerate(about):
        some = config.features if kind == "feature" else -(-config.features // BESIDE)
        shown = config.shown if len(found[kind]) < some else 0
        read = contexts(dataset, evidence.decode, probes, top, f, count=config.contexts, shown=shown)
        found[kind].append(words | as_json(read))
    values = {
        kind: [one["consistency"] for one in group if one["consistency"] is not None] for kind, group in found.items()
    }
    over = {
        kind: bootstrap.difference(values["feature"], values[kind], draws=config.draws)
        for kind in ("random", "neuron")
        if values["feature"] and values[kind]
    }
    verdict = rule(values["feature"], over.get("random"))
    if sweep.untrained and len(values["feature"]) < trained.LEAST_DIRECTIONS:
        verdict = trained.too_thin(trained.listed(sweep.untrained))
    means = {kind: bootstrap.interval(own, draws=config.draws) for kind, own in values.items() if own}
    examples = {kind: [one for one in group if one["examples"]] for kind, group in found.items()}
    return Finding(CLAIM, verdict, Numbers(top.searched, config.contexts, values, means, over, examples))


def beside(count: int, width: int, seed: int) -> tuple[list[int], Tensor]:
    """The neurons, and random directions [n, width] of norm 1, that stand beside features: n = `count`, at most all."""
    generator = torch.Generator().manual_seed(seed)
    count = min(count, width)
    own = torch.randperm(width, generator=generator)[:count].tolist()
    return own, torch.nn.functional.normalize(torch.randn(count, width, generator=generator))


def rule(consistency: Sequence[float], over_random: Interval | None) -> Verdict:
    """The verdict from how alike each feature's strongest contexts are, and how much more so than those of chance."""
    if len(consistency) < trained.LEAST_DIRECTIONS or over_random is None:
        return not_tested(f"Fewer than {trained.LEAST_DIRECTIONS} distinct features are found in every size.")
    share = sum(value >= CONSISTENT for value in consistency) / len(consistency)
    number = f"{share:.0%} of {len(consistency)} features consistent, {over_random.text('+.2f')} over random"
    # Of a share: the normal approximation to a binomial count.
    doubtful = abs(share - MOST) <= 1.96 * (share * (1 - share) / len(consistency)) ** 0.5
    if over_random.low <= 0:
        alike = Verdict(NOT_REPRODUCED, "Their contexts are not more alike than those of random directions.", number)
        return alike.doubted(over_random.holds(0) and (share > MOST or doubtful))
    if share > MOST:
        shared = Verdict(REPRODUCED, "Most features' strongest contexts share a token; read them below.", number)
        return shared.doubted(doubtful)
    return Verdict(NOT_REPRODUCED, "The strongest contexts of most features share no token.", number).doubted(doubtful)


def _steadiest(sweep: ComparedSweep, count: int) -> list[Steady]:
    """Up to `count` distinct live features of trained dictionaries found in every size of these, steadiest first."""
    listed = sweep.comparison.contents.steadiest
    names = {one.dictionary for one in listed} - sweep.untrained.keys()
    masks = {name: sweep.in_every_size(name) for name in names}
    return [one for one in listed if one.dictionary in names and masks[one.dictionary][one.feature]][:count]
