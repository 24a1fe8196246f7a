"""Claim 3: what features found in every size respond to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any
from urllib.parse import urlencode

from sparsecode.report import charts
from sparsecode.report.blocks import Block, Examples, Figure, Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import claim_section
from sparsecode.report.sections.interpretation import explanations
from sparsecode.science.claims.c3_interpretability import CONSISTENT, Numbers

WORDS = {"feature": "features found in every size", "neuron": "neurons", "random": "random directions"}
# Names under which the interpret stage explains what is no feature of a dictionary.
EXPLAINED_AS = {"feature": "", "neuron": "neurons", "random": "random direction"}
HOW = (
    "Every row of the dataset was searched with a streaming top-k. Contexts that agree on the strongest token and "
    "the four before it count once. Consistency of a direction is the largest share of its strongest contexts with "
    "the same token at the peak, or the same token (or none) before it: a number a program can count. It misses "
    "features for a class of tokens, and says nothing of what a feature means: that is left to the reader. The "
    f"claim counts as reproduced where more than half of the features reach {CONSISTENT:.0%} and their mean is "
    "above that of random directions (95 % bootstrap interval over directions). Neurons stand beside them; the "
    "seed had not compared with neurons."
)


def section(facts: Facts) -> Section:
    """Consistency of the strongest contexts, then the contexts themselves."""
    numbers: Numbers | None = facts.finding("3").numbers
    blocks: list[Block | None] = []
    if numbers:
        blocks = [_consistency(numbers), *(_contexts(facts, kind, numbers) for kind in WORDS)]
    summary = _summary(numbers) if numbers else ""
    return claim_section(facts, "3", "top-tokens", "What the features respond to", summary, blocks, HOW)


def _summary(numbers: Numbers) -> str:
    mean = numbers.mean_consistency
    if not mean:
        return ""
    parts = [f"{mean[kind].text()} for {words}" for kind, words in WORDS.items() if kind in mean]
    return (
        f"Of the {numbers.contexts} strongest contexts among {numbers.searched:,} tokens, the share that agrees "
        f"on a token is on average {', '.join(parts)}."
    )


def _consistency(numbers: Numbers) -> Figure | None:
    """Consistency of each direction's strongest contexts: a point per direction, beside boxes."""
    values = {words: own for kind, words in WORDS.items() if (own := numbers.consistency[kind])}
    if not values:
        return None
    data, layout = charts.boxes(values, "contexts that share a token", 0, ".0%", tickformat=".0%")
    rows = [[direction, *own] for direction, own in enumerate(zip_longest(*values.values()), 1)]
    return charts.figure(
        "consistency",
        "Each point is a direction: the share of its strongest contexts that agree on the token at the peak or the one "
        "before it.",
        "Box plots of the consistency of the strongest contexts of features, neurons and random directions.",
        "Consistency of each direction.",
        {"direction": ",d"} | dict.fromkeys(values, ".2f"),
        rows,
        data,
        layout,
        height=320,
    )


def _contexts(facts: Facts, kind: str, numbers: Numbers) -> Examples | None:
    found = numbers.examples[kind]
    if not found or not facts.features:
        return None
    captions = {
        "feature": f"The steadiest features, with the strongest of {numbers.searched:,} tokens. The darker the "
        "mark, the stronger the activation; the number is that of the outlined token.",
        "neuron": "Neurons of the same layer, drawn at random.",
        "random": "Random directions.",
    }
    limit = facts.features if kind == "feature" else len(found)
    said = explanations(facts.interpretations)
    shown = [
        _one(kind, one, said, facts.browser) | {"examples": one["examples"][: facts.tokens]} for one in found[:limit]
    ]
    return Examples({"feature": "features", "neuron": "neurons", "random": "directions"}[kind], captions[kind], shown)


def _one(kind: str, found: dict[str, Any], said: Mapping[tuple[str, int], str], browser: str) -> dict[str, Any]:
    same = f"{found['consistency']:.0%} of {found['distinct']} contexts share a token"
    active = f"active on {found['density']:.2%} of tokens"
    if kind == "feature":
        name = f"{found['dictionary']} feature {found['feature']}"
        again = f"found again in {found['stability']:.0%} of the other dictionaries, mean cosine"
        facts = f"{again} {found['mean_cosine']:.2f}, {active}; {same}"
    else:
        name = f"neuron {found['neuron']}" if kind == "neuron" else f"random direction {found['direction']}"
        facts = f"{same}" if kind == "random" else f"{active}; {same}"
    about = {key: value for key, value in found.items() if key != "examples"} | {"name": name, "facts": facts}
    own = {"feature": ("dictionary", "feature"), "neuron": ("", "neuron"), "random": ("", "direction")}[kind]
    place = (found.get(own[0]) or EXPLAINED_AS[kind], found[own[1]])
    if browser and kind != "random":
        about["href"] = f"{browser}#{urlencode(dict(zip('df', place, strict=True)))}"
    return about | ({"explanation": said[place]} if place in said else {})
