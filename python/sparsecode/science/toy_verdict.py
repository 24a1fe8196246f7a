"""Claim 7, judged: do sparse dictionaries recover known features, and does MMCS with larger ones show which did?

The rule, in two halves:

recovered   The best dictionary's MMCS with the truth is at least RECOVERED, and so is the lower end of its 95 %
            bootstrap interval over true features. RECOVERED is 0.9, the cosine above which a feature counts as found
            again everywhere else; a dictionary that learned nothing reaches 0.2 in the default space.
sign        Someone who does not know the truth picks the L1 whose dictionary is most like the next larger one (matched
            MMCS, the seed's). At every size that could hold the truth, this choice loses at most REGRET of MMCS with
            the truth against the best L1 of that size. REGRET is 0.05, half the distance from RECOVERED to perfect.
            Sizes at which L1 hardly matters (a range of MMCS below CONTRAST) could not fail, and are left out.

Both: reproduced. One: partly. None: not reproduced. Where no size is left for the second half, it counts as not held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECOVERED = 0.9
REGRET = 0.05
CONTRAST = 0.1

CLAIM = (
    "In toy models sparse dictionaries recover the true features, and similarity to larger dictionaries shows which did"
)


def verdict(record: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a toy sweep.

    Args:
        record: what toy.json holds: "settings" and "dictionaries".

    Returns:
        {"claim", "verdict": reproduced | partly | not reproduced | not tested, "number": in words,
        "recovered": {held, name, mmcs_truth, interval}, "sign": {held, sizes: [{dict_size, seed, chosen_l1, best_l1,
        regret}]}, "thresholds"}.
    """
    measured = [row for row in record["dictionaries"] if row.get("mmcs_truth") is not None]
    thresholds = {"recovered": RECOVERED, "regret": REGRET, "contrast": CONTRAST}
    if not measured:
        return {"claim": CLAIM, "verdict": "not tested", "number": "no dictionary", "thresholds": thresholds}
    best = max(measured, key=lambda row: row["mmcs_truth"])
    recovered = best["mmcs_truth_interval"][0] >= RECOVERED
    sizes = _choices(measured, int(record["settings"]["true_features"]))
    sign = bool(sizes) and all(size["regret"] <= REGRET for size in sizes)
    low, high = best["mmcs_truth_interval"]
    number = (
        f"MMCS with the truth up to {best['mmcs_truth']:.3f} ({low:.3f} to {high:.3f}; at the start "
        f"{best['mmcs_truth_start']:.2f}), {best['recovered']} of {record['settings']['true_features']} true features; "
    )
    if sizes:
        worst = max(sizes, key=lambda size: size["regret"])
        number += f"L1 chosen by MMCS with larger loses at most {worst['regret']:.3f} of it"
    else:
        number += "no size at which a choice of L1 could be tested"
    return {
        "claim": CLAIM,
        "verdict": ("not reproduced", "partly", "reproduced")[recovered + sign],
        "number": number,
        "recovered": {
            "held": recovered,
            "name": best["name"],
            "mmcs_truth": best["mmcs_truth"],
            "interval": best["mmcs_truth_interval"],
        },
        "sign": {"held": sign, "sizes": sizes},
        "thresholds": thresholds,
    }


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
