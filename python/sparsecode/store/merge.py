"""Joining datasets that came from the same place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsecode.errors import InvalidArgument, SettingsDiffer
from sparsecode.store.dataset import Dataset
from sparsecode.store.writer import DatasetWriter

_PIECE_BYTES = 32 << 20


def merge_datasets(destination: str | Path, sources: Sequence[str | Path]) -> Dataset:
    """Writes the rows of `sources`, in that order, as one dataset; every row is checked against its digest on the way.

    Args:
        destination: folder of the new dataset.
        sources: folders of complete datasets with the same width, type and provenance.

    Raises:
        InvalidArgument: no sources, an incomplete one, or the destination holds a dataset.
        SettingsDiffer: the sources do not belong together.
        ShardCorrupt, ShardTruncated, OutOfSpace, IoFailed, RunLocked.
    """
    opened = [Dataset(source) for source in sources]
    if not opened:
        raise InvalidArgument(f"{destination}: nothing to merge; name at least one dataset")
    first = opened[0]
    for dataset in opened:
        if not dataset.complete:
            raise InvalidArgument(f"{dataset.path}: incomplete; finish it first, the command that began it resumes")
        differences = _differences(first, dataset)
        if differences:
            raise SettingsDiffer(
                f"{dataset.path}: {'; '.join(differences)} ({first.path}); they do not belong together"
            )
    if (Path(destination) / "manifest.json").exists():
        raise InvalidArgument(f"{destination}: holds a dataset already; delete it, or choose another folder")
    writer = DatasetWriter(
        destination,
        activation_dim=first.activation_dim,
        dtype=first.dtype,
        provenance=first.provenance,
        shard_bytes=max(dataset.shard_bytes for dataset in opened),
    )
    with writer:
        piece = max(1, _PIECE_BYTES // (first.activation_dim * 4))
        for dataset in opened:
            for start in range(0, dataset.rows, piece):
                stop = min(start + piece, dataset.rows)
                writer.append(dataset.read_stored(start, stop), dataset.tokens(start, stop))
            writer.count_dropped(dataset.statistics["non_finite"])
        return writer.finish()


def _differences(first: Dataset, other: Dataset) -> list[str]:
    a = {"activation_dim": first.activation_dim, "dtype": first.dtype} | first.provenance
    b = {"activation_dim": other.activation_dim, "dtype": other.dtype} | other.provenance
    return [f"{name} {b.get(name)!r}, not {a.get(name)!r}" for name in sorted(a | b) if a.get(name) != b.get(name)]
