"""The banner of a report: what was trained too little, and which claims were not tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsecode.report.blocks import Section
from sparsecode.science.claims.verdicts import NOT_TESTED


@dataclass(frozen=True)
class Banner:
    """The first words on the page; empty if everything was trained and tested enough.

    Attributes:
        thin: by stage, results below the bounds of `science.trained`.
        not_tested: sections of claims that were not tested, by reason.
    """

    thin: Mapping[str, Sequence[str]] = field(default_factory=dict)
    not_tested: Mapping[str, Sequence[Section]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.thin or self.not_tested)

    def as_json(self) -> dict[str, Any]:
        """For report.json: `thin` by stage, `not_tested` by section with its reason."""
        return {
            "thin": {stage: list(lines) for stage, lines in self.thin.items()},
            "not_tested": {section.id: reason for reason, found in self.not_tested.items() for section in found},
        }


def banner_of(thin: Mapping[str, Sequence[str]], sections: Sequence[Section]) -> Banner:
    """The banner for some sections, from which it takes the claims that were not tested."""
    by_reason: dict[str, list[Section]] = {}
    for section in sections:
        if section.claim is not None and section.claim.verdict.verdict == NOT_TESTED:
            by_reason.setdefault(section.claim.verdict.reason, []).append(section)
    return Banner({stage: lines for stage, lines in thin.items() if lines}, by_reason)
