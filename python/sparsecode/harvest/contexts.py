"""The tokens of each forward pass: pure functions of the text's tokens and the settings.

A context is a stretch of the text with the special tokens that the model's tokenizer puts around a text. Rows are the
tokens of the contexts in order; those of padding and of special tokens are left out unless asked for.

Shapes: S contexts, B contexts of a batch, T positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparsecode.errors import InvalidSetting
from sparsecode.harvest.models.language import NO_FRAME, Frame
from sparsecode.harvest.windows import window_order

Ids = npt.NDArray[np.unsignedinteger]
_COUNTED = 1 << 24  # tokens examined at once


@dataclass(frozen=True)
class TokenBatch:
    """Contexts of one forward pass.

    Attributes:
        ids: [B,T] int64, padded on the right.
        present: [B,T] bool, False for padding.
        keep: [B,T] bool, the positions whose activations are rows.
        numbers: [B] which contexts of the text these are.
    """

    ids: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    keep: npt.NDArray[np.bool_]
    numbers: npt.NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Number of rows it gives."""
        return int(np.count_nonzero(self.keep))

    def left_out(self, rows: int, unknown: int | None) -> Counter[str]:
        """Positions that give no rows, counted by reason (padding, unknown, special), up to the first `rows` rows."""
        kept = np.flatnonzero(self.keep)
        end = self.keep.size if rows >= len(kept) else int(kept[rows - 1]) + 1 if rows else 0
        present, keep, ids = (values.reshape(-1)[:end] for values in (self.present, self.keep, self.ids))
        others = present & ~keep
        unknowns = int(np.count_nonzero(others & (ids == unknown))) if unknown is not None else 0
        return Counter(
            padding=int(np.count_nonzero(~present)),
            unknown=unknowns,
            special=int(np.count_nonzero(others)) - unknowns,
        )

    def contexts(self, before: int) -> npt.NDArray[np.int32]:
        """[rows] the number of each row's context, where `before` contexts were read before these."""
        return np.repeat(np.arange(len(self.keep), dtype=np.int32) + before, np.count_nonzero(self.keep, axis=1))


@dataclass(frozen=True)
class Contexts:
    """A text cut into contexts.

    Attributes:
        tokens: [n], memory-mapped.
        starts, stops: [S] where each context's stretch begins and ends.
        length: most tokens of a stretch, the frame not counted.
        frame: special tokens around each stretch.
        special: ids whose rows are left out.
        pad: id to fill up with.
        whole: every stretch has the same length, so that no batch is padded.
        border: the token between documents in `tokens`, and the one that a model is given in its place.
    """

    tokens: Ids
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    length: int
    frame: Frame = NO_FRAME
    special: frozenset[int] = frozenset()
    pad: int = 0
    whole: bool = True
    border: tuple[int, int] = (-1, -1)

    @cached_property
    def rows(self) -> int:
        """Rows of all contexts."""
        kept = int((self.stops - self.starts).sum())
        if self.special:
            kept -= self._left_out()
        else:
            kept += len(self.frame) * len(self.starts)
        return kept

    @property
    def rows_each(self) -> int | None:
        """T where row r is token r % T of context r // T; None where contexts give different numbers of rows."""
        if not self.whole:
            return None
        if not self.special:
            return self.width
        return self.length if self.rows == self.length * len(self.starts) else None

    @property
    def width(self) -> int:
        """Most tokens of a context, frame included."""
        return self.length + len(self.frame)

    def _left_out(self) -> int:
        special = np.array(sorted(self.special | ({self.border[0]} if self.border[1] in self.special else set())))
        count = 0
        inside = np.zeros(1, np.int64)
        # Stretches are in the text's order and do not overlap; tokens between them are not counted.
        marks = np.zeros(len(self.tokens) + 1, np.int8)
        np.add.at(marks, self.starts, 1)
        np.add.at(marks, self.stops, -1)
        for first in range(0, len(self.tokens), _COUNTED):
            part = self.tokens[first : first + _COUNTED]
            covered = inside[-1] + np.cumsum(marks[first : first + len(part)], dtype=np.int64)
            count += int(np.count_nonzero(np.isin(part, special) & (covered > 0)))
            inside = covered
        return count

    def order(self, seed: int) -> npt.NDArray[np.int64]:
        """All contexts in a seeded random order, the same as in the own GPT's harvest."""
        return window_order(len(self.starts), 1, seed)

    def batches(self, order: npt.NDArray[np.int64], most_tokens: int) -> Iterator[TokenBatch]:
        """The contexts in `order`, in batches of at most `most_tokens` with padding, but of at least one context."""
        if self.whole:
            size = max(1, most_tokens // self.width)
            for first in range(0, len(order), size):
                yield self.batch(order[first : first + size])
            return
        chosen: list[int] = []
        longest = 0
        for number in order.tolist():
            length = int(self.stops[number] - self.starts[number]) + len(self.frame)
            if chosen and max(longest, length) * (len(chosen) + 1) > most_tokens:
                yield self.batch(np.array(chosen))
                chosen, longest = [], 0
            chosen.append(number)
            longest = max(longest, length)
        if chosen:
            yield self.batch(np.array(chosen))

    def batch(self, numbers: npt.NDArray[np.int64]) -> TokenBatch:
        """Some contexts, side by side."""
        lengths = self.stops[numbers] - self.starts[numbers]
        B, T = len(numbers), int(lengths.max()) + len(self.frame)
        before = len(self.frame.before)
        ids = np.full((B, T), self.pad, np.int64)
        present = np.zeros((B, T), bool)
        keep = np.zeros((B, T), bool)
        for i, (number, length) in enumerate(zip(numbers.tolist(), lengths.tolist(), strict=True)):
            start = int(self.starts[number])
            ids[i, :before] = self.frame.before
            ids[i, before : before + length] = self.tokens[start : start + length]
            ids[i, before + length : length + len(self.frame)] = self.frame.after
            present[i, : length + len(self.frame)] = True
            keep[i, before : before + length] = True
        if self.border[0] != self.border[1]:
            ids[ids == self.border[0]] = self.border[1]
        if self.special:
            keep &= ~np.isin(ids, np.array(sorted(self.special)))
        else:
            keep = present.copy()
        return TokenBatch(ids, present, keep, numbers)


def packed(
    tokens: Ids,
    context: int,
    frame: Frame,
    special: frozenset[int],
    pad: int = 0,
    border: tuple[int, int] = (-1, -1),
) -> Contexts:
    """The text as one stream, cut into windows of `context` tokens with the frame; the remainder is left out.

    `border`: see `Contexts`.

    Raises:
        InvalidSetting: the context has no room.
    """
    length = _room(context, frame)
    starts = np.arange(len(tokens) // length, dtype=np.int64) * length
    return Contexts(tokens, starts, starts + length, length, frame, special, pad, border=border)


def by_document(tokens: Ids, end: int, context: int, frame: Frame, special: frozenset[int], pad: int = 0) -> Contexts:
    """Every document by itself, without its end token, cut into stretches that fit into `context` with the frame.

    A document that already begins with the frame's first tokens, as chat templates write them, gets them once.

    Raises:
        InvalidSetting: the context has no room.
    """
    length = _room(context, frame)
    ends = np.flatnonzero(np.asarray(tokens) == end)
    if len(tokens) and (len(ends) == 0 or ends[-1] != len(tokens) - 1):
        ends = np.append(ends, len(tokens))
    firsts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1]) if len(ends) else ends
    if frame.before and len(ends):
        framed = firsts + len(frame.before) <= ends
        for place, token in enumerate(frame.before):
            framed &= np.asarray(tokens[np.minimum(firsts + place, len(tokens) - 1)]) == token
        firsts = firsts + framed * len(frame.before)
    pieces = -(-(ends - firsts) // length)
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.repeat(firsts, pieces) + number * length
    stops = np.minimum(starts + length, np.repeat(ends, pieces))
    return Contexts(tokens, starts, stops, length, frame, special, pad, whole=False)


def _room(context: int, frame: Frame) -> int:
    if context <= len(frame):
        raise InvalidSetting(
            f"a context of {context} tokens: the tokenizer's {len(frame)} special tokens leave no room; take more"
        )
    return context - len(frame)
