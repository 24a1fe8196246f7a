"""How well any dictionary reconstructs rows, measured through its own encoder and decoder.

Shape letters: B rows of a batch, D dimensions, n features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidArgument
from sparsecode.sweep import metrics
from sparsecode.sweep.batches import Data, chunks


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """How well a dictionary reconstructs some rows. Definitions are those of docs/definitions.md.

    Attributes:
        mse: squared error per row and dimension, in the units of raw activations squared.
        l1: mean sum of the codes of a row, in units of normalised activations.
        l0: mean number of active codes of a row.
        fvu: fraction of variance unexplained, a ratio of sums over all rows; NaN where all rows are the same.
        dead: features that fired on none of the rows.
        rows: how many rows.
        density: [n] share of the rows on which each feature fired.
    """

    mse: float
    l1: float
    l0: float
    fvu: float
    dead: int
    rows: int
    density: Tensor = field(repr=False)

    @property
    def explained_variance(self) -> float:
        """1 - fvu."""
        return 1 - self.fvu

    def as_json(self) -> dict[str, float | int]:
        """The numbers, without the density."""
        return {name: getattr(self, name) for name in ("mse", "l1", "l0", "fvu", "dead", "rows")}


def evaluate(dictionary: Dictionary, x: Data) -> Reconstruction:
    """Measures a dictionary on rows of raw activations.

    Args:
        dictionary: of this library or, by `load_dictionary`, of another.
        x: a tensor or array [rows, width] (or more leading dimensions), a `Dataset`, or batches of rows.

    Raises:
        InvalidArgument: there is no row, or rows of another width.

    >>> rows = torch.randn(1000, 16)
    >>> evaluate(Dictionary(torch.eye(16), torch.zeros(16), torch.eye(16)), rows).l0 < 16
    True
    """
    sse = l1 = active = 0.0
    fired = torch.zeros(dictionary.dict_size, dtype=torch.int64)
    spread: metrics.Deviations | None = None
    for rows in chunks(x):
        codes = dictionary.encode(rows)
        sse += float((dictionary.decode(codes, rows) - rows).double().square().sum())
        l1 += float(codes.double().sum())
        active += float((codes > 0).sum())
        fired += metrics.fired(codes)
        own = metrics.Deviations.of(rows)
        spread = own if spread is None else spread + own
    if spread is None:
        raise InvalidArgument("no rows to measure on")
    count = spread.rows
    return Reconstruction(
        mse=sse / (count * dictionary.activation_dim),
        l1=l1 / count,
        l0=active / count,
        fvu=metrics.fvu(sse, spread.total),
        dead=metrics.dead(fired),
        rows=count,
        density=metrics.density(fired, count),
    )


def fvu_of_strongest(dictionary: Dictionary, x: Tensor, counts: Sequence[int]) -> list[dict[str, Any]]:
    """FVU of rows [B, D] where each row keeps only its k largest codes, for each k of `counts`.

    For orthonormal atoms no other k codes leave less; for others these are a greedy choice.

    Returns:
        [{"codes": k, "l0": mean number of codes that were active among the kept, "fvu"}], k at most n.
    """
    spread = metrics.Deviations.of(x).total
    counts = sorted({min(k, dictionary.dict_size) for k in counts})
    values, places = dictionary.encode(x).topk(counts[-1], dim=1)
    found = []
    for k in counts:
        kept = torch.zeros(len(x), dictionary.dict_size).scatter_(1, places[:, :k], values[:, :k])
        error = float((dictionary.decode(kept) - x).double().square().sum())
        found.append({"codes": k, "l0": float((kept > 0).sum()) / len(x), "fvu": metrics.fvu(error, spread)})
    return found
