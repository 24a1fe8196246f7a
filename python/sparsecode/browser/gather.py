"""Where each feature of a dictionary is active: two passes over a dataset's rows, and nothing kept but what is shown.

The first pass finds the strongest rows of every feature. The second counts its codes in bins up to its peak, draws rows
of every band of strength, and keeps the strengths around the rows that are shown. A band's rows are those with the
smallest hashes of seed and row, so each of its rows is drawn as likely as the others.

Shape letters: R rows that are read, C contexts, F features, S rows shown of a feature, W tokens around each, B bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import ContextsUnknown
from sparsecode.interpretation.sample import hashed
from sparsecode.science.top_contexts import SAME, SPARE, keep

Numbers = npt.NDArray[np.int64]

BEFORE, AFTER = 15, 8  # tokens around a row that is shown: two lines of text on a phone
WIDTH = BEFORE + 1 + AFTER
EXAMPLES = 4  # rows drawn of each band
BINS_OF_BAND = 10  # bins of the histogram in each band
FULL = 255  # strength of the peak
_CODES = 1 << 21  # codes computed at a time: 8 MB, which malloc keeps; 32 MB would be mapped anew each time
_LEAST_ROWS = 256  # ... but this many rows at least: each time WIDTH more are read


class Rows(Protocol):
    """What is needed of `sparsecode.store.Dataset`."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    def contexts(self) -> Iterator[Numbers]: ...  # noqa: D102
    def read(self, start: int, stop: int) -> Tensor: ...  # noqa: D102
    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Text:
    """The tokens of the rows that are read, and where their contexts begin.

    Attributes:
        ids: [R] tokens.
        starts: [C + 1] the first row of each context, then R.
        known: whether the dataset says so; otherwise all rows are one context.
    """

    ids: npt.NDArray[np.int32]
    starts: Numbers
    known: bool = True

    @property
    def rows(self) -> int:
        """R."""
        return len(self.ids)

    def around(self, rows: Numbers, before: int = BEFORE, after: int = AFTER) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """The rows before and after each of `rows` [...], as [..., W], and which of them are of the same context."""
        context = np.searchsorted(self.starts, rows, side="right") - 1
        at = rows[..., None] + np.arange(-before, after + 1)
        context = np.clip(context, 0, len(self.starts) - 2)
        return at, (at >= self.starts[context][..., None]) & (at < self.starts[context + 1][..., None])


@dataclass(frozen=True, eq=False)
class Gathered:
    """What two passes found of a dictionary's features.

    Attributes:
        searched: R.
        peak: [F] the largest code.
        counts: [F, B * BINS_OF_BAND] rows by code, in equal bins from 0 to the peak, each with its upper end.
        rows: [F, S] rows shown: the strongest distinct contexts, then EXAMPLES of each band from the weakest; -1 where
            there are fewer.
        values: [F, S] the codes there.
        strengths: [F, S, W] codes around them, FULL at the peak; 0 outside the row's context.
        strongest: how many of S are the strongest contexts.
    """

    searched: int
    peak: npt.NDArray[np.float32]
    counts: Numbers
    rows: Numbers
    values: npt.NDArray[np.float32]
    strengths: npt.NDArray[np.uint8]
    strongest: int

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """[F] share of the rows on which each feature is active."""
        return np.asarray(self.counts.sum(axis=1) / max(self.searched, 1), np.float64)


def read_text(dataset: Rows, rows: int) -> Text:
    """The text of the first `rows` rows."""
    rows = min(rows, dataset.rows)
    ids = dataset.tokens(0, rows)
    try:
        parts = []
        for part in dataset.contexts():
            parts.append(part[:, 1])
            if part[-1, 2] >= rows:
                break
    except ContextsUnknown:
        return Text(ids, np.array([0, rows], np.int64), known=False)
    starts = np.concatenate(parts)
    return Text(ids, np.append(starts[starts < rows], rows))


def gather(
    dataset: Rows,
    dictionary: Dictionary,
    text: Text,
    *,
    contexts: int,
    bands: int,
    seed: int,
    advance: Callable[[int], Any] = lambda rows: None,
) -> Gathered:
    """Searches the rows of `text` for each feature of a dictionary.

    Codes below 0 count as 0. The whole dictionary encodes every row: which are the k largest depends on all.

    Args:
        dataset: activations.
        dictionary: reads them.
        text: the rows to read, see `read_text`.
        contexts: strongest distinct contexts to keep of each feature.
        bands: equal stretches from 0 to the peak, EXAMPLES rows of each.
        seed: of the draw.
        advance: called with the number of rows done since the last call; each row is done twice.
    """
    count = dictionary.dict_size
    chunk = max(_LEAST_ROWS, min(_CODES // count, 4096))
    best, where = torch.zeros(count, contexts * SPARE), torch.full((count, contexts * SPARE), -1, dtype=torch.int64)
    for start in range(0, text.rows, chunk):
        stop = min(start + chunk, text.rows)
        best, where = keep(best, where, codes_of(dictionary, dataset.read(start, stop)), start)
        advance(stop - start)
    strongest, values = _distinct(text, where.numpy(), best.numpy(), contexts)
    found = _Second(text, best[:, 0].numpy(), strongest, bands, seed)
    for start in range(0, text.rows, chunk):
        stop = min(start + chunk, text.rows)
        low, high = max(0, start - BEFORE), min(text.rows, stop + AFTER)
        found.add(codes_of(dictionary, dataset.read(low, high)), low, start, stop)
        advance(stop - start)
    return Gathered(
        text.rows,
        found.peak,
        found.counts,
        np.concatenate([strongest, found.rows.reshape(count, -1)], axis=1),
        np.concatenate([values, found.values.reshape(count, -1)], axis=1),
        np.concatenate([found.around, found.strengths.reshape(count, -1, WIDTH)], axis=1),
        contexts,
    )


def codes_of(dictionary: Dictionary, x: Tensor) -> Tensor:
    """Codes [R, F] of activations, nothing below 0."""
    return dictionary.encode(x).clamp_(min=0)


class _Second:
    """The second pass: counts, bands, and the strengths around the rows that are shown.

    Bands and features are one axis, [F * B]: a band's place is `feature * bands + band`.
    """

    def __init__(self, text: Text, peak: npt.NDArray[np.float32], strongest: Numbers, bands: int, seed: int) -> None:
        self.text, self.peak, self.bands, self.seed = text, peak, bands, seed
        count = len(peak)
        self.counts = np.zeros((count, bands * BINS_OF_BAND), np.int64)
        self.hashes = np.full((count * bands, EXAMPLES), np.iinfo(np.uint64).max, np.uint64)
        self.rows = np.full((count * bands, EXAMPLES), -1, np.int64)
        self.values = np.zeros((count * bands, EXAMPLES), np.float32)
        self.strengths = np.zeros((count * bands, EXAMPLES, WIDTH), np.uint8)
        self.around = np.zeros((*strongest.shape, WIDTH), np.uint8)
        flat = strongest.ravel()
        self._order = np.argsort(flat, kind="stable")  # the strongest contexts in the order of their rows
        self._sorted = flat[self._order]

    def add(self, codes: Tensor, low: int, start: int, stop: int) -> None:
        """Codes of the rows from `low` on, of which those from `start` to `stop` have not been counted."""
        own = codes[start - low : stop - low].reshape(-1)
        codes_, count = codes.numpy(), len(self.peak)
        first, behind = np.searchsorted(self._sorted, [start, stop])
        place = self._order[first:behind]
        feature, slot = np.divmod(place, self.around.shape[1])
        self.around[feature, slot] = self._strengths(codes_, low, self._sorted[first:behind], feature)
        active = own.nonzero()[:, 0]
        value = own[active].numpy()
        row, feature = np.divmod(active.numpy(), count)
        bins = self.counts.shape[1]
        place = np.ceil(value * np.float64(bins) / self.peak[feature]).astype(np.int64) - 1
        np.clip(place, 0, bins - 1, out=place)
        self.counts += np.bincount(feature * bins + place, minlength=count * bins).reshape(count, bins)
        band = feature * self.bands + place // BINS_OF_BAND
        hashes = hashed(np.arange(start, stop), self.seed)
        better = np.flatnonzero(hashes[row] < self.hashes[band, -1])
        self._keep(codes_, low, row[better] + start, band[better], value[better], hashes[row[better]])

    def _keep(
        self,
        codes: npt.NDArray[np.float32],
        low: int,
        rows: Numbers,
        bands: Numbers,
        values: npt.NDArray[np.float32],
        hashes: npt.NDArray[np.uint64],
    ) -> None:
        """Puts rows among those drawn of their bands, where their hashes are smaller."""
        order = np.lexsort((hashes, bands))
        touched, first, sizes = np.unique(bands[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(first, sizes)
        order, which, rank = (own[rank < EXAMPLES] for own in (order, np.repeat(np.arange(len(touched)), sizes), rank))

        def joined(kept: Any, new: Any) -> Any:
            both = np.concatenate([kept[touched], np.zeros_like(kept[touched])], axis=1)
            both[which, EXAMPLES + rank] = new
            return both

        candidates = np.concatenate(
            [self.hashes[touched], np.full((len(touched), EXAMPLES), np.iinfo(np.uint64).max, np.uint64)], axis=1
        )
        candidates[which, EXAMPLES + rank] = hashes[order]
        chosen = np.argsort(candidates, axis=1, kind="stable")[:, :EXAMPLES]
        around = self._strengths(codes, low, rows[order], bands[order] // self.bands)
        self.hashes[touched] = np.take_along_axis(candidates, chosen, axis=1)
        # Places that no row took keep -1: of equal hashes the one kept before comes first.
        self.rows[touched] = np.take_along_axis(joined(self.rows, rows[order]), chosen, axis=1)
        self.values[touched] = np.take_along_axis(joined(self.values, values[order]), chosen, axis=1)
        self.strengths[touched] = np.take_along_axis(joined(self.strengths, around), chosen[..., None], axis=1)

    def _strengths(
        self, codes: npt.NDArray[np.float32], low: int, rows: Numbers, features: Numbers
    ) -> npt.NDArray[np.uint8]:
        """[n, W] codes of a feature around each row, over the feature's peak."""
        at, inside = self.text.around(rows)
        found = codes[np.clip(at - low, 0, len(codes) - 1), features[:, None]] * inside
        return quantised(found, self.peak[features][:, None])


def quantised(codes: npt.NDArray[np.float32], peak: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Codes as whole numbers, FULL at the peak."""
    ratio = np.divide(codes, peak, out=np.zeros_like(codes), where=peak > 0)
    return np.asarray(np.rint(np.minimum(ratio, 1) * FULL), np.uint8)


def _distinct(
    text: Text, rows: Numbers, values: npt.NDArray[np.float32], count: int
) -> tuple[Numbers, npt.NDArray[np.float32]]:
    """The first `count` of each feature's rows [F, k] that differ in the tokens up to them, and their codes."""
    at, inside = text.around(rows, SAME - 1, 0)
    ids = np.where(inside, text.ids[np.clip(at, 0, text.rows - 1)], -1).astype(np.int32)
    kept = np.full((len(rows), count), -1, np.int64)
    codes = np.zeros((len(rows), count), np.float32)
    for f, (own, around) in enumerate(zip(rows, ids, strict=True)):
        seen: dict[bytes, int] = {}
        for place in range(int((own >= 0).sum())):
            seen.setdefault(around[place].tobytes(), place)
            if len(seen) == count:
                break
        chosen = list(seen.values())
        kept[f, : len(chosen)], codes[f, : len(chosen)] = own[chosen], values[f, chosen]
    return kept, codes
