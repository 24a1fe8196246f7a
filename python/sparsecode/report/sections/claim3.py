"""Claim 3: what features found in every size respond to."""

from __future__ import annotations

from typing import Any

from sparsecode.report import figures_claims
from sparsecode.report.blocks import Examples, Section
from sparsecode.report.facts import Facts
from sparsecode.report.sections.claim import between, claim_section
from sparsecode.science.claims.c3_interpretability import CLAIM
from sparsecode.science.claims.verdicts import CONSISTENT

ID, TITLE = "top-tokens", "What the features respond to"
WORDS = {"feature": "features found in every size", "neuron": "neurons", "random": "random directions"}


def section(facts: Facts) -> Section:
    """Consistency of the strongest contexts, then the contexts themselves."""
    numbers = facts.finding("3")["numbers"]
    examples = numbers.get("examples", {})
    blocks = [figures_claims.consistency(numbers) if numbers else None]
    return claim_section(
        facts,
        "3",
        ID,
        TITLE,
        CLAIM,
        _summary(numbers),
        [*blocks, *(_contexts(facts, kind, examples.get(kind, []), numbers) for kind in WORDS)],
        how="Every row of the dataset was searched with a streaming top-k. Contexts that agree on the strongest token "
        "and the four before it count once. Consistency of a direction is the largest share of its strongest contexts "
        "with the same token at the peak, or the same token (or none) before it: a number a program can count. It "
        "misses features for a class of tokens, and says nothing of what a feature means: that is left to the reader. "
        f"The claim counts as reproduced where more than half of the features reach {CONSISTENT:.0%} and their mean is "
        "above that of random directions (95 % bootstrap interval over directions). Neurons stand beside them; the "
        "seed had not compared with neurons.",
    )


def _summary(numbers: dict[str, Any]) -> str:
    mean = numbers.get("mean_consistency", {})
    if not mean:
        return ""
    parts = [f"{between(mean[kind])} for {words}" for kind, words in WORDS.items() if kind in mean]
    return (
        f"Of the {numbers['contexts']} strongest contexts among {numbers['searched']:,} tokens, the share that agrees "
        f"on a token is on average {', '.join(parts)}."
    )


def _contexts(facts: Facts, kind: str, found: list[dict[str, Any]], numbers: dict[str, Any]) -> Examples | None:
    if not found or not facts.features:
        return None
    captions = {
        "feature": f"The steadiest features, with the strongest of {numbers['searched']:,} tokens. The darker the "
        "mark, the stronger the activation; the number is that of the outlined token.",
        "neuron": "Neurons of the same layer, drawn at random.",
        "random": "Random directions.",
    }
    limit = facts.features if kind == "feature" else len(found)
    shown = [_one(kind, one) | {"examples": one["examples"][: facts.tokens]} for one in found[:limit]]
    return Examples({"feature": "features", "neuron": "neurons", "random": "directions"}[kind], captions[kind], shown)


def _one(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    same = f"{found['consistency']:.0%} of {found['distinct']} contexts share a token"
    active = f"active on {found['density']:.2%} of tokens"
    if kind == "feature":
        name = f"{found['dictionary']} feature {found['feature']}"
        again = f"found again in {found['stability']:.0%} of the other dictionaries, mean cosine"
        facts = f"{again} {found['mean_cosine']:.2f}, {active}; {same}"
    else:
        name = f"neuron {found['neuron']}" if kind == "neuron" else f"random direction {found['direction']}"
        facts = f"{same}" if kind == "random" else f"{active}; {same}"
    about = {key: value for key, value in found.items() if key != "examples"}
    return about | {"name": name, "facts": facts}
