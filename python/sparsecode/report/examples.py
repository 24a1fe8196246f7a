"""Where features are most active: a streaming top-k over a dataset's rows, and the text around them.

Shapes: F features, k rows kept of each, R rows of a chunk, d dimensions. Memory is O(F x k) beyond one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.sweep import Dictionary

CHUNK = 16_384  # rows read at a time: 8 MB at 128 dimensions
SPARE = 4  # candidates kept per example shown: text repeats, and a repeated context is shown once
BEFORE, AFTER = 10, 5  # tokens of context: a line of text


class Rows(Protocol):
    """What is needed of `sparsecode.store.Dataset`."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def provenance(self) -> Any: ...  # noqa: D102
    def read(self, start: int, stop: int) -> Tensor: ...  # noqa: D102
    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]: ...  # noqa: D102


@dataclass(frozen=True)
class TopRows:
    """The k rows on which each of F features is most active, best first; rows of -1 where it fired on fewer."""

    values: Tensor  # [F, k]
    rows: Tensor  # [F, k] int64
    fired: Tensor  # [F] int64, rows on which it was active
    searched: int


@dataclass(frozen=True)
class Example:
    """A line of tokens, the activation of each, and which is the peak."""

    row: int
    activation: float
    tokens: list[str]
    activations: list[float]
    peak: int


@dataclass(frozen=True)
class FeatureExamples:
    """One feature with its strongest examples."""

    dictionary: str
    feature: int
    stability: float
    mean_cosine: float
    lowest_cosine: float
    density: float  # share of the searched rows on which it fires
    searched: int
    examples: list[Example] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def select(dictionary: Dictionary, features: Sequence[int]) -> Dictionary:
    """A dictionary of some features of another, in the given order."""
    chosen = torch.tensor(list(features))
    return Dictionary(
        W_enc=dictionary.W_enc[chosen],
        b_enc=dictionary.b_enc[chosen],
        W_dec=dictionary.W_dec[chosen],
        b_dec=dictionary.b_dec,
        mean=dictionary.mean,
        scale=dictionary.scale,
        activation=dictionary.activation,
    )


def top_rows(
    dataset: Rows,
    selections: Sequence[Dictionary],
    k: int,
    rows: int,
    *,
    chunk: int = CHUNK,
    advance: Callable[[int], None] | None = None,
) -> TopRows:
    """The strongest k of the first `rows` rows for the features of `selections`, side by side in that order.

    A harvest reads its windows in a random order, so the first rows are a fair sample of the text.
    """
    F = sum(selection.dict_size for selection in selections)
    searched = min(rows, dataset.rows)
    best, where = torch.full((F, k), -torch.inf), torch.full((F, k), -1, dtype=torch.int64)
    fired = torch.zeros(F, dtype=torch.int64)
    for start in range(0, searched, chunk):
        stop = min(start + chunk, searched)
        x = dataset.read(start, stop)
        codes = torch.cat([selection.encode(x) for selection in selections], dim=1).T  # [F, R]
        fired += (codes > 0).sum(dim=1)
        values, columns = codes.topk(min(k, stop - start), dim=1)
        values = torch.cat([best, values], dim=1)
        candidates = torch.cat([where, columns + start], dim=1)
        best, order = values.topk(k, dim=1)
        where = candidates.gather(1, order)
        if advance is not None:
            advance(stop - start)
    return TopRows(best.clamp(min=0), torch.where(best > 0, where, -1), fired, searched)


def feature_examples(
    dataset: Rows,
    decode: Callable[[int], str],
    dictionaries: dict[str, Dictionary],
    steadiest: Sequence[dict[str, Any]],
    *,
    count: int,
    rows: int,
    advance: Callable[[int], None] | None = None,
) -> list[FeatureExamples]:
    """Strongest examples of the features of a comparison's `steadiest` list, in its order.

    Args:
        dataset: activations and tokens, row r being token r % context of window r // context.
        decode: the text of one token id.
        dictionaries: by name, those that `steadiest` mentions.
        count: examples of each feature.
        rows: rows to search.
        advance: called with the number of rows searched since the last call.
    """
    wanted = sorted(steadiest, key=lambda entry: list(dictionaries).index(entry["dictionary"]))
    names = list(dict.fromkeys(entry["dictionary"] for entry in wanted))
    if not names:
        return []
    selections = [
        select(dictionaries[name], [e["feature"] for e in wanted if e["dictionary"] == name]) for name in names
    ]
    top = top_rows(dataset, selections, count * SPARE, rows, advance=advance)
    context = int(dataset.provenance["context"])
    found: dict[tuple[str, int], FeatureExamples] = {}
    for f, entry in enumerate(wanted):
        one = select(dictionaries[entry["dictionary"]], [entry["feature"]])
        found[entry["dictionary"], entry["feature"]] = FeatureExamples(
            dictionary=entry["dictionary"],
            feature=entry["feature"],
            stability=entry["stability"],
            mean_cosine=entry["mean_cosine"],
            lowest_cosine=entry["lowest_cosine"],
            density=float(top.fired[f]) / max(top.searched, 1),
            searched=top.searched,
            examples=_lines(dataset, decode, one, top.rows[f].tolist(), context, count),
        )
    return [found[entry["dictionary"], entry["feature"]] for entry in steadiest]


def _lines(
    dataset: Rows, decode: Callable[[int], str], feature: Dictionary, rows: list[int], context: int, count: int
) -> list[Example]:
    seen: set[tuple[int, ...]] = set()
    lines: list[Example] = []
    for row in rows:
        if row < 0 or len(lines) == count:
            break
        window = row // context * context
        start, stop = max(window, row - BEFORE), min(window + context, row + AFTER + 1, dataset.rows)
        ids = [int(token) for token in dataset.tokens(start, stop)]
        peak = row - start
        key = tuple(ids[max(0, peak - 4) : peak + 1])
        if key in seen:
            continue
        seen.add(key)
        codes = feature.encode(dataset.read(start, stop))[:, 0].tolist()
        lines.append(Example(row, codes[peak], [decode(token) for token in ids], codes, peak))
    return lines
