"""Claim 4: the diagonals of heat maps over size and L1 come from dividing L1 by the size."""

from __future__ import annotations

from typing import Any

from sparsecode.science.claims import trained
from sparsecode.science.claims.evidence import Evidence, Family, Finding
from sparsecode.science.claims.verdicts import diagonal_is_an_artefact, not_tested
from sparsecode.science.statistics.l0_contours import local_slopes, slope

CLAIM = (
    "The diagonal lines of heat maps over size and L1 are an artefact of dividing L1 by the dictionary size; without "
    "the division one L1 suits a broad range of sizes."
)


def judge(evidence: Evidence) -> Finding:
    """Slope of lines of equal L0 under both normalisations, and what one L1 for all sizes costs in MMCS."""
    if evidence.plain is None or evidence.divided is None:
        why = evidence.missing.get("sweeps", "The sweep under both normalisations was not run.")
        return Finding(CLAIM, not_tested(why))
    numbers: dict[str, Any] = {}
    slopes = {}
    thin = ""
    for name, family in (("plain", evidence.plain), ("divided", evidence.divided)):
        rows = [_row(entry) | {"untrained": family.untrained.get(entry["name"])} for entry in family.entries]
        thin = thin or trained.share(family.untrained, len(rows))
        grid: dict[int, list[tuple[float, float]]] = {}
        for row in rows:
            if row["l0"] is not None and not row["untrained"]:
                grid.setdefault(row["size"], []).append((row["l1"], row["l0"]))
        found = local_slopes(grid)
        slopes[name] = slope(found, draws=evidence.config.draws)
        numbers[name] = {
            "dictionaries": rows,
            "slope": (interval := slopes[name]) and interval.as_json(),
            "local_slopes": [vars(one) for one in found],
            "one_l1": _one_l1(family),
        }
    verdict = diagonal_is_an_artefact(slopes["plain"], slopes["divided"])
    return Finding(CLAIM, trained.too_thin(thin) if thin else verdict, numbers)


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    metrics, following = entry.get("metrics") or {}, entry["next"]
    return {
        "size": entry["dict_size"],
        "l1": entry["l1"],
        "l0": metrics.get("l0"),
        "fvu": metrics.get("fvu"),
        "dead": metrics.get("dead"),
        "mmcs": following["mcs"]["all"]["mean"] if following else None,
    }


def _one_l1(family: Family) -> dict[str, Any] | None:
    """The L1 whose MMCS is nearest to the best of every size, and by how much it falls short where it is worst."""
    best: dict[int, float] = {}
    found: dict[float, dict[int, float]] = {}
    for entry in family.entries:
        if entry["next"]:
            value = entry["next"]["mcs"]["all"]["mean"]
            found.setdefault(entry["l1"], {})[entry["dict_size"]] = value
            best[entry["dict_size"]] = max(best.get(entry["dict_size"], -1.0), value)
    lost = {
        l1: max(best[n] - by_size[n] for n in best) for l1, by_size in found.items() if by_size.keys() == best.keys()
    }
    if not lost:
        return None
    chosen = min(lost, key=lambda l1: lost[l1])
    return {"l1": chosen, "falls_short": lost[chosen]}
