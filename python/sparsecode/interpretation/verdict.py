"""What the groups say: whether explanations of features predict better than those of other directions.

The rule stands here and nowhere else. `judge` takes numbers and can come out either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsecode.interpretation.groups import CONTROL, FEATURES, FOUND, OTHER
from sparsecode.science.claims.verdicts import NOT_TESTED, Verdict
from sparsecode.science.statistics import bootstrap
from sparsecode.science.statistics.bootstrap import Interval

HIGHER, PARTLY, NOT_HIGHER, NOT_INFORMATIVE = "higher", "partly", "not higher", "not informative"
# Where a table of tokens, or an explanation, predicts random directions as well as this, the activations say little
# more than which token it is, and every direction can be explained: a GPT after 400 steps has 0.87 and 0.75, all-MiniLM
# 0.24 and 0.22.
BOUND = 0.6
LEAST = 5  # directions: a mean of fewer says nothing
RANDOM = "random"
_OWN = (FOUND, FEATURES)  # the group that is judged: the first of these that there is


def judged(scores: Mapping[str, Sequence[float]]) -> str | None:
    """The group that is judged, if it is there."""
    return next((group for group in _OWN if len(scores.get(group, ())) >= LEAST), None)


def differences(scores: Mapping[str, Sequence[float]], draws: int) -> dict[str, Interval]:
    """By how much the mean score of the group that is judged is above that of each other group, with the 95 % interval
    over resampled directions of both.

    Args:
        scores: by group, a score for each direction.
        draws: resamples.
    """
    own = judged(scores)
    if own is None:
        return {}
    return {
        group: bootstrap.difference(scores[own], found, draws=draws)
        for group, found in scores.items()
        if group != own and len(found) >= LEAST
    }


def judge(scores: Mapping[str, Sequence[float]], over: Mapping[str, Interval], token_table: Sequence[float]) -> Verdict:
    """The verdict.

    Args:
        scores: by group, a score for each direction.
        over: see `differences`.
        token_table: of each random direction, how well a table of tokens predicts it.
    """
    own, random = judged(scores), scores.get(RANDOM, ())
    if own is None:
        return Verdict(NOT_TESTED, f"Fewer than {LEAST} features could be explained.", "–")
    if RANDOM not in over:
        return Verdict(NOT_TESTED, "There are no random directions to compare with.", "–")
    mean, table = sum(random) / len(random), sum(token_table) / len(token_table)
    if max(mean, table) >= BOUND:
        number = f"random directions {mean:.2f}, a table of tokens predicts them with {table:.2f}"
        return Verdict(
            NOT_INFORMATIVE,
            f"Random directions are predicted well too (from {BOUND:g} on): these activations say little more than "
            "which token it is, so that a high score says nothing of features.",
            number,
        )
    # Other features are no baseline: that they score as high would say nothing against features.
    compared = {group: found for group, found in over.items() if group != OTHER}
    above = [group for group, found in compared.items() if found.low > 0]
    nearest = min(compared, key=lambda group: compared[group].value)
    number = f"{sum(scores[own]) / len(scores[own]):.2f}, {compared[nearest].text('+.2f')} over {said(nearest)}"
    doubtful = any(found.holds(0) for found in compared.values())
    if len(above) == len(compared):
        return Verdict(HIGHER, "Features are predicted better than the directions of every other group.", number)
    rest = [said(group) for group in compared if group not in above]
    if above:
        reason = f"Features are predicted better than some of the others, but not than {', '.join(rest)}."
        return Verdict(PARTLY, reason, number).doubted(doubtful)
    return Verdict(NOT_HIGHER, "Features are not predicted better than other directions.", number).doubted(doubtful)


def said(group: str) -> str:
    """What to call a group in a sentence."""
    return {
        FOUND: "features found again", OTHER: "other features", FEATURES: "features", RANDOM: "random directions",
        CONTROL: "features of an untrained model", "pca": "PCA", "ica": "ICA", "nmf": "NMF",
    }.get(group, group)  # fmt: skip
