"""A consensus as text for a terminal."""

from __future__ import annotations

from sparsecode.comparison.tables import aligned
from sparsecode.consensus.records import ConsensusRecord


def lines(record: ConsensusRecord) -> list[str]:
    """What was made, of what, features by support, reconstruction, and features found again."""
    K, out = len(record.members), record.held_out
    parts = [
        f"{record.name}: {record.features} features that are in {record.support} or more of {K} dictionaries; "
        f"{record.clusters} clusters in all, {record.duplicates} second atoms without a vote",
        f"members: {', '.join(one.name for one in record.members)}"
        + (f"; held out: {', '.join(one.name for one in out)}" if out else ""),
    ]
    if record.coherence is not None and record.expected_cosine is not None:
        parts.append(
            f"mean cosine between members {record.coherence:.3f}; of the means with what members scatter around "
            f"{record.expected_cosine:.3f}, if their errors are independent"
        )
    if record.cycle_consistency is not None:
        share = record.cycle_consistency
        parts.append(f"{share:.1%} of paths through three dictionaries end where the direct one does")
    parts += [
        "",
        _supports(record),
        "chance: share of features that would have the support if atoms were random directions in the dimensions of "
        "the activations, in as many as the atoms use, and in as many as the data's variance spreads over: "
        + ", ".join(f"{dim:.1f}" for dim in record.dimensions),
    ]
    if record.quality:
        rows = [[one.what, one.features, one.fvu, one.l0, one.dead, one.loss_recovered] for one in record.quality]
        parts += ["", aligned(["reconstruction of", "features", "FVU", "L0", "dead", "loss recovered"], rows)]
    if record.found_again:
        chances = _chances(record)
        header = ["found in", "of", "features", "above", "share", *chances, "MMCS", "chance"]
        rows = [
            [one.held_out, one.what, one.features, f"{one.threshold:g}", one.share,
             *(f"{level.share:.2g}" for level in one.chance), one.mmcs, one.chance_mmcs] for one in record.found_again
        ]  # fmt: skip
        parts += ["", aligned(header, rows)]
    parts += [*_functional(record), *_subspaces(record)]
    if record.calibration is not None and record.calibration.brier is not None:
        rows = [[row.predicted, row.features, row.found] for row in record.calibration.rows]
        parts += ["", aligned(["predicted by support", "features", "found in what was held out"], rows)]
        parts.append(f"Brier score {record.calibration.brier:.3f}")
    return [*parts, *(f"Note: {note}" for note in record.notes)]


def _functional(record: ConsensusRecord) -> list[str]:
    """How features behave, and what groups of them do; empty where that was not asked for."""
    parts: list[str] = []
    if record.functional is not None:
        own = record.functional
        header = [
            "features of two members",
            "quartile",
            "pairs",
            "Jaccard",
            "correlation",
            "similarity",
            "substitution",
        ]
        rows = [
            [one.what, "all" if one.quartile is None else one.quartile, one.features, one.jaccard, one.correlation,
             one.similarity, one.substitution] for one in own.parts
        ]  # fmt: skip
        parts += ["", aligned(header, rows)]
        agree = "" if own.agree is None else f"; nearest by codes is nearest by atoms for {own.agree:.1%}"
        parts.append(
            f"Medians over {own.rows} rows, by how often a feature fires, the rarest quartile first; {own.not_tested} "
            f"that fire on fewer than {own.least} are not tested{agree}"
        )
    if record.groups:
        rows = [
            [one.what, one.kept.features, one.kept.fvu, one.kept.loss_recovered, one.dropped.fvu,
             one.dropped.loss_recovered] for one in record.groups
        ]  # fmt: skip
        header = [f"features of {record.groups[0].member}", "", "FVU, kept", "loss recovered", "FVU, dropped",
                  "loss recovered"]  # fmt: skip
        parts += ["", aligned(header, rows)]
    return parts


def _subspaces(record: ConsensusRecord) -> list[str]:
    """What features span that recur in no other member; empty where that was not asked for."""
    if record.subspaces is None:
        return []
    header = ["in no other", "with", "features", "rank", "overlap", "chance", "drawn", "recurring", "RV", "drawn",
              "left", "MMCS", "local", "chance"]  # fmt: skip
    rows = [
        [one.first, one.second, one.features[0], one.ratios[0], one.overlap, one.overlap_chance, one.overlap_drawn,
         one.overlap_recurring, one.rv, one.rv_drawn, one.unexplained, one.mmcs, one.mmcs_local, one.mmcs_chance]
        for one in record.subspaces.pairs
    ]  # fmt: skip
    note = (
        "Features that recur in no other member: participation ratio of what they add; overlap of its top with the "
        "other's, of random subspaces, of atoms drawn from the data's covariance, of as many features that recur; "
        "likeness of the covariances, and of drawn atoms'; variance that the other's leaves on the same rows; MMCS of "
        "the two, of random directions in so many dimensions, and in all."
    )
    return ["", aligned(header, rows), note]


def _chances(record: ConsensusRecord) -> list[str]:
    return ["chance", "by atoms", "by data"][: len(record.dimensions)]


def _supports(record: ConsensusRecord) -> str:
    rows = [
        [one.support, one.clusters, one.at_least, one.coherence, *(f"{level.share:.2g}" for level in one.chance)]
        for one in record.supports
    ]
    return aligned(["support", "clusters", "or more", "coherence", *_chances(record)], rows)
