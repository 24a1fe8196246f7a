"""What a comparison holds, with types: settings, and for every dictionary how much of it is found again where."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sparsecode.errors import InvalidSetting

_NUMBER = re.compile(r"(?<![a-z\d])\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def kind_order(kind: str | None, l1: float | None) -> tuple[Any, ...]:
    """What sorts dictionaries by kind, its numbers and L1: those whose file names no kind, ReLU with L1, come first.

    >>> sorted(["topk k=16", "topk k=8", None], key=lambda kind: kind_order(kind, None))
    [None, 'topk k=8', 'topk k=16']
    """
    text = kind or ""
    return _NUMBER.split(text), [float(number) for number in _NUMBER.findall(text)], l1 or 0.0


class Relation(StrEnum):
    """What a dictionary is compared with. `long` and `short` are labels; the short one fits a legend on a phone."""

    NEXT = "next", "next larger size", "next larger"
    OTHER_SEED = "other_seed", "same size, another seed", "another seed"
    NEXT_OTHER_SEED = "next_other_seed", "next larger size, another seed", "next larger, another seed"
    EVERY_LARGER = "every_larger", "every larger dictionary", "every larger"

    long: str
    short: str

    def __new__(cls, value: str, long: str, short: str) -> Relation:
        """A member that is equal to its value, with its labels."""
        member = str.__new__(cls, value)
        member._value_, member.long, member.short = value, long, short
        return member


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


@dataclass(frozen=True)
class Cosines:
    """Cosines of some features, one each: their mean, how many are above the threshold, and a histogram over 0 to 1.

    `mean` and `share_above` are None where there is no feature.
    """

    features: int
    mean: float | None
    above: int
    share_above: float | None
    histogram: list[int]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Cosines of all features of a dictionary, and of its live and dead ones where that was counted.

    Features without a partner in a matching are in none of them; `unmatched` says how many they are.
    """

    unmatched: int
    all: Cosines
    live: Cosines | None = None
    dead: Cosines | None = None

    @property
    def parts(self) -> dict[str, Cosines]:
        """By name: live and dead features; all, where that was not counted."""
        return {"all": self.all} if self.live is None or self.dead is None else {"live": self.live, "dead": self.dead}


@dataclass(frozen=True)
class Consistency:
    """What a pair that is matched one-to-one has in common.

    Attributes:
        pairs: features that have a partner.
        pw_mcc, pw_mcc_absolute: mean cosine of the matching, and of that of absolute cosines.
        shared_threshold: cosine in encoder and decoder above which a pair is shared.
        shared, share_shared: pairs that are, and their share; None if an encoder is unknown.
    """

    pairs: int
    pw_mcc: float
    pw_mcc_absolute: float
    shared_threshold: float
    shared: int | None
    share_shared: float | None


@dataclass(frozen=True, kw_only=True)
class Matched(Summary):
    """Cosines of the one-to-one matching, seen from one of the two."""

    consistency: Consistency


@dataclass(frozen=True)
class Nearest:
    """A dictionary's features in another one.

    Attributes:
        dictionary: the other's name.
        chance_mmcs: mean cosine that random directions would reach.
        mcs: cosines with the nearest atoms.
        mutual: features above the threshold whose nearest atom has them as its own nearest.
        matched: the one-to-one matching; None if the pair was not matched.
    """

    dictionary: str
    chance_mmcs: float
    mcs: Summary
    mutual: int
    matched: Matched | None


@dataclass(frozen=True)
class NearDuplicates:
    """Live features with another atom of their own dictionary above `threshold`."""

    threshold: float
    features: int


@dataclass(frozen=True)
class EveryLarger:
    """Features that are found again in all larger dictionaries; how many of them are live, if that was counted."""

    dictionaries: list[str]
    features: int
    live: int | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One dictionary of a comparison, and how much of it is found again in its relatives.

    Attributes:
        name: its name.
        dict_size, activation_dim: numbers of its features and of the dimensions of an atom.
        without_direction: atoms of norm zero, if there are any; they are found nowhere, and in no mean.
        about: what its file says of kind, L1, seed, hook point, data, loss, samples and metrics.
        live: features that fired on the held-out rows; None if that was not counted.
        near_duplicates: see there.
        next, other_seed, next_other_seed, every_larger: in its relatives (see `Place`); None without one.
        mean_stability: over its features.
        alignment: of its encoder and its atoms; None where they lie in different spaces.
    """

    name: str
    dict_size: int
    without_direction: int | None = None
    activation_dim: int
    about: dict[str, Any] = field(metadata={"spread": True})
    live: int | None
    near_duplicates: NearDuplicates
    next: Nearest | None
    other_seed: Nearest | None
    next_other_seed: Nearest | None
    every_larger: EveryLarger | None
    mean_stability: float
    alignment: Alignment | None = None

    @property
    def l1(self) -> float | None:
        """Its L1 coefficient, where its file says."""
        return self.about.get("l1")

    @property
    def kind(self) -> str | None:
        """Its kind with its settings, such as `topk k=8`; None for a ReLU with L1, and where its file does not say."""
        return self.about.get("kind")

    @property
    def kind_name(self) -> str:
        """Its kind without numbers: what it has in common with those that differ from it in how sparse they are."""
        return "".join(kind_order(self.kind or "relu", None)[0])

    @property
    def order(self) -> tuple[Any, ...]:
        """See `kind_order`."""
        return kind_order(self.kind, self.l1)

    @property
    def seed(self) -> int | None:
        """The seed of its training, where its file says."""
        return self.about.get("seed")

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured of it on held-out rows; empty where its file says nothing."""
        return self.about.get("metrics") or {}

    def relative(self, relation: Relation) -> Nearest | None:
        """Its features in one relative."""
        found: Nearest | None = getattr(self, relation)
        return found

    def found_again(self, relation: Relation) -> int | None:
        """Features found again: mutual nearest ones, or those above the threshold in every larger dictionary."""
        if relation is Relation.EVERY_LARGER:
            return self.every_larger.features if self.every_larger else None
        found = self.relative(relation)
        return found.mutual if found else None


@dataclass(frozen=True)
class Steady:
    """A feature found again in many dictionaries: its share of them, and its cosines with its nearest atoms there.

    `in_every_larger` is None where there is no larger one, `density` where it was not counted.
    """

    dictionary: str
    feature: int
    stability: float
    mean_cosine: float
    lowest_cosine: float
    in_every_larger: bool | None
    density: float | None


@dataclass(frozen=True)
class Input:
    """Where a dictionary came from; `path` and `fingerprint` are None for one that never lay on disk."""

    name: str
    path: str | None
    fingerprint: str | None


@dataclass(frozen=True)
class ChanceShare:
    """Share of features that random directions would find, in so many dimensions."""

    dimensions: float
    share: float


@dataclass(frozen=True)
class Predicted:
    """Features of which a share was predicted to be found, and the share that was; None where there is no feature."""

    predicted: float
    features: int
    found: float | None


@dataclass(frozen=True)
class Calibration:
    """How well a share says what a seed that was left out has.

    Attributes:
        rows: what was predicted, and what was found; a feature counts once for every seed that was left out.
        brier: mean squared difference of the prediction and 1 where it was found, 0 where not.
        slope: of what was found over what was predicted, by least squares; 1 if predictions hold.
    """

    rows: list[Predicted]
    brier: float | None
    slope: float | None


@dataclass(frozen=True)
class BySeed:
    """Dictionaries that differ in their seed alone: how many live features of all are found in how many others.

    Attributes:
        dictionaries, seeds: of the group.
        features: live ones.
        found: of c = 0 to all others, the features found in c of them.
        floors: for each c, the one-sided 95 % lower bound of the share of all seeds that have such a feature.
        chance: share that random directions would find in one other, in the dimensions of the activations and in those
            that the atoms effectively use.
        orphans: for k = 2 up, the share that none of k - 1 other seeds has.
        calibration: None for two dictionaries.
    """

    dictionaries: list[str]
    seeds: list[int]
    features: int
    found: list[int]
    floors: list[float]
    chance: list[ChanceShare]
    orphans: list[float]
    calibration: Calibration | None


@dataclass(frozen=True)
class Alignment:
    """Products of each encoder row and its atom: their means, and Spearman's correlation with stability.

    `live` and `dead`: means over such features; None where there are none, or where that was not counted.
    """

    mean: float
    live: float | None
    dead: float | None
    with_stability: float | None


@dataclass(frozen=True)
class Akin:
    """Two dictionaries that agree by construction, so that neither counts in the other's stability.

    Attributes:
        first, second: their names.
        members: what both are, average, or began near.
        start_cosine, end_cosine: where both began near the same atoms, the mean cosine of features that began near the
            same one, then and now.
    """

    first: str
    second: str
    members: list[str]
    start_cosine: float | None = None
    end_cosine: float | None = None


@dataclass(frozen=True)
class Matrices:
    """MMCS from the row's dictionary to the column's, [K][K]; `live`: None where one has no live features."""

    all: list[list[float]]
    live: list[list[float | None]]


@dataclass(kw_only=True)
class Contents:
    """The figures of a comparison: what comparison.json holds.

    `dictionaries` are in the order of the matrices, `matched` are by "NAME -> OTHER", seen from NAME; `by_seed` has the
    groups that differ in their seed alone, if there are any; `akin` the pairs that were made of common dictionaries;
    `left_out` lists what could not be used, as {"path", "reason"}, where it was asked for.
    """

    format: int
    sparsecode_version: str | None
    settings: CompareSettings
    inputs: list[Input]
    dictionaries: list[Entry]
    mmcs: Matrices
    matched: dict[str, Matched]
    steadiest: list[Steady]
    by_seed: list[BySeed] | None = None
    akin: list[Akin] | None = None
    left_out: list[dict[str, str]] | None = None
