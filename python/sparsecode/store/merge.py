"""Joining datasets that came from the same place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsecode.errors import InvalidArgument, SettingsDiffer
from sparsecode.store.dataset import Dataset
from sparsecode.store.writer import DatasetWriter

_PIECE_BYTES = 32 << 20


def merge_datasets(destination: str | Path, sources: Sequence[str | Path]) -> Dataset:
    """Writes the rows of `sources`, in that order, as one dataset; every row is checked against its digest.

    Contexts end with their source. Where they are numbered, the numbers of a source follow those of the one before.

    Args:
        destination: folder of the new dataset.
        sources: folders of complete datasets with the same width, type and provenance.

    Raises:
        InvalidArgument: no sources, an incomplete one, or the destination holds a dataset.
        SettingsDiffer: the sources do not belong together.
        ShardCorrupt, ShardTruncated: a source is damaged.
        OutOfSpace, IoFailed, RunLocked: the destination cannot be written.
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
    numbered = _must_number(opened)
    writer = DatasetWriter(
        destination,
        activation_dim=first.activation_dim,
        dtype=first.dtype,
        provenance=first.provenance,
        contexts=numbered,
        shard_bytes=max(dataset.shard_bytes for dataset in opened),
    )
    before, left_out = 0, Counter[str]()
    with writer:
        piece = max(1, _PIECE_BYTES // (first.activation_dim * 4))
        for dataset in opened:
            for start in range(0, dataset.rows, piece):
                stop = min(start + piece, dataset.rows)
                numbers = before + dataset.context_of(np.arange(start, stop)) if numbered else None
                writer.append(dataset.read_stored(start, stop), dataset.tokens(start, stop), numbers)
            if numbered and dataset.rows:
                before += int(dataset.context_of([dataset.rows - 1])[0]) + 1
            writer.count_dropped(dataset.statistics["non_finite"])
            left_out.update(dataset.left_out)
        writer.note_left_out(left_out)
        return writer.finish()


def _must_number(sources: Sequence[Dataset]) -> bool:
    """Whether contexts must be numbered.

    They must where those of a source are, or where a source before the last ends in a context with fewer than T rows,
    after which r // T would be wrong.
    """
    unknown = [dataset.path for dataset in sources if not dataset.contexts_known]
    if any(dataset.contexts_stored for dataset in sources):
        if unknown:
            raise SettingsDiffer(f"{unknown[0]}: does not say the context of each row, as others do; harvest it again")
        return True
    return not unknown and any(dataset.rows % int(dataset.provenance["context"]) for dataset in sources[:-1])


def _differences(first: Dataset, other: Dataset) -> list[str]:
    a = {"activation_dim": first.activation_dim, "dtype": first.dtype} | first.provenance
    b = {"activation_dim": other.activation_dim, "dtype": other.dtype} | other.provenance
    return [f"{name} {b.get(name)!r}, not {a.get(name)!r}" for name in sorted(a | b) if a.get(name) != b.get(name)]
