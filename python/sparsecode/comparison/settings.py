"""How dictionaries are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sparsecode.errors import InvalidSetting


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """What counts as found again.

    Attributes:
        threshold: cosine above which a feature counts as found again, from -1 to below 1.
        duplicate_threshold: cosine with another atom of its own dictionary above which a feature counts as a
            near-duplicate.
        bins: bins of the histograms of maximum cosine similarities, over 0 to 1.
        absolute: ignore the sign of cosines.

    Raises:
        InvalidSetting: a value outside its range.
    """

    threshold: float = 0.9
    duplicate_threshold: float = 0.8
    bins: int = 50
    absolute: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "duplicate_threshold"):
            if not -1 <= getattr(self, name) < 1:
                raise InvalidSetting(f"{name} is {getattr(self, name):g}, not from 0 to below 1")
        if not 1 <= self.bins <= 10_000:
            raise InvalidSetting(f"bins is {self.bins}, not from 1 to 10000")

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
