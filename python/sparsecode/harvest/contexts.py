"""The tokens of each forward pass: pure functions of the text's tokens and the settings.

A context is a stretch of the text with the special tokens that the model's tokenizer puts around a text. Rows are the
tokens of the contexts in order; those of padding and of special tokens are left out unless asked for.

Shapes: S contexts, B contexts of a batch, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparsecode.corpus import Tokens
from sparsecode.errors import InvalidSetting
from sparsecode.harvest.models import LanguageModel
from sparsecode.harvest.models.ids import check_text
from sparsecode.harvest.models.language import NO_FRAME, Frame

DEFAULT_CONTEXT = 256
REASONS = ("", "padding", "unknown", "special", "not kept")  # why a position gives no row; the first: it gives one

Ids = npt.NDArray[np.unsignedinteger]
_COUNTED = 1 << 24  # tokens examined at once


@dataclass(frozen=True, kw_only=True)
class ContextSettings:
    """How a text is cut into contexts for a model that was not trained on it.

    Attributes:
        context: tokens in a context; None: 256, or the most that the model takes.
        documents: never two documents in a context; short ones are padded.
        special_tokens: rows of special tokens count too.
        chat: the text is conversations, written by the model's chat template.
    """

    context: int | None = None
    documents: bool = False
    special_tokens: bool = False
    chat: bool = False


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

    def why(self, unknown: int | None) -> npt.NDArray[np.int8] | None:
        """[B,T] why a position gives no row, as its place in REASONS: 0 where it gives one; None where all do.

        Args:
            unknown: id for text that the tokenizer does not know, if there is one.
        """
        if self.keep.all():
            return None
        others = np.where(self.ids == unknown, 2, 3) if unknown is not None else 3
        return np.where(self.keep, 0, np.where(self.present, others, 1)).astype(np.int8)


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
        """All contexts in a seeded random order.

        It decides which contexts are read when fewer rows are wanted than there are, and spreads the documents evenly
        over the shards; whoever trains on the rows shuffles them anyway.
        """
        generator = np.random.Generator(np.random.PCG64([seed, 0x68617276]))  # "harv": a substream of its own
        return generator.permutation(len(self.starts))

    def batches(self, order: npt.NDArray[np.int64], most_tokens: int) -> Iterator[TokenBatch]:
        """The contexts in `order`, in batches of at most `most_tokens` with padding, but of at least one context.

        Batch i always holds the same contexts, wherever a harvest resumes. So the same rows come from products of the
        same shape and have the same bits.
        """
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
        starts = self.starts[numbers, None]  # [B,1]
        lengths = self.stops[numbers, None] - starts
        before, after = len(self.frame.before), len(self.frame.after)
        at = np.arange(int(lengths.max()) + len(self.frame)) - before  # [T] the place in the stretch
        if self.whole and not len(self.frame) and not self.special and self.border[0] == self.border[1]:
            ids = self.tokens[starts + at].astype(np.int64)
            return TokenBatch(ids, np.ones(ids.shape, bool), np.ones(ids.shape, bool), numbers)
        present = at < lengths + after
        stretch = (at >= 0) & (at < lengths)
        ids = np.full(present.shape, self.pad, np.int64)
        ids[:, :before] = self.frame.before
        ids[stretch] = self.tokens[(starts + at)[stretch]]
        ids[present & (at >= lengths)] = np.tile(self.frame.after, len(numbers))
        if self.border[0] != self.border[1]:
            ids[ids == self.border[0]] = self.border[1]
        keep = stretch & ~np.isin(ids, np.array(sorted(self.special))) if self.special else present.copy()
        return TokenBatch(ids, present, keep, numbers)


def cut(
    tokens: Tokens, model: LanguageModel, settings: ContextSettings | None = None, *, side: str = "train"
) -> Contexts:
    """The contexts that the settings ask for, over the `train` or `val` text.

    Args:
        tokens: the text.
        model: what reads it.
        settings: how; None: as the model was trained on this very text.
        side: train or val.

    Raises:
        InvalidSetting: the model does not take that many tokens, or does not know the token between documents.
        TokensUnknown: it has no embedding for a token of the text, or of those around it.
    """
    text = tokens.train if side == "train" else tokens.val
    if settings is None:
        return packed(text, model.context, model.frame, frozenset())
    context = min(DEFAULT_CONTEXT, model.context) if settings.context is None else settings.context
    if context > model.context:
        raise InvalidSetting(f"a context of {context} tokens: {model.name} takes at most {model.context} tokens")
    special = frozenset() if settings.special_tokens else model.special
    frame = model.chat_frame if settings.chat else model.frame
    around = np.array([*frame.before, *frame.after], np.int64)
    check_text(model.name, around, model.vocab_size, -1, tokens.token_text)
    check_text(model.name, text, model.vocab_size, tokens.eot, tokens.token_text)
    if settings.documents:
        return by_document(text, tokens.eot, context, frame, special, model.pad)
    end = tokens.eot if model.tokenizer is None else tokens.tokenizer.token_to_id(model.end or "")
    if end is None or end >= model.vocab_size:
        raise InvalidSetting(f"{model.name}: its tokenizer has no token that ends a document", remedy="documents")
    return packed(text, context, frame, special, model.pad, border=(tokens.eot, end))


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
