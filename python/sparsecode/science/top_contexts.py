"""Where directions are most active: a streaming top-k over a dataset's rows, and the text around them.

Shapes: F directions, k rows kept of each, R rows of a chunk, d dimensions. Memory is O(F x k) beyond one chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.errors import ContextsUnknown
from sparsecode.sweep import Dictionary

Decode = Callable[[Sequence[int], int, int, int], list[str]]  # ids, peak, start, stop: the texts of ids[start:stop]
CHUNK = 4096  # rows read at a time: codes of 144 directions then stay in the cache
SPARE = 4  # candidates kept per example shown: text repeats, and a repeated context is shown once
BEFORE, AFTER = 10, 5  # tokens of context: a line of text
EDGE = 3  # further tokens that are decoded: a character of UTF-8 has four bytes at most
SAME = 5  # contexts that agree on the peak and the tokens before it, this many in all, are one context


class Rows(Protocol):
    """What is needed of `sparsecode.store.Dataset`."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def provenance(self) -> Any: ...  # noqa: D102
    @property
    def statistics(self) -> Any: ...  # noqa: D102
    def read(self, start: int, stop: int) -> Tensor: ...  # noqa: D102
    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]: ...  # noqa: D102
    def context_bounds(self, row: int) -> tuple[int, int]: ...  # noqa: D102


@dataclass(frozen=True)
class TopRows:
    """The k rows on which each of F directions is most active, best first; rows of -1 where it is on fewer."""

    values: Tensor  # [F, k]
    rows: Tensor  # [F, k] int64
    fired: Tensor  # [F] int64, rows on which it was active
    searched: int


@dataclass(frozen=True)
class Example:
    """A line of tokens, the activation of each, and which is the peak.

    Joined, `tokens` are the text. Where several tokens make one character, it stands at the peak if that is among them,
    else at the first of them, and the others are empty.
    """

    row: int
    activation: float
    tokens: list[str]
    activations: list[float]
    peak: int


@dataclass(frozen=True)
class TopContexts:
    """A direction's strongest distinct contexts."""

    density: float  # share of the searched rows on which it is active
    searched: int
    consistency: float | None  # see `consistency`; None without contexts
    distinct: int  # contexts that the consistency is of
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Probes:
    """Directions in activation space with a threshold: codes = relu(x weight^T + bias) of raw activations x [R, d]."""

    weight: Tensor  # [F, d]
    bias: Tensor  # [F]

    def encode(self, x: Tensor) -> Tensor:
        """Codes [R, F]."""
        return torch.addmm(self.bias, x.float(), self.weight.T).relu_()

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, f: int) -> Probes:
        """Direction f alone."""
        return Probes(self.weight[f : f + 1], self.bias[f : f + 1])

    @classmethod
    def joined(cls, parts: Sequence[Probes]) -> Probes:
        """Side by side."""
        return cls(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))


def features(dictionary: Dictionary, chosen: Sequence[int]) -> Probes:
    """Features of a dictionary, its normalisation of the data folded in."""
    own = torch.tensor(list(chosen), dtype=torch.int64)
    weight = dictionary.W_enc[own].double() / dictionary.scale
    shift = torch.zeros(dictionary.activation_dim, dtype=torch.float64)
    if dictionary.mean is not None:
        shift += dictionary.mean
    if dictionary.b_dec is not None:
        shift += dictionary.b_dec.double() * dictionary.scale
    return Probes(weight.float(), (dictionary.b_enc[own] - weight @ shift).float())


def neurons(chosen: Sequence[int], dim: int) -> Probes:
    """The activations themselves, of some of `dim` dimensions, where positive."""
    return Probes(torch.eye(dim)[list(chosen)], torch.zeros(len(chosen)))


def directions(rows: Tensor, mean: Tensor) -> Probes:
    """Products with `rows` [F, d] of activations without their mean [d], where positive."""
    return Probes(rows, -(rows @ mean))


def top_rows(
    dataset: Rows,
    probes: Probes,
    k: int,
    rows: int | None = None,
    *,
    chunk: int = CHUNK,
    advance: Callable[[int], None] | None = None,
) -> TopRows:
    """The strongest k of the first `rows` rows (None: all) on which each of `probes` is most active.

    A row that does not pass the weakest one kept so far is looked at once and forgotten: after the first chunks few
    pass, so that the search costs little more than the encoding.
    """
    searched = dataset.rows if rows is None else min(rows, dataset.rows)
    best, where = torch.zeros(len(probes), k), torch.full((len(probes), k), -1, dtype=torch.int64)
    fired = torch.zeros(len(probes), dtype=torch.int64)
    for start in range(0, searched, chunk):
        stop = min(start + chunk, searched)
        codes = probes.encode(dataset.read(start, stop))  # [R, F]
        best, where = keep(best, where, codes, start)
        fired += codes.sign_().sum(dim=0).long()  # exact: at most `chunk` ones
        if advance is not None:
            advance(stop - start)
    return TopRows(best, where, fired, searched)


def keep(best: Tensor, where: Tensor, codes: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The best k of those kept [F, k] and of a chunk's codes [R, F]; at equal values the earlier row."""
    k = best.shape[1]
    passing = (codes.amax(dim=0) > best[:, -1]).nonzero().flatten()
    if not len(passing):
        return best, where
    column, row = (best[passing, -1:] < codes[:, passing].T).nonzero(as_tuple=True)
    feature = passing[column]
    touched, own, counts = torch.unique_consecutive(feature, return_inverse=True, return_counts=True)
    width = int(counts.max())
    place = torch.arange(len(feature)) - (counts.cumsum(0) - counts)[own]
    values = torch.full((len(touched), k + width), -torch.inf)
    rows = torch.full((len(touched), k + width), -1, dtype=torch.int64)
    values[:, :k], rows[:, :k] = best[touched], where[touched]
    values[own, k + place] = codes[row, feature]
    rows[own, k + place] = row + start
    values, order = values.sort(dim=1, descending=True, stable=True)
    best[touched], where[touched] = values[:, :k], rows.gather(1, order)[:, :k]
    return best, where


def contexts(
    dataset: Rows, decode: Decode, probes: Probes, top: TopRows, f: int, *, count: int, shown: int
) -> TopContexts:
    """The strongest `count` distinct contexts of direction f, the first `shown` of them with their text.

    Args:
        dataset: activations and tokens; its contexts decide which rows are neighbours.
        decode: the texts of tokens that stand side by side.
        probes: all directions.
        top: what `top_rows` found for them, with `count` times SPARE rows kept.
        f: which of them.
        count: contexts to look at.
        shown: contexts to keep.
    """
    seen: set[tuple[int, ...]] = set()
    peaks: list[tuple[int | None, int]] = []
    lines: list[Example] = []
    for row in top.rows[f].tolist():
        if row < 0 or len(peaks) == count:
            break
        first, last = bounds_of(dataset, row)
        start, stop = max(first, row - BEFORE), min(last, row + AFTER + 1)
        ids = dataset.tokens(start, stop).tolist()
        peak = row - start
        key = tuple(ids[max(0, peak - SAME + 1) : peak + 1])
        if key in seen:
            continue
        seen.add(key)
        peaks.append((ids[peak - 1] if peak else None, ids[peak]))
        if len(lines) < shown:
            codes = [round(value, 4) for value in probes[f].encode(dataset.read(start, stop))[:, 0].tolist()]
            # A few tokens on either side as well: a character may be cut at the edge.
            before, after = max(first, start - EDGE), min(last, stop + EDGE)
            around = dataset.tokens(before, after).tolist()
            texts = decode(around, row - before, start - before, stop - before)
            lines.append(Example(row, codes[peak], texts, codes, peak))
    density = float(top.fired[f]) / max(top.searched, 1)
    return TopContexts(density, top.searched, consistency(peaks), len(peaks), lines)


def bounds_of(dataset: Rows, row: int) -> tuple[int, int]:
    """The rows of the context that `row` belongs to; all rows where the dataset does not say."""
    try:
        return dataset.context_bounds(row)
    except ContextsUnknown:
        return 0, dataset.rows


def consistency(peaks: Sequence[tuple[int | None, int]]) -> float | None:
    """How alike contexts are, from the tokens (before the peak, at the peak) of each.

    The largest share of contexts with the same token at one of the two places: 1 where all agree, near 0 where each
    has its own. That nothing is before the peak, the start of a window, is something to agree on as well. None without
    contexts.

    >>> consistency([(1, 7), (2, 7), (3, 7), (3, 8)])
    0.75
    """
    if not peaks:
        return None
    places = ([before for before, _ in peaks], [at for _, at in peaks])
    return max(max(Counter(place).values()) for place in places) / len(peaks)
