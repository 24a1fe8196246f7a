"""When a claim counts as reproduced: what all rules share. Each rule stands with its bounds in the file of its claim.

A rule takes numbers that were measured elsewhere and gives a verdict: it can come out either way, and where the
data cannot decide it says "not tested" and why. Rules look at the end of an interval that is worse for the claim
(95 %, see `statistics.bootstrap`), so that a result within its own noise is not called reproduced.

"Partly" is said where what was seen is there, and what it was taken for is not: two modes of which one is of features
that were never trained (claim 2), features sparser than random directions only as far as some neurons vary more than
others (claim 6), a truth that is recovered and no sign of where (claim 7), or that sign without the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from sparsecode.records import as_json, from_json

REPRODUCED, PARTLY, NOT_REPRODUCED, NOT_TESTED = "reproduced", "partly", "not reproduced", "not tested"
WITHIN_NOISE = "Within noise: a run with another seed may come out otherwise."

# Claims of what is "usual", "most" or "highly": more than half.
MOST = 0.5
N = TypeVar("N")


@dataclass(frozen=True)
class Verdict:
    """A verdict, the sentence that explains it, and the number it rests on in few words.

    `within_noise`: the interval of that number reaches beyond the bound of the rule, so that a run with another seed
    may come out otherwise.
    """

    verdict: str
    reason: str
    number: str = ""
    within_noise: bool = False

    def doubted(self, doubtful: bool) -> Verdict:
        """This verdict, marked as within noise if `doubtful`."""
        if not doubtful:
            return self
        return replace(self, reason=f"{self.reason} {WITHIN_NOISE}", within_noise=True)


def not_tested(reason: str) -> Verdict:
    """What could not be judged, and why."""
    return Verdict(NOT_TESTED, reason, "–")


@dataclass(frozen=True)
class Finding(Generic[N]):
    """One claim: its words, the verdict, and the numbers behind it; None where nothing could be measured."""

    claim: str
    verdict: Verdict
    numbers: N | None = None

    def as_json(self) -> dict[str, Any]:
        """What claims.json holds of it."""
        return {"claim": self.claim, **as_json(self.verdict), "numbers": as_json(self.numbers) or {}}

    @classmethod
    def from_json(cls, numbers: type[N], record: dict[str, Any]) -> Finding[N]:
        """What `as_json` gave, with numbers of their type; raises what `sparsecode.records.from_json` does."""
        measured = from_json(numbers, record["numbers"]) if record["numbers"] else None
        return cls(record["claim"], from_json(Verdict, record), measured)
