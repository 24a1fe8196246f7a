"""The rows that directions are explained and scored on: whole contexts, each in one half only.

A context belongs to the fitting or to the scoring half by a hash of the seed and its number, whatever else is drawn.

Shape letters: R rows of the sample, C contexts of it, D activation dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sparsecode.errors import DatasetUnfit

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LEAST_CONTEXTS = 8  # of a half: a rule must hold in four contexts


class ContextRows(Protocol):
    """What is needed of `sparsecode.store.Dataset`."""

    @property
    def path(self) -> object: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    def contexts(self) -> Iterator[Numbers]: ...  # noqa: D102
    def read(self, start: int, stop: int) -> Tensor: ...  # noqa: D102
    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Sample:
    """Whole contexts of a dataset, one after the other.

    Attributes:
        contexts: [C, 3] number of each context, its first row in the dataset, and the row after its last.
        ids: [R] tokens.
        context: [R] which of the contexts each row belongs to, as its place in `contexts`.
        place: [R] position of each row in its context, from 0.
        fitting: [R] whether a row is of the fitting half; it is of the scoring half otherwise.
        repeated: contexts that were left out because another one has the same tokens.
    """

    contexts: Numbers
    ids: Numbers
    context: Numbers
    place: Numbers
    fitting: Mask
    repeated: int

    @property
    def rows(self) -> int:
        """R."""
        return len(self.ids)


def draw(dataset: ContextRows, rows: int, seed: int) -> Sample:
    """About `rows` rows, half of them to fit on and half to score on, in whole contexts.

    Of the contexts of each half those with the smallest hashes are taken, until they have half of the rows and are at
    least `LEAST_CONTEXTS`. A context with the tokens of one that was taken before is left out: text that was copied
    would be in both halves.

    Raises:
        ContextsUnknown: the dataset does not say which rows belong together.
        DatasetUnfit: a half would have fewer than `LEAST_CONTEXTS` contexts.
    """
    listed = np.concatenate(list(dataset.contexts()) or [np.empty((0, 3), np.int64)])
    hashes = hashed(listed[:, 0], seed)
    seen: set[bytes] = set()
    taken: dict[bool, list[int]] = {True: [], False: []}
    left = {True: rows / 2, False: rows / 2}
    repeated = 0

    def full(half: bool) -> bool:
        return left[half] <= 0 and len(taken[half]) >= LEAST_CONTEXTS

    for index in np.argsort(hashes, kind="stable").tolist():
        half = in_fitting(int(hashes[index]))
        if full(half):
            if full(not half):
                break
            continue
        first, behind = listed[index, 1:].tolist()
        tokens = dataset.tokens(first, behind).tobytes()
        if tokens in seen:
            repeated += 1
            continue
        seen.add(tokens)
        taken[half].append(index)
        left[half] -= behind - first
    if min(map(len, taken.values())) < LEAST_CONTEXTS:
        raise DatasetUnfit(
            f"{dataset.path}: {len(listed)} contexts are too few to explain directions on one half and to score them "
            "on the other; harvest more rows"
        )
    order = np.sort(np.array(taken[True] + taken[False]))  # that of the rows on disk
    contexts = listed[order]
    lengths = contexts[:, 2] - contexts[:, 1]
    context = np.repeat(np.arange(len(contexts)), lengths)
    place = np.arange(len(context)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = np.concatenate([dataset.tokens(int(first), int(behind)) for _, first, behind in contexts])
    fitting = np.isin(order, taken[True])[context]
    return Sample(contexts, ids.astype(np.int64), context, place, fitting, repeated)


def hashed(numbers: Numbers, seed: int) -> npt.NDArray[np.uint64]:
    """A hash of the seed and each context's number (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(seed) + np.uint64(1))
        for _ in range(2):  # twice: seeds that differ by little give halves that have nothing to do with one another
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


def in_fitting(hash: int) -> bool:
    """Whether a context with this hash is of the fitting half: by its lowest bit, which says nothing of its order."""
    return hash & 1 == 0


def chunks(dataset: ContextRows, sample: Sample, most: int) -> Iterator[tuple[slice, Tensor]]:
    """The activations [r, D] of the sample, a context at a time or `most` rows of it, with the place of these rows."""
    done = 0
    for _, first, behind in sample.contexts.tolist():
        for start in range(first, behind, most):
            stop = min(start + most, behind)
            yield slice(done, done + stop - start), dataset.read(start, stop)
            done += stop - start
