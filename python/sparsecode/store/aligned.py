"""Datasets whose rows belong together: of several hook points, harvested from the same tokens in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsecode.errors import InvalidArgument, SettingsDiffer
from sparsecode.store.dataset import Dataset

_OWN = {"hook_point", "sparsecode_version"}  # provenance that may differ
_ENDS = 4096  # rows at either end whose tokens are compared


def check_aligned(datasets: Sequence[Dataset]) -> None:
    """Checks that row r of each is of the same token of the same context.

    By what their provenance says, the fingerprints of model and tokens among it, by their numbers of rows, and by the
    tokens and contexts of their first and last rows.

    Raises:
        InvalidArgument: there is none, or one is named twice.
        SettingsDiffer: they do not belong together.
        ShardCorrupt, ShardTruncated: tokens cannot be read.
    """
    if not datasets:
        raise InvalidArgument("no datasets to put side by side")
    first, *others = datasets
    for other in others:
        if other.fingerprint == first.fingerprint:
            raise InvalidArgument(f"{other.path}: holds the same rows as {first.path}; name each once")
        differences = _differences(first, other)
        if differences:
            raise SettingsDiffer(
                f"{other.path}: {'; '.join(differences)} ({first.path}): their rows are not of the same tokens; "
                "harvest both at once"
            )


def _differences(first: Dataset, other: Dataset) -> list[str]:
    a = {"rows": first.rows} | first.provenance
    b = {"rows": other.rows} | other.provenance
    found = [f"{name} {b.get(name)!r}, not {a.get(name)!r}" for name in sorted((a | b).keys() - _OWN)
             if a.get(name) != b.get(name)]  # fmt: skip
    if found:
        return found
    for start, stop in ((0, min(_ENDS, first.rows)), (max(0, first.rows - _ENDS), first.rows)):
        if not np.array_equal(first.tokens(start, stop), other.tokens(start, stop)):
            return [f"other tokens in rows {start} to {stop}"]
        rows = np.arange(start, stop)
        if first.contexts_known and not np.array_equal(first.context_of(rows), other.context_of(rows)):
            return [f"other contexts in rows {start} to {stop}"]
    return []
