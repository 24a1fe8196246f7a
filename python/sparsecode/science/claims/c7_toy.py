"""Claim 7, judged: do sparse dictionaries recover known features, and does MMCS with larger ones show which did?

The rule and its thresholds are in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.science.claims import trained
from sparsecode.science.claims.verdicts import CONTRAST, RECOVERED, REGRET, truth_and_its_sign
from sparsecode.science.statistics.bootstrap import Interval

CLAIM = (
    "In toy models sparse dictionaries recover the true features, and similarity to larger dictionaries shows which did"
)


def verdict(record: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a toy sweep.

    Args:
        record: what toy.json holds: "settings", "steps" and "dictionaries".

    Returns:
        {"claim", "verdict": reproduced | partly | not reproduced | not tested, "reason", "number": in words,
        "recovered": {held, name, mmcs_truth, interval}, "sign": {held, sizes: [{dict_size, seed, chosen_l1, best_l1,
        regret}]}, "thresholds"}.
    """
    measured = [row for row in record["dictionaries"] if row.get("mmcs_truth") is not None]
    thresholds = {"recovered": RECOVERED, "regret": REGRET, "contrast": CONTRAST}
    if not measured:
        return {"claim": CLAIM} | truth_and_its_sign(None, []).as_json() | {"thresholds": thresholds}
    best = max(measured, key=lambda row: row["mmcs_truth"])
    interval = Interval(best["mmcs_truth"], *best["mmcs_truth_interval"])
    true_features = int(record["settings"]["true_features"])
    sizes = _choices(measured, true_features)
    regrets = [size["regret"] for size in sizes]
    found = truth_and_its_sign(interval, regrets).as_json()
    if why := thin(record):
        judged = trained.too_thin(why)
        found |= {"verdict": judged.verdict, "reason": judged.reason}
    found["number"] = f"{best['recovered']} of {true_features} true features; {found['number']}"
    return (
        {"claim": CLAIM}
        | found
        | {
            "recovered": {
                "held": interval.low >= RECOVERED,
                "name": best["name"],
                "mmcs_truth": best["mmcs_truth"],
                "interval": best["mmcs_truth_interval"],
            },
            "sign": {"held": bool(regrets) and max(regrets) <= REGRET, "sizes": sizes},
            "thresholds": thresholds,
        }
    )


def thin(record: Mapping[str, Any]) -> str:
    """Why the toy models say nothing of the claim; empty where they do."""
    steps = record.get("steps")
    rows = [row for row in record["dictionaries"] if row.get("mmcs_truth") is not None]
    return "" if steps is None else trained.toy(int(steps), rows, int(record["settings"]["true_features"]))


def _choices(measured: list[dict[str, Any]], true_features: int) -> list[dict[str, Any]]:
    """Per size and seed, what choosing L1 by MMCS with larger costs; sizes that cannot hold the truth left out."""
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in measured:
        if row["dict_size"] >= true_features and row.get("matched_mmcs_larger") is not None:
            groups.setdefault((row["dict_size"], row["seed"]), []).append(row)
    found = []
    for (size, seed), rows in sorted(groups.items()):
        values = [row["mmcs_truth"] for row in rows]
        if max(values) - min(values) < CONTRAST:
            continue
        chosen = max(rows, key=lambda row: row["matched_mmcs_larger"])
        best = max(rows, key=lambda row: row["mmcs_truth"])
        found.append(
            {
                "dict_size": size,
                "seed": seed,
                "chosen_l1": chosen["l1"],
                "best_l1": best["l1"],
                "regret": best["mmcs_truth"] - chosen["mmcs_truth"],
            }
        )
    return found
