"""Claim 5: as dictionaries grow, MMCS first rises rapidly, then stays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import Evidence, Family, Finding
from sparsecode.science.claims.verdicts import LEAST_SIZES, Verdict, rises_then_plateaus
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval
from sparsecode.science.statistics.changepoint import BendIntervals, bend_of_means

CLAIM = "As the dictionary grows, MMCS first rises rapidly, then plateaus."


def judge(evidence: Evidence) -> Finding:
    """The curve of live features' MMCS with the next larger dictionary at the middle L1, bent once; others beside."""
    curves = [curve for family in evidence.families for curve in _curves(family, evidence.config.draws)]
    judged = _middle([curve for curve in curves if curve["sweep"] == evidence.main.label])
    verdict = judge_curve(evidence.main, judged)
    numbers = {
        "judged_l1": judged["l1"] if judged else None,
        "curves": curves,
        "known_features": known_features(evidence.main, evidence.config.draws),
    }
    return Finding(CLAIM, verdict, numbers)


def judged_curve(family: Family, draws: int) -> dict[str, Any] | None:
    """The curve of one sweep at its middle L1; None without one."""
    return _middle(_curves(family, draws))


def judge_curve(family: Family, judged: dict[str, Any] | None) -> Verdict:
    """The verdict on a curve of one sweep."""
    found = judged["bend_of_live"] if judged else None
    living = [point["live"]["value"] for point in judged["points"] if point["live"]] if judged else []
    if len(living) < LEAST_SIZES and family.untrained:
        return trained.too_thin(trained.listed(family.untrained))
    return rises_then_plateaus(
        found and Interval(**found["before"]),
        found and Interval(**found["after"]),
        len(living),
        living[0] if living else 0.0,
    )


def _middle(curves: list[dict[str, Any]]) -> dict[str, Any] | None:
    return curves[len(curves) // 2] if curves else None


def _curves(family: Family, draws: int) -> list[dict[str, Any]]:
    """For every L1 the MMCS of each size with the next larger one, features of all seeds together."""
    found = []
    for l1 in sorted({float(entry["l1"]) for entry in family.entries if entry.get("l1") is not None}):
        values: dict[int, list[torch.Tensor]] = {}
        alive: dict[int, list[torch.Tensor]] = {}
        matched: dict[int, list[float]] = {}
        for entry in family.entries:
            if entry.get("l1") != l1 or not entry["next"]:
                continue
            size, own = entry["dict_size"], family.comparison.cosine(entry["name"], entry["next"]["dictionary"])
            values.setdefault(size, []).append(own)
            kept = own[:0] if family.below(entry, "next") else own[family.live(entry["name"])]
            alive.setdefault(size, []).append(kept)
            if entry["next"].get("matched"):
                matched.setdefault(size, []).append(entry["next"]["matched"]["all"]["mean"])
        everything = {size: torch.cat(parts).double().numpy() for size, parts in values.items()}
        living = {size: torch.cat(parts).double().numpy() for size, parts in alive.items()}
        points = [
            {
                "size": size,
                "mmcs": bootstrap.interval(everything[size], draws=draws).as_json(),
                "live": bootstrap.interval(living[size], draws=draws).as_json() if len(living[size]) else None,
                "matched": float(np.mean(matched[size])) if size in matched else None,
            }
            for size in everything
        ]
        found.append(
            {
                "sweep": family.label,
                "l1": l1,
                "points": points,
                "bend": _bend(everything, draws),
                "bend_of_live": _bend({size: own for size, own in living.items() if len(own)}, draws),
            }
        )
    return found


def _bend(by_size: dict[int, np.ndarray[Any, Any]], draws: int) -> dict[str, Any] | None:
    if len(by_size) < LEAST_SIZES:
        return None
    return _as_json(bend_of_means([math.log2(size) for size in by_size], list(by_size.values()), draws=draws))


def _as_json(found: BendIntervals) -> dict[str, Any]:
    return {
        "at": round(2**found.at),
        "before": found.before.as_json(),
        "after": found.after.as_json(),
        "share_at": {str(round(2**at)): share for at, share in found.share_at.items()},
    }


def known_features(family: Family, draws: int) -> dict[str, Any] | None:
    """How well dictionaries of each size hold features that are known to be there: the claim's curve for toy models.

    Known: live features of the largest dictionary that the largest one of another seed has as well. Their MCS with
    smaller dictionaries, which had no part in the choice. None without a second seed.
    """
    largest = max(family.entries, key=lambda entry: entry["dict_size"])
    if not largest["other_seed"]:
        return None
    chosen = family.live(largest["name"]) & (
        family.comparison.cosine(largest["name"], largest["other_seed"]["dictionary"]) > family.threshold
    )
    smaller = [
        entry
        for entry in family.entries
        if entry["dict_size"] < largest["dict_size"]
        and entry.get("seed") == largest.get("seed")
        and entry.get("l1") == largest.get("l1")
    ]
    if not bool(chosen.any()) or not smaller:
        return None
    values = {
        entry["dict_size"]: family.comparison.cosine(largest["name"], entry["name"])[chosen].double().numpy()
        for entry in smaller
    }
    return {
        "from": largest["name"],
        "features": int(chosen.sum()),
        "points": [
            {"size": size, "mmcs": bootstrap.interval(own, draws=draws).as_json()} for size, own in values.items()
        ],
        "bend": _bend(values, draws),
    }
