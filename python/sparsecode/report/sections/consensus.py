"""What recurs: the consensus of a run's dictionaries, beside its members and in those that had no vote."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from sparsecode.consensus.records import ConsensusRecord
from sparsecode.records import as_json
from sparsecode.report import charts, palette
from sparsecode.report.blocks import Column, Figure, Section, Table, shown
from sparsecode.report.facts import Facts


def section(facts: Facts) -> Section | None:
    """The section of a run's report; None where the run has no consensus."""
    return None if facts.consensus is None else consensus_section(facts.consensus)


def consensus_section(record: ConsensusRecord) -> Section:
    """Features by support, reconstruction, features found again, and whether support predicts that."""
    K = len(record.members)
    return Section(
        "consensus",
        "What recurs, as a dictionary",
        f"{record.features:,} features are in {record.support} or more of {K} dictionaries at a cosine above "
        f"{record.settings.threshold:g}.",
        _lead(record),
        shown(
            _supports(record),
            _quality(record),
            _found_again(record),
            _calibration(record),
            _behaviour(record),
            _groups(record),
            _subspaces(record),
        ),
        how="Features of different dictionaries that are each other's nearest are joined, the nearest pairs first, as "
        "long as no dictionary is in a cluster twice and every member's cosine with the centre stays above the "
        "threshold. A feature of the consensus is the mean of its members' atoms; its encoder is trained anew with the "
        "atoms frozen, and has about the L0 of the median member. Members that make the same mistake agree as well: "
        "what recurs need not be true. docs/consensus.md has the rules.",
        numbers={"consensus": as_json(record)},
    )


def _lead(record: ConsensusRecord) -> list[str]:
    words = []
    rows = {row.what: row for row in record.quality}
    members = [rows[one.name] for one in record.members if one.name in rows]
    if "consensus" in rows and members:
        own, worst, best = rows["consensus"], max(one.fvu for one in members), min(one.fvu for one in members)
        words.append(
            f"With an L0 of {own.l0:.1f} it leaves {own.fvu:.3f} of the variance; its members leave {best:.3f} to "
            f"{worst:.3f}, with {min(one.features for one in members):,} features or more."
        )
    at = [row for row in record.found_again if row.threshold == record.found_again[0].threshold]
    for row, other in pairwise(at):
        if (row.what, other.what) == ("consensus", "members"):
            words.append(
                f"{row.held_out}, which had no vote, has {row.share:.0%} of its features at a cosine above "
                f"{row.threshold:g}, and {other.share:.0%} of its members' ({row.chance[0].share:.1%} by chance, "
                f"{row.chance[1].share:.1%} in as many dimensions as the atoms use)."
            )
    return [*words, *record.notes]


def _chances(record: ConsensusRecord) -> list[Column]:
    words = {
        "activations": "of the activations",
        "atoms": "that the atoms effectively use",
        "data": "over which the data's variance spreads",
    }
    return [
        Column(f"chance, {name}", ".2g", f"of random directions in {dim:.1f} dimensions, as many as those {what}")
        for (name, what), dim in zip(words.items(), record.dimensions, strict=False)
    ]


def _supports(record: ConsensusRecord) -> Figure:
    rows: list[list[Any]] = [
        [one.support, one.clusters, one.at_least, one.coherence, *(level.share for level in one.chance)]
        for one in record.supports
    ]
    layout = palette.layout(
        xaxis=palette.axis("support: dictionaries that have the feature", dtick=1), yaxis=palette.axis("features")
    )
    return charts.figure(
        "consensus-support",
        "Features by the number of members that have them. The table says which share of features would have the "
        "support by chance.",
        "Bars of the number of features for each support.",
        "Features by support.",
        {
            "support": ",d", "features": ",d", "or more": ",d", "coherence": ".3f",
            **{column.title: ".2g" for column in _chances(record)},
        },
        rows,
        [charts.bars("features", [row[0] for row in rows], [row[1] for row in rows], "@series1",
                     "%{y} features in %{x} dictionaries")],
        layout,
        height=320,
    )  # fmt: skip


def _quality(record: ConsensusRecord) -> Table | None:
    if not record.quality:
        return None
    columns = [
        Column("dictionary"),
        Column("features", ",d"),
        Column("FVU", ".4f", "share of variance not explained on held-out rows"),
        Column("L0", ".1f", "active features per row"),
        Column("dead", ",d", "features that never fired there"),
        Column("loss recovered", ".1%", "of the cross-entropy that zeros cost"),
        Column("KL", ".3f", "nats per position"),
    ]
    rows = [[one.what, one.features, one.fvu, one.l0, one.dead, one.loss_recovered, one.kl] for one in record.quality]
    return Table("consensus-quality", "Reconstruction by the consensus and by what it is made of.", columns, rows)


def _found_again(record: ConsensusRecord) -> Table | None:
    if not record.found_again:
        return None
    columns = [
        Column("found in"),
        Column("features of"),
        Column("features", ",d"),
        Column("cosine above", "g"),
        Column("share", ".1%"),
        *_chances(record),
        Column("MMCS", ".3f"),
        Column("MMCS by chance", ".3f"),
    ]
    rows = [
        [one.held_out, one.what, one.features, one.threshold, one.share, *(level.share for level in one.chance),
         one.mmcs, one.chance_mmcs] for one in record.found_again
    ]  # fmt: skip
    return Table("consensus-found-again", "Features found in dictionaries that had no vote.", columns, rows)


def _calibration(record: ConsensusRecord) -> Table | None:
    if record.calibration is None:
        return None
    columns = [
        Column("predicted", ".1%", "share of the other members that have the feature"),
        Column("features", ",d"),
        Column("found", ".1%", "in what had no vote"),
    ]
    rows = [[one.predicted, one.features, one.found] for one in record.calibration.rows]
    brier = record.calibration.brier
    told = "" if brier is None else f"; Brier score {brier:.3f}"
    return Table("consensus-calibration", f"Whether support predicts being found{told}.", columns, rows)


def _behaviour(record: ConsensusRecord) -> Table | None:
    found = record.functional
    if found is None:
        return None
    columns = [
        Column("features of two members"),
        Column("quartile", help="by how often they fire, 1 for the rarest"),
        Column("pairs", ",d"),
        Column("Jaccard", ".3f", "rows on which both fire, of those on which either does"),
        Column("correlation", ".3f", "of codes"),
        Column("similarity", ".3f", "1 if the two add the same vector to every row"),
        Column("substitution error", ".3f", "0 if they are interchangeable, 1 as bad as leaving one out"),
    ]
    rows = [
        [one.what, "all" if one.quartile is None else str(one.quartile), one.features, one.jaccard, one.correlation,
         one.similarity, one.substitution] for one in found.parts
    ]  # fmt: skip
    return Table(
        "consensus-behaviour",
        f"Behaviour of pairs of features on {found.rows:,} rows, medians; {found.not_tested:,} features that fire on "
        f"fewer than {found.least} of them are not tested.",
        columns,
        rows,
    )


def _groups(record: ConsensusRecord) -> Table | None:
    if not record.groups:
        return None
    columns = [
        Column("features"),
        Column("how many", ",d"),
        Column("FVU, kept alone", ".3f"),
        Column("loss recovered, kept alone", ".1%"),
        Column("FVU, left out", ".3f"),
        Column("loss recovered, left out", ".1%"),
    ]
    rows = [
        [
            one.what,
            one.kept.features,
            one.kept.fvu,
            one.kept.loss_recovered,
            one.dropped.fvu,
            one.dropped.loss_recovered,
        ]
        for one in record.groups
    ]
    return Table("consensus-groups", f"Groups of features of {record.groups[0].member}.", columns, rows)


def _subspaces(record: ConsensusRecord) -> Table | None:
    if record.subspaces is None:
        return None
    columns = [
        Column("in no other"),
        Column("beside"),
        Column("features", ",d"),
        Column("energy", ".1%", "of the variance that all live features add"),
        Column("rank", ".1f", "participation ratio of what they add"),
        Column("overlap", ".3f", "of the top of that with the other's"),
        Column("random", ".3f", "overlap of random subspaces"),
        Column("drawn", ".3f", "of as many atoms drawn from the data's covariance that fire as often"),
        Column("recurring", ".3f", "of as many features that recur"),
        Column("left", ".3f", "share of the variance that the other's leaves on the same rows"),
        Column("MMCS", ".3f"),
        Column("MMCS, local chance", ".3f", "of random directions in as many dimensions as the rank"),
    ]
    rows = [
        [one.first, one.second, one.features[0], one.energy[0], one.ratios[0], one.overlap, one.overlap_chance,
         one.overlap_drawn, one.overlap_recurring, one.unexplained, one.mmcs, one.mmcs_local]
        for one in record.subspaces.pairs
    ]  # fmt: skip
    return Table("consensus-subspaces", "What features span that recur in no other member.", columns, rows)
