"""Makes a consensus: clusters of the members' features, their averages, an encoder for them, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison import Comparison
from sparsecode.comparison.members import MADE_OF
from sparsecode.comparison.records import Calibration, ChanceShare
from sparsecode.consensus import measure
from sparsecode.consensus.build import averaged, common_normalization
from sparsecode.consensus.clusters import Clusters, cluster
from sparsecode.consensus.edges import cycle_consistency
from sparsecode.consensus.functional import functional
from sparsecode.consensus.groups import groups_of
from sparsecode.consensus.records import ConsensusRecord, ConsensusSettings, Group, MemberFacts, Quality, Refit
from sparsecode.consensus.refit import refit
from sparsecode.consensus.subspaces import subspaces
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting
from sparsecode.machine import versions
from sparsecode.sweep.batches import Batches
from sparsecode.sweep.engines import Engine
from sparsecode.sweep.normalization import Normalization
from sparsecode.watch import UNWATCHED, Watch

FORMAT = 1
KIND = "consensus"  # in a dictionary's file
LIKELY = 0.01  # share of features that reach a support by chance, from which on it must be said
_COMMON = ("hook_point", "dataset_fingerprint")  # that the consensus says of itself where its members agree


@dataclass(frozen=True, eq=False)
class Data:
    """Activations that the members were trained on.

    Attributes:
        rows: [R, d] raw rows that none was trained on.
        batches: rows to train on, in a normalisation.
        normalization: of a consensus whose members have different ones.
        engine: what trains.
        threads: of the training; None: as fits.
    """

    rows: Tensor
    batches: Callable[[Normalization], Batches]
    normalization: Normalization
    engine: Engine
    threads: int | None = None


@dataclass(frozen=True, eq=False)
class Made:
    """A consensus, its clusters and its record.

    `members` and `held_out` are in the order in which they count; `chosen` are the clusters of the dictionary's
    features.
    """

    dictionary: Dictionary
    record: ConsensusRecord
    clusters: Clusters
    chosen: Tensor
    members: list[Voter]
    held_out: list[Voter]

    def tensors(self) -> dict[str, Tensor]:
        """What consensus.safetensors holds: per member NAME.label, NAME.votes and NAME.cosine; per cluster the rest."""
        clusters, found = self.clusters, dict[str, Tensor]()
        sizes = [len(one.atoms) for one in self.members]
        parts = {
            "label": clusters.label.int(),
            "votes": clusters.votes.to(torch.uint8),
            "cosine": clusters.cosine.float(),
        }
        for name, values in parts.items():
            for one, own in zip(self.members, torch.split(values, sizes), strict=True):
                found[f"{one.name}.{name}"] = own.clone()
        feature = torch.full((len(clusters),), -1, dtype=torch.int32)
        feature[self.chosen] = torch.arange(len(self.chosen), dtype=torch.int32)
        starts = torch.cumsum(torch.tensor([0, *sizes]), 0)
        member = clusters.owner[clusters.medoid]
        return found | {
            "clusters.support": clusters.support.int(),
            "clusters.seeds": clusters.seeds.int(),
            "clusters.coherence": clusters.coherence.float(),
            "clusters.feature": feature,
            "clusters.medoid_member": member.int(),
            "clusters.medoid_feature": (clusters.medoid - starts[member]).int(),
        }


def make(
    comparison: Comparison,
    voters: Sequence[Voter],
    settings: ConsensusSettings | None = None,
    *,
    name: str | None = None,
    data: Data | None = None,
    watch: Watch = UNWATCHED,
) -> Made:
    """Makes the consensus of some dictionaries.

    The order of `voters` has no effect: those with the largest seeds are held out, the others are sorted by their
    fingerprints.

    Args:
        comparison: of these dictionaries, and others perhaps.
        voters: two or more; of one, the consensus is the dictionary itself.
        settings: how.
        name: of the dictionary; None: says how many features have how much support.
        data: rows to train the encoder on, and to measure on; without them there is neither.
        watch: what it is watched with.

    Raises:
        InvalidSetting: no feature has the support, or encoders can be neither averaged nor trained.
        TrainingDiverged: the training ran into NaN.
    """
    settings = settings or ConsensusSettings()
    members, held_out = split(voters, settings.held_out(len(voters)))
    least = settings.least(len(members))
    check_encoders(members, settings)
    found = cluster(comparison, members, settings.threshold, settings.encoder_threshold)
    chosen = torch.nonzero(found.support >= least).flatten()
    if not len(chosen):
        most = int(found.support.max()) if len(found) else 0
        raise InvalidSetting(
            f"no feature is in {least} of the {len(members)} dictionaries at a cosine above {settings.threshold:g}; "
            f"the largest support is {most}",
            remedy="consensus_support",
        )
    meta: dict[str, Any] = {"kind": KIND} | {
        key: values.pop()
        for key in _COMMON
        if len(values := {str(one.dictionary.meta.get(key)) for one in members}) == 1 and values != {"None"}
    }
    meta["consensus"] = {"support": least, "threshold": settings.threshold, "centre": settings.centre}
    meta[MADE_OF] = [{"name": one.name, "fingerprint": one.fingerprint} for one in members]
    meta["held_out"] = [{"name": one.name, "fingerprint": one.fingerprint} for one in held_out]
    dictionary = averaged(found, chosen, members, centre=settings.centre, meta=meta)
    trained: Refit | None = None
    if data is not None:
        dictionary, trained, rows = _with_data(dictionary, found, chosen, members, settings, data, meta, watch)
    else:
        rows = []
    dimensions = measure.dimensions(None if data is None else data.rows, members)
    every = measure.supports(found, members, settings.threshold, dimensions)
    coherence, expected = found.coherence[chosen], found.expected_cosine[chosen]
    known = ~torch.isnan(coherence)
    record = ConsensusRecord(
        format=FORMAT,
        sparsecode_version=versions().get("sparsecode"),
        settings=settings,
        members=[_facts(one) for one in members],
        held_out=[_facts(one) for one in held_out],
        name=name or f"n{len(chosen)}_support{least}",
        features=len(chosen),
        support=least,
        dimensions=dimensions,
        clusters=len(found),
        duplicates=int(((found.label >= 0) & ~found.votes).sum()),
        cycle_consistency=cycle_consistency(comparison, [one.name for one in members], settings.threshold),
        supports=every,
        coherence=float(coherence[known].mean()) if bool(known.any()) else None,
        expected_cosine=float(expected[known].mean()) if bool(known.any()) else None,
        refit=trained,
        quality=rows,
        found_again=measure.found_again(dictionary.W_dec, members, held_out, dimensions),
        calibration=_calibration(found, members, held_out, settings),
        notes=_notes(members, every[least - 1].chance, settings),
    )
    if data is not None and len(members) > 1:
        if settings.functional:
            record.functional = functional(comparison, members, settings.threshold, data.rows)
            record.groups = _groups(found, members, least, data.rows)
        if settings.subspaces:
            record.subspaces = subspaces(found, members, data.rows)
    return Made(dictionary, record, found, chosen, members, held_out)


def split(voters: Sequence[Voter], hold_out: int) -> tuple[list[Voter], list[Voter]]:
    """Members, sorted by fingerprint, and those that are held out: the last by seed."""

    def mark(one: Voter) -> tuple[str, str]:
        return one.fingerprint or "", one.name

    ordered = sorted(voters, key=lambda one: (one.seed is None, one.seed or 0, *mark(one)))
    first = len(ordered) - hold_out
    return sorted(ordered[:first], key=mark), ordered[first:]


def check_encoders(members: Sequence[Voter], settings: ConsensusSettings) -> None:
    """Raises InvalidSetting where encoders are to be averaged that have no meaning alone."""
    wrong = [one for one in members if not one.averages]
    if settings.refit == "none" and wrong:
        raise InvalidSetting(
            f"{wrong[0].name}: the codes of a {wrong[0].dictionary.activation.name} depend on its other features, so "
            "encoders cannot be averaged; the encoder must be trained",
            remedy="consensus_refit",
        )


def _with_data(
    dictionary: Dictionary,
    found: Clusters,
    chosen: Tensor,
    members: Sequence[Voter],
    settings: ConsensusSettings,
    data: Data,
    meta: dict[str, Any],
    watch: Watch,
) -> tuple[Dictionary, Refit | None, list[Quality]]:
    """The dictionary with its encoder, and how well it and what it is compared with reconstruct."""
    own = [measure.quality(one.name, one.dictionary, data.rows) for one in members]
    target = median(one.l0 for one in own)
    rows = [measure.quality("consensus, averaged encoders", dictionary, data.rows)]
    trained: Refit | None = None
    if settings.refit == "encoder":
        scaled = common_normalization(members)
        if scaled is None:
            scaled = data.normalization.mean, float(data.normalization.scale)
            dictionary = averaged(found, chosen, members, centre=settings.centre, scaled=scaled, meta=meta)
        batches = data.batches(Normalization(*scaled))
        dictionary, trained = refit(
            dictionary, members, settings, batches, data.engine, data.rows, target, watch, data.threads
        )
        rows.insert(0, measure.quality("consensus", dictionary, data.rows))
    else:
        rows[0] = replace(rows[0], what="consensus")
    first = rows[0]
    dictionary.meta["metrics"] = {
        "fvu": first.fvu, "l0": first.l0, "dead": first.dead, "rows": len(data.rows),
    }  # fmt: skip
    middle = sorted(range(len(own)), key=lambda k: own[k].fvu)[(len(own) - 1) // 2]
    member, count = members[middle], len(chosen)
    cut = f"{member.name}, its {count} densest"
    whole = averaged(found, torch.arange(len(found)), members, centre=settings.centre)
    rows += [
        *own,
        measure.quality(cut, member.dictionary, data.rows, measure.densest(member, count)),
        measure.bagging(members, data.rows),
        measure.quality("all clusters, averaged encoders", whole, data.rows),
    ]
    return dictionary, trained, rows


def _calibration(
    found: Clusters, members: Sequence[Voter], held_out: Sequence[Voter], settings: ConsensusSettings
) -> Calibration | None:
    if not held_out:
        return None
    every = averaged(found, torch.arange(len(found)), members, centre=settings.centre)
    return measure.calibration(every.W_dec, found.support, len(members), held_out, settings.threshold)


def _groups(found: Clusters, members: Sequence[Voter], support: int, rows: Tensor) -> list[Group]:
    """What is left of the first member with every group kept alone, and left out."""
    own = members[0]
    return [
        Group(own.name, what, measure.quality(f"{what}, kept", own.dictionary, rows, keep),
              measure.quality(f"{what}, dropped", own.dictionary, rows, ~keep))
        for what, keep in groups_of(found, 0, own, support, rows).items()
    ]  # fmt: skip


def _facts(one: Voter) -> MemberFacts:
    return MemberFacts(one.name, one.fingerprint, one.seed, len(one.atoms), int(one.live.sum()))


def _notes(members: Sequence[Voter], by_chance: Sequence[ChanceShare], settings: ConsensusSettings) -> list[str]:
    notes = []
    if max(one.share for one in by_chance) > LIKELY:
        shares = ", ".join(f"{one.share:.1%} in {one.dimensions:.0f}" for one in by_chance)
        notes.append(
            "so many features would have this support by chance, were atoms random directions in as many dimensions as "
            f"the activations have, as the atoms use, or as the data's variance spreads over: {shares}; a threshold "
            f"above {settings.threshold:g} tells more"
        )
    marks = {one.fingerprint: one.name for one in members if one.fingerprint}
    for one in members:
        inside = [
            marks[own["fingerprint"]] for own in one.dictionary.meta.get(MADE_OF, ()) if own["fingerprint"] in marks
        ]
        if inside:
            notes.append(f"{one.name} is made of {', '.join(inside)}, which have votes of their own")
    if len({one.seed for one in members}) < len(members):
        notes.append("some members share a seed, so that they may agree for another reason than the data")
    return notes
