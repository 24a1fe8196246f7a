"""What a consensus was made with and what was found, with types: what consensus.json holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsecode.comparison.records import Calibration, ChanceShare
from sparsecode.errors import InvalidSetting

CENTRES = ("mean", "medoid")
REFITS = ("encoder", "none")


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings:
    """How a consensus is made.

    Attributes:
        support: dictionaries that a feature must be in; None: more than half.
        threshold: cosine above which two atoms may be the same feature, and with its centre that every member exceeds.
        encoder_threshold: that of their encoder rows; -1 for none.
        hold_out: dictionaries that are left out to test the others' consensus; None: 1 of four or more, else none.
        centre: a cluster's "mean", or its "medoid": the member nearest to the others.
        refit: "encoder": trained anew, with frozen atoms; "none": averages.
        samples: rows of that training.
        l1: its L1 coefficient; None: those of the members.
        eval_rows: held-out rows to measure on.
        functional: measure there as well whether features behave alike, and what groups of them do.
        subspaces: and what the features span that recur in no other member.

    Raises:
        InvalidSetting: a value outside its range.
    """

    support: int | None = None
    threshold: float = 0.8
    encoder_threshold: float = 0.5
    hold_out: int | None = None
    centre: str = "mean"
    refit: str = "encoder"
    samples: int = 2_000_000
    l1: float | None = None
    eval_rows: int = 16_384
    functional: bool = False
    subspaces: bool = False

    def __post_init__(self) -> None:
        for name, low in (("threshold", 0), ("encoder_threshold", -1)):
            if not low <= getattr(self, name) < 1:
                raise InvalidSetting(f"{name} is {getattr(self, name):g}, not from {low} to below 1")
        for name, known in (("centre", CENTRES), ("refit", REFITS)):
            if getattr(self, name) not in known:
                raise InvalidSetting(f"{name} is '{getattr(self, name)}', not {' or '.join(known)}")

    def held_out(self, dictionaries: int) -> int:
        """How many of so many dictionaries are left out.

        Raises:
            InvalidSetting: none would be left.
        """
        count = int(dictionaries >= 4) if self.hold_out is None else self.hold_out
        if count >= dictionaries:
            raise InvalidSetting(f"hold_out is {count}, which leaves none of {dictionaries} dictionaries")
        return count

    def least(self, members: int) -> int:
        """The support that a feature needs.

        Raises:
            InvalidSetting: more than there are members.
        """
        support = members // 2 + 1 if self.support is None else self.support
        if not 1 <= support <= members:
            raise InvalidSetting(f"support is {support}, not from 1 to the {members} dictionaries that are members")
        return support


@dataclass(frozen=True)
class MemberFacts:
    """A dictionary that has a vote, or is held out: its name, fingerprint, seed, and numbers of features."""

    name: str
    fingerprint: str | None
    seed: int | None
    features: int
    live: int


@dataclass(frozen=True)
class Supported:
    """Clusters of one support.

    Attributes:
        support: dictionaries in each.
        clusters, at_least: how many have it; how many have it or more.
        chance: share of live features that would reach it by chance, if the other dictionaries were random, in each of
            `ConsensusRecord.dimensions`.
        coherence: mean cosine between the members of a cluster; None for a support of 1.
    """

    support: int
    clusters: int
    at_least: int
    chance: list[ChanceShare]
    coherence: float | None


@dataclass(frozen=True)
class Quality:
    """How well a dictionary, or several, reconstruct held-out rows; `loss_recovered` in the model, where asked."""

    what: str
    features: int
    fvu: float
    l0: float
    dead: int
    loss_recovered: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class FoundAgain:
    """Features of something found in a dictionary that was held out.

    `chance`: share that random directions would find, as in `Supported`; `chance_mmcs`: their mean cosine.
    """

    what: str
    features: int
    held_out: str
    threshold: float
    share: float
    mmcs: float
    chance_mmcs: float
    chance: list[ChanceShare]


@dataclass(frozen=True)
class Refit:
    """Training of the encoder with frozen atoms: what was tried, and which is kept.

    `l1` is None for kinds that keep k codes; `tried` has l1, l0 and fvu of each; `target_l0` is the median member's.
    """

    samples: int
    engine: str
    lr: float
    l1: float | None
    target_l0: float
    tried: list[dict[str, float | None]]


@dataclass(frozen=True)
class Behaviour:
    """Medians over pairs of features of two members, on the same rows; see `functional.PairSums`.

    Attributes:
        what: which pairs.
        quartile: of how often the feature fires, 1 for the rarest; None: all.
        features: how many pairs.
        jaccard, correlation, similarity, substitution: None where there is no pair.
    """

    what: str
    quartile: int | None
    features: int
    jaccard: float | None
    correlation: float | None
    similarity: float | None
    substitution: float | None


@dataclass(frozen=True)
class Functional:
    """Whether features that point the same way behave the same.

    Attributes:
        rows: how many.
        least: rows on which a feature must fire to be tested.
        tested, not_tested: live features that do and do not.
        agree: share of the first member's live features whose nearest in the second by codes is that by atoms;
            `agree_chance`: of a random choice.
        parts: see `Behaviour`.
    """

    rows: int
    least: int
    tested: int
    not_tested: int
    agree: float | None
    agree_chance: float
    parts: list[Behaviour]


@dataclass(frozen=True)
class Group:
    """A member's features of one group, kept alone and left out."""

    member: str
    what: str
    kept: Quality
    dropped: Quality


@dataclass(frozen=True, kw_only=True)
class SpacePair:
    """What the features that are in no other member span, in two of them.

    Attributes:
        first, second: the two members; lists below are of the two.
        features: how many such features.
        energy: share of their contribution's variance in that of all live features.
        ratios: participation ratios of its covariance.
        r: dimensions of the subspaces, the mean of the effective ranks (`subspaces.effective_rank`).
        overlap: of the two; `overlap_chance` and `overlap_deviation` of random ones; `overlap_drawn` of atoms drawn
            from the data's covariance that fire as often; `overlap_recurring` of as many features that recur.
        rv, rv_chance, rv_drawn: likeness of the two covariances.
        unexplained: share of the first contribution's variance that the second leaves on the same rows.
        mmcs: mean cosine of the first's such features with the nearest of the second's; `mmcs_local` of random
            directions in as many dimensions as `ratios` says, `mmcs_chance` in all: near the local one, they tile a
            space and are not to be identified.
    """

    first: str
    second: str
    features: list[int]
    energy: list[float]
    ratios: list[float]
    r: int
    overlap: float
    overlap_chance: float
    overlap_deviation: float
    overlap_drawn: float
    overlap_recurring: float
    rv: float
    rv_chance: float
    rv_drawn: float
    unexplained: float
    mmcs: float
    mmcs_local: float
    mmcs_chance: float


@dataclass(frozen=True)
class Subspaces:
    """What unstable features span, of each member and the next, over so many rows of so many dimensions."""

    rows: int
    dimensions: int
    pairs: list[SpacePair]


@dataclass(kw_only=True)
class ConsensusRecord:
    """What consensus.json holds.

    Attributes:
        members, held_out: see `MemberFacts`; members in the order in which they were clustered.
        name, features, support: of the dictionary that was made, and the support that its features have at least.
        dimensions: in which chance is told: of the activations; the effective dimension of the atoms; where rows are at
            hand, the participation ratio of their covariance.
        clusters, duplicates: how many; second atoms of a dictionary in a cluster, which have no vote.
        cycle_consistency: share of paths from feature to nearest feature through three dictionaries that end where the
            direct one does; None where there is none.
        supports: for every support.
        coherence, expected_cosine: means over the features of the dictionary.
        refit: None where there was none.
        quality: of the consensus and what it is compared with; empty without rows.
        found_again: in the dictionaries that were held out.
        calibration: of the support, in these.
        functional, groups, subspaces: where asked for.
        notes: what a reader must know.
    """

    format: int
    sparsecode_version: str | None
    settings: ConsensusSettings
    members: list[MemberFacts]
    held_out: list[MemberFacts]
    name: str
    features: int
    support: int
    dimensions: list[float]
    clusters: int
    duplicates: int
    cycle_consistency: float | None
    supports: list[Supported]
    coherence: float | None
    expected_cosine: float | None
    refit: Refit | None = None
    quality: list[Quality] = field(default_factory=list)
    found_again: list[FoundAgain] = field(default_factory=list)
    calibration: Calibration | None = None
    functional: Functional | None = None
    groups: list[Group] | None = None
    subspaces: Subspaces | None = None
    notes: list[str] = field(default_factory=list)
