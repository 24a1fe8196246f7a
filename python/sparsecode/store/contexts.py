"""Which rows of a dataset are neighbours in one text: the context of each row, and the rows of each context.

A dataset says so in one of two ways. Either every shard holds the number of each row's context, or all contexts have
the same number of rows, T = `provenance["context"]`, and row r belongs to context r // T.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecode import _core
from sparsecode.errors import ContextsUnknown, InvalidArgument

AT_ONCE = 1 << 20  # rows whose contexts are read together
_NEAR = 256  # rows on either side that are searched first: most contexts are shorter

Numbers = npt.NDArray[np.int64]


class RowContexts:
    """The contexts of a dataset's rows.

    Args:
        path: the dataset's folder, for messages.
        core: reads the numbers that shards hold.
        rows: number of rows of the dataset.
        every: T, where all contexts have that many rows; None where shards hold numbers or it is unknown.
    """

    def __init__(self, path: object, core: _core.Dataset, rows: int, every: int | None) -> None:
        self._path, self._core, self._rows, self.every = path, core, rows, every

    @property
    def known(self) -> bool:
        """Whether it is known which rows belong together."""
        return self.every is not None or self._core.has_contexts

    def of(self, rows: npt.ArrayLike) -> Numbers:
        """The number of the context of each of some rows [n], in any order."""
        self._check_known()
        wanted = np.ascontiguousarray(rows, np.int64)
        if wanted.ndim != 1 or (wanted.size and (int(wanted.min()) < 0 or int(wanted.max()) >= self._rows)):
            raise InvalidArgument(f"{self._path}: context_of takes a list of rows from 0 to {self._rows - 1}")
        if self.every is not None:
            return wanted // self.every
        found = np.empty(len(wanted), np.int32)
        self._core.contexts_into(wanted.view(np.uint8), found.view(np.uint8))
        return found.astype(np.int64)

    def bounds(self, row: int) -> tuple[int, int]:
        """The first row of the context that `row` belongs to, and the row after its last."""
        number = int(self.of([row])[0])
        if self.every is not None:
            return number * self.every, min((number + 1) * self.every, self._rows)
        return self._end(row, number, -1) + 1, self._end(row, number, 1)

    def _end(self, row: int, number: int, step: int) -> int:
        """The first row before (`step` -1) or after (1) `row` that does not belong to context `number`."""
        at, count = row + step, _NEAR
        while 0 <= at < self._rows:
            stop = max(-1, min(self._rows, at + step * count))
            others = np.flatnonzero(self.of(np.arange(at, stop, step)) != number)
            if len(others):
                return at + step * int(others[0])
            at, count = stop, min(2 * count, AT_ONCE)
        return at

    def each(self, at_once: int = AT_ONCE) -> Iterator[Numbers]:
        """All contexts in the order of their rows, in pieces [n, 3]: number, first row, row after the last."""
        self._check_known()
        number, first = -1, 0
        for start in range(0, self._rows, at_once):
            stop = min(start + at_once, self._rows)
            numbers = self.of(np.arange(start, stop))
            begins = start + np.flatnonzero(np.diff(numbers, prepend=number))
            if not start:
                begins, number = begins[1:], int(numbers[0])
            if len(begins):
                names = np.concatenate([[number], numbers[begins[:-1] - start]])
                yield np.stack([names, np.concatenate([[first], begins[:-1]]), begins], axis=1)
                number, first = int(numbers[-1]), int(begins[-1])
        if self._rows:
            yield np.array([[number, first, self._rows]], np.int64)

    def _check_known(self) -> None:
        if not self.known:
            raise ContextsUnknown(
                f"{self._path}: does not say which rows belong to one context", remedy="harvest_again"
            )


def every_context(provenance: dict[str, Any], dropped: int) -> int | None:
    """T, where a dataset without numbers of contexts reliably says that all have T rows; else None."""
    every = provenance.get("context")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1 or dropped:
        return None  # dropped rows shift the ones after them
    tokens = provenance.get("context_tokens")
    # Harvests once wrote the number of all rows where contexts gave different numbers of rows.
    return None if isinstance(tokens, int) and every > tokens else every
