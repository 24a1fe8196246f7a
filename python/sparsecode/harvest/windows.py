"""The tokens that a harvest reads, and their order: pure functions of (number of tokens, context, seed)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def window_order(n_tokens: int, context: int, seed: int) -> npt.NDArray[np.int64]:
    """Windows 0 .. n_tokens // context - 1 of `context` tokens each, in a seeded random order.

    The dictionary training shuffles rows anyway. This order decides *which* windows are read when fewer rows are wanted
    than there are tokens, and spreads the documents evenly over the shards.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 0x68617276]))  # "harv": a substream of its own
    return generator.permutation(n_tokens // context)


def windows(
    tokens: npt.NDArray[np.unsignedinteger], order: npt.NDArray[np.int64], context: int, batch: int, first: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Batches [<= batch, context] of windows in `order`, from batch number `first` on.

    Batch i always holds windows i * batch .. (i + 1) * batch of the order, wherever a harvest resumes. So the same rows
    come from products of the same shape and have the same bits.
    """
    rows = tokens[: len(order) * context].reshape(-1, context)
    for start in range(first * batch, len(order), batch):
        yield rows[order[start : start + batch]].astype(np.int64)
