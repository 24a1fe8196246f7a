"""All pairs of dictionaries: what they have in common, one-to-one or not, and how far atoms moved."""

from __future__ import annotations

from typing import Any

from sparsecode.comparison import Relation
from sparsecode.records import as_json
from sparsecode.report import figures, figures_stability
from sparsecode.report.blocks import Section, shown
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section:
    """MMCS between all pairs, PW-MCC and shared features of related ones, motion of atoms."""
    pairs = figures_stability.matched_pairs(facts)
    summary = _summary(facts, pairs) if len(facts.comparison.names) > 1 else "There is one dictionary only."
    return Section(
        "recurrence",
        "Every dictionary against every other",
        summary,
        _lead(facts, pairs),
        shown(
            figures.mmcs_heat_map(facts), figures_stability.agreement(facts, pairs), figures.how_far_atoms_moved(facts)
        ),
        how="Cosines are exact in float32. The one-to-one matching has the largest sum of cosines (Hungarian), proved "
        "optimal. PW-MCC, its mean cosine, is the measure of Song et al. (2025), who take absolute cosines; a ReLU "
        "dictionary's atoms have a sign, so that the signed mean stands first. Shared features are those of Paulo and "
        "Belrose (2025), who found 30 % between two seeds on a large model. Dead features, which stay near their "
        "random start, pull both down: PW-MCC of live pairs leaves them out. Live features are those that fired on the "
        "held-out rows.",
        numbers={
            "mmcs": as_json(facts.comparison.contents.mmcs) | {"order": facts.comparison.names},
            "dictionaries": {
                entry.name: {key.value: as_json(entry.relative(key)) for key in Relation}
                for entry in facts.comparison.entries
            },
            "matched": pairs,
        },
    )


def _lead(facts: Facts, pairs: list[dict[str, Any]]) -> list[str]:
    """Describes the smallest and the largest size that exist with two seeds."""
    sizes = {entry.name: entry.dict_size for entry in facts.comparison.entries}
    own = sorted((pair for pair in pairs if pair["relation"] == "other_seed"), key=lambda pair: sizes[pair["from"]])
    if not own or own[0]["shared"] is None or sizes[own[0]["from"]] == sizes[own[-1]["from"]]:
        return []

    def said(pair: dict[str, Any]) -> str:
        live = "" if pair["pw_mcc_live"] is None else f" ({pair['pw_mcc_live']:.2f} of live pairs)"
        return (
            f"of {sizes[pair['from']]:,} features share {pair['share_shared']:.0%} of them, with a PW-MCC of "
            f"{pair['pw_mcc']:.2f}{live}"
        )

    return [f"Two seeds {said(own[0])}; two seeds {said(own[-1])}."]


def _summary(facts: Facts, pairs: list[dict[str, Any]]) -> str:
    """Compares the best dictionary with its twin of another seed, or with the next larger one."""
    best = facts.comparison.best()
    name = best[0].name if best else None
    own = [pair for pair in pairs if name in (pair["from"], pair["to"]) and pair["relation"] == "other_seed"]
    own = own or [pair for pair in pairs if pair["from"] == name] or pairs
    if not own:
        return ""
    pair = own[0]
    text = (
        f"Matched one to one, {pair['from']} and {pair['to']} have a mean cosine (PW-MCC) of {pair['pw_mcc']:.2f} "
        f"({pair['low']:.2f} to {pair['high']:.2f})"
    )
    if pair["pw_mcc_live"] is not None and pair["live_pairs"] < pair["pairs"]:
        text += f", of live features {pair['pw_mcc_live']:.2f}"
    if pair["shared"] is None:
        return text + "."
    return text + (
        f"; they share {pair['share_shared']:.0%} of {pair['pairs']:,} features above {pair['shared_threshold']:g} in "
        "encoder and decoder."
    )
