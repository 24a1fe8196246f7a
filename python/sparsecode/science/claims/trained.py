"""What must have been trained before a claim can be judged: every bound, why it stands where it does, and the rules.

A run on a busy machine may end with a model that knows nothing, dictionaries that reconstruct worse than a constant, or
atoms that lie where they began. A verdict on these says nothing of the claim: it is "not tested", and the run is thin.

Rules are pure functions that give a reason in words, empty where nothing is wrong. What is not known (None: a public
dictionary, a third-party model, a run of an older version) does not count as thin.

What a claim needs stands in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.science.claims.verdicts import MOST, Verdict, not_tested

# A feature that never fired stays near its random start. So does one that fires now and then and hardly moved: of an
# atom whose cosine with its start is above the root of 1/2, more than half of the squared length is still that start.
HARDLY_MOVED = 0.5**0.5
# The mean of the data, which needs no feature at all, has an FVU of 1.
MOST_FVU = 1.0
LEAST_DIRECTIONS = 5  # fewer say nothing of features
# Fewer features cannot be compared with those of another dictionary: as few as no claim takes directions of.
LEAST_LIVE = LEAST_DIRECTIONS


def gpt(result: Mapping[str, Any]) -> str:
    """Why a model says nothing of what transformers learn: it predicts no better than the frequencies of tokens do,
    which know no context.

    Args:
        result: what train-gpt recorded: val_loss and unigram_loss, on the same tokens.
    """
    loss, unigram = result.get("val_loss"), result.get("unigram_loss")
    if loss is None or unigram is None or loss < unigram:
        return ""
    return f"validation loss {loss:.2f} is not below the unigram's {unigram:.2f}"


def dictionary(fvu: float | None, start_cosine: float | None, live: int | None) -> str:
    """Why a dictionary says nothing of the data.

    Args:
        fvu: on held-out rows.
        start_cosine: median cosine of its live atoms with those they started from.
        live: how many features fire on held-out rows.
    """
    if live is not None and live < LEAST_LIVE:
        return f"only {live} live features"
    if fvu is not None and fvu > MOST_FVU:
        return f"FVU {fvu:.3g} is above {MOST_FVU:g}, that of the mean"
    if start_cosine is not None and start_cosine > HARDLY_MOVED:
        return f"most live features hardly moved (median cosine with their start {start_cosine:.2f})"
    return ""


def dictionaries(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Those that are untrained, by name, and why.

    Args:
        rows: by name what was measured: fvu, start_cosine, dead and dict_size (or live), as far as known.
    """
    found = {name: dictionary(row.get("fvu"), row.get("start_cosine"), _live(row)) for name, row in rows.items()}
    return {name: why for name, why in found.items() if why}


def share(untrained: Mapping[str, str], of: int) -> str:
    """In words, where more than `verdicts.MOST` of some dictionaries are untrained; else empty."""
    if len(untrained) <= MOST * of:
        return ""
    return f"{len(untrained)} of {of} dictionaries are untrained: {listed(untrained)}"


def listed(untrained: Mapping[str, str]) -> str:
    """The first of them with its reason, and how many more."""
    if not untrained:
        return ""
    name, why = next(iter(untrained.items()))
    more = f", and {len(untrained) - 1} more" if len(untrained) > 1 else ""
    return f"{name} ({why}){more}"


def counted(untrained: Mapping[str, str], of: int) -> list[str]:
    """A line that says how many of some dictionaries are untrained; none where all are trained."""
    return [f"{len(untrained)} of {of} dictionaries: {listed(untrained)}"] if untrained else []


def too_thin(why: str) -> Verdict:
    """The verdict on a claim whose model or dictionaries are below the bounds."""
    return not_tested(f"Too little training for a verdict: {why}.")


def _live(row: Mapping[str, Any]) -> int | None:
    if row.get("live") is not None or row.get("dead") is None or row.get("dict_size") is None:
        return row.get("live")
    return int(row["dict_size"]) - int(row["dead"])
