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
    whole, used = record.dimensions
    parts += [
        "",
        _supports(record),
        f"chance: share of features that would have the support by chance, in {whole:.0f} dimensions and in the "
        f"{used:.1f} that are effectively used",
    ]
    if record.quality:
        rows = [[one.what, one.features, one.fvu, one.l0, one.dead, one.loss_recovered] for one in record.quality]
        parts += ["", aligned(["reconstruction of", "features", "FVU", "L0", "dead", "loss recovered"], rows)]
    if record.found_again:
        header = ["found in", "of", "features", "above", "share", "chance", "in used dim.", "MMCS", "chance"]
        rows = [
            [one.held_out, one.what, one.features, f"{one.threshold:g}", one.share, *(c.share for c in one.chance),
             one.mmcs, one.chance_mmcs] for one in record.found_again
        ]  # fmt: skip
        parts += ["", aligned(header, rows)]
    if record.calibration is not None and record.calibration.brier is not None:
        rows = [[row.predicted, row.features, row.found] for row in record.calibration.rows]
        parts += ["", aligned(["predicted by support", "features", "found in what was held out"], rows)]
        parts.append(f"Brier score {record.calibration.brier:.3f}")
    return [*parts, *(f"Note: {note}" for note in record.notes)]


def _supports(record: ConsensusRecord) -> str:
    rows = [
        [one.support, one.clusters, one.at_least, one.coherence, *(chance.share for chance in one.chance)]
        for one in record.supports
    ]
    return aligned(["support", "clusters", "or more", "coherence", "chance", "in used dim."], rows)
