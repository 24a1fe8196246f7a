"""The banner on top of a report: what was trained too little, and which claims were not tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsecode.report.blocks import Section
from sparsecode.science.verdicts import NOT_TESTED


@dataclass(frozen=True)
class Banner:
    """What the page says before anything else; nothing where all was trained and tested.

    Attributes:
        thin: by stage, what of it is below the bounds of `science.trained`.
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
    """The banner over some sections; claims that were not tested are taken from them."""
    by_reason: dict[str, list[Section]] = {}
    for section in sections:
        if section.claim is not None and section.claim.verdict == NOT_TESTED:
            by_reason.setdefault(section.claim.reason, []).append(section)
    return Banner({stage: lines for stage, lines in thin.items() if lines}, by_reason)
