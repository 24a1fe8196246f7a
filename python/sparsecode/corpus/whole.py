"""The tokens of a long document, read in windows: the same tokens as of the document as a whole.

Tokens depend on text beyond a cut: SentencePiece puts a mark before each text it is given, a word cut in two has other
tokens, and so have digits that are grouped by three. So windows overlap. Where two of them agree on a run of tokens
within the overlap, away from its ends, they are joined there: BPE decides by pairs of neighbouring tokens, and every
pair of the joined sequence is in one of the windows. Where they do not agree, as within a long run of a single
character, the window grows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tokenizers import Encoding, Tokenizer

OVERLAP = 4096  # characters; the influence of a window's end reaches some tens of characters
_RUN = 8  # tokens in a row on which two windows must agree
_LONGEST = 1 << 21  # characters a window may grow to; beyond that the document is cut, since nothing in it agrees

Span = tuple[int, int, int]  # id, first character, one more than the last; characters of the whole document


class Whole:
    """Joins the windows of one document after another.

    Args:
        tokenizer: encoded the windows; encodes larger ones where needed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._begin()

    def _begin(self) -> None:
        self._seen = 0  # characters of the document so far
        self._window = ""  # the text in which the pending tokens were found
        self._start = 0  # where it starts
        self._waiting: list[Span] = []  # tokens of which all but the last are certain

    def add(self, before: str, text: str, ends: bool, encoding: Encoding) -> list[int]:
        """The tokens that one more window makes certain.

        Args:
            before: the end of the preceding text of this document, at most `OVERLAP` characters.
            text: the new text.
            ends: whether it is the document's last.
            encoding: of both together.
        """
        if ends and not before:
            ids: list[int] = encoding.ids
            return ids
        start = self._seen - len(before)
        found = _spans(encoding, start)
        certain: list[Span] = []
        if not before:
            self._window, self._start, self._waiting = text, start, found
        else:
            quarter = len(before) // 4
            seam = _seam(self._waiting, found, start + quarter, self._seen - quarter)
            if seam is not None:
                certain, self._waiting = self._waiting[: seam[0]], found[seam[1] :]
                self._window, self._start = before + text, start
            elif len(self._window) + len(text) <= _LONGEST:
                self._grow(text)
            else:
                certain, self._waiting = self._waiting, [span for span in found if span[1] >= self._seen]
                self._window, self._start = before + text, start
        self._seen += len(text)
        if ends:
            certain = certain + self._waiting
            self._begin()
        return [token for token, _, _ in certain]

    def _grow(self, text: str) -> None:
        """Reads the last window again with the text after it; its beginning keeps its tokens."""
        self._window += text
        found = _spans(self._tokenizer.encode(self._window, add_special_tokens=False), self._start)
        first = self._waiting[:_RUN]
        place = next((i for i in range(len(found)) if found[i : i + len(first)] == first), None)
        if place is None:
            begin = first[0][1] if first else self._start
            place = next((i for i, span in enumerate(found) if span[1] >= begin), len(found))
        self._waiting = found[place:]


def _spans(encoding: Encoding, start: int) -> list[Span]:
    return [(token, start + a, start + b) for token, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)]


def _seam(one: list[Span], other: list[Span], low: int, high: int) -> tuple[int, int] | None:
    """Where to switch from one window's tokens to the other's: the middle of the longest run that is in both.

    Args:
        one, other: tokens of both windows.
        low, high: only tokens between these characters count.
    """
    i, ends_one = _between(one, low, high)
    j, ends_other = _between(other, low, high)
    best: tuple[int, int, int] = (0, 0, 0)  # length of a run, and where it ends in both
    run = 0
    while i < ends_one and j < ends_other:
        if one[i] == other[j]:
            i, j, run = i + 1, j + 1, run + 1
            best = max(best, (run, i, j))
        else:
            run = 0
            if one[i][1:] <= other[j][1:]:
                i += 1
            else:
                j += 1
    length, i, j = best
    return (i - length // 2, j - length // 2) if length >= _RUN else None


def _between(spans: list[Span], low: int, high: int) -> tuple[int, int]:
    """First and one past the last of the tokens between two characters, which are near one end of the list."""
    last = len(spans)
    while last and spans[last - 1][2] > high:
        last -= 1
    first = last
    while first and spans[first - 1][1] >= low:
        first -= 1
    return first, last


class Spelled:
    """Counts how often a text spells certain tokens.

    Args:
        names: names of the tokens.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._beginnings = {name[:2] for name in names}
        self._found: Counter[str] = Counter()

    def look(self, text: str) -> None:
        """Counts the tokens in one more stretch of text."""
        if any(beginning in text for beginning in self._beginnings):
            self._found.update({name: count for name in self._names if (count := text.count(name))})

    def record(self) -> dict[str, Any]:
        """The counts, for a corpus's record."""
        return {"control_tokens": dict(self._found.most_common())} if self._found else {}
