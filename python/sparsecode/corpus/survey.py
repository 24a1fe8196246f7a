"""A single pass over all text that keeps 36 bytes per document, enough to choose, split and fingerprint it.

Every decision is a function of a document's own digest. So adding documents does not move the others, and equal
documents are always on the same side.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsecode.corpus.readers import Piece
from sparsecode.corpus.sources import Sources
from sparsecode.errors import CorpusEmpty, CorpusUnreadable, IoFailed

_CHOICE, _SPLIT, _SAMPLE = range(3)  # which 8 bytes of a document's digest decide what
_SMALLEST_CUT = 1024  # bytes; shorter beginnings of a document are not used


@dataclass(frozen=True)
class Survey:
    """Digests and sizes of all documents, numbered in the order of reading, blank ones included (size 0)."""

    sources: Sources
    skipped: list[str]
    """Why sources, or single records of a table, are left out; one line each."""
    keys: NDArray[np.uint64]
    """[documents, 3]: three independent hashes of each document's text."""
    sizes: NDArray[np.int64]
    """[documents]: UTF-8 bytes; of ids about so many, see `Piece.size`."""
    owner: NDArray[np.int64]
    """[documents]: position of the source."""


@dataclass(frozen=True)
class Plan:
    """Which documents are used, and on which side each is."""

    take: NDArray[np.int64]
    """[documents]: bytes to use, from the beginning; 0 for a document that is left out."""
    validation: NDArray[np.bool_]
    """[documents]: held out."""
    sample: NDArray[np.int64]
    """[documents]: bytes from which a tokenizer is trained."""
    tail: int | None
    """With a single document: the byte from which it is validation text."""
    fingerprint: str
    """A digest of names and contents of the text in use."""

    @property
    def documents(self) -> int:
        """Documents in use."""
        return int(np.count_nonzero(self.take))


def survey_text(sources: Sources, *, skip_bad: bool, advance: Callable[[int], None]) -> Survey:
    """Reads everything once.

    Args:
        sources: what to read.
        skip_bad: leave out and count what is unreadable.
        advance: called with the bytes of each piece, for a progress line.

    Raises:
        CorpusUnreadable, IoFailed: a source is unreadable, and not `skip_bad`.
        CorpusEmpty: a named source has no text, and not `skip_bad`; or none has any.
    """
    skip_bad = skip_bad or sources.lenient
    keys, sizes, owner = array("Q"), array("q"), array("q")
    skipped: list[str] = []

    def bad(error: CorpusUnreadable) -> None:
        if not skip_bad:
            raise error
        skipped.append(str(error))

    for position, source in enumerate(sources.sources):
        before = len(sizes)
        try:
            for digest, size in _digests(source.pieces(bad), advance):
                keys.frombytes(digest)
                sizes.append(size)
                owner.append(position)
            if source.named and not any(sizes[before:]):
                raise CorpusEmpty(f"{source.name}: empty, no text in it", remedy="skip_bad")
        except (CorpusUnreadable, CorpusEmpty, IoFailed) as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            del keys[3 * before :], sizes[before:], owner[before:]
    if not any(sizes):
        reason = f"; {len(skipped)} skipped, the first: {skipped[0]}" if skipped else ""
        raise CorpusEmpty(f"{sources.description}: no text in {len(sources.sources)} files{reason}")
    return Survey(
        sources,
        skipped,
        np.array(keys, dtype="<u8").reshape(-1, 3),
        np.array(sizes, dtype=np.int64),
        np.array(owner, dtype=np.int64),
    )


def plan_text(survey: Survey, *, max_bytes: int | None, val_fraction: float, sample_bytes: int) -> Plan:
    """Chooses, splits and samples: pure functions of the documents' hashes.

    Args:
        survey: the text.
        max_bytes: use at most this much.
        val_fraction: share of documents to hold out; at least one on each side, or the tail of a single document.
        sample_bytes: text to train a tokenizer on, from the training side.
    """
    everything = survey.sizes
    take = choose(survey.keys[:, _CHOICE], everything, max_bytes)
    used = np.flatnonzero(take)
    split = survey.keys[:, _SPLIT]
    validation = np.zeros(len(take), bool)
    tail = None
    if len(used) == 1:
        size = int(take[used[0]])
        tail = max(1, size - max(4, round(size * val_fraction)))
    else:
        held = used[split[used] < np.uint64(min(val_fraction * 2.0**64, 2.0**64 - 2048))]
        if len(held) == 0:
            held = used[[np.argmin(split[used])]]
        elif len(held) == len(used):
            held = np.setdiff1d(used, used[[np.argmax(split[used])]])
        validation[held] = True
    trained = np.where(validation, 0, take)
    sample = choose(survey.keys[:, _SAMPLE], trained, sample_bytes)
    if tail is not None:
        sample = np.minimum(sample, tail)
    return Plan(take, validation, sample, tail, _fingerprint(survey, take))


def choose(keys: NDArray[np.uint64], sizes: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Bytes to use of each document: in the order of their keys up to `most` bytes in all; the last one is cut."""
    if most is None or int(sizes.sum()) <= most:
        return sizes.copy()
    order = np.argsort(keys, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    taken = np.clip(most - before, 0, sizes[order])
    cut = (taken < sizes[order]) & (taken < _SMALLEST_CUT) & (before > 0)
    taken[cut] = 0
    result = np.zeros_like(sizes)
    result[order] = taken
    return result


def read_chosen(survey: Survey, take: NDArray[np.int64]) -> Iterator[tuple[int, Piece]]:
    """Reads the chosen text again: (number of the document, piece) of the first `take` bytes of each document.

    Raises:
        CorpusUnreadable: the text changed since the survey, in a source of which something is taken.
    """
    bounds = np.searchsorted(survey.owner, np.arange(len(survey.sources.sources) + 1)).tolist()
    for source, (first, last) in zip(survey.sources.sources, pairwise(bounds), strict=True):
        if not take[first:last].any():
            continue
        number, seen = first - 1, None
        for piece in source.pieces(lambda error: None):
            if seen is None:
                seen, number = 0, number + 1
                if number == last:
                    raise _changed(source.name)
            size = 0 if survey.sizes[number] == 0 and piece.blank else piece.size
            left = int(take[number]) - seen
            if left > 0:
                used = piece if size <= left else piece.split(left)[0]
                yield number, replace(used, ends=piece.ends or size >= left)
            seen += size
            if piece.ends:
                if seen != survey.sizes[number]:
                    raise _changed(source.name)
                seen = None
        if number + 1 != last:
            raise _changed(source.name)


def _digests(pieces: Iterator[Piece], advance: Callable[[int], None]) -> Iterator[tuple[bytes, int]]:
    """(24-byte digest, UTF-8 size) of each document; size 0 if it is only white space."""
    digest, size, blank = hashlib.blake2b(digest_size=24), 0, True
    for piece in pieces:
        digest.update(piece.data())
        size += piece.size
        blank = blank and piece.blank
        advance(piece.size)
        if piece.ends:
            yield digest.digest(), 0 if blank else size
            digest, size, blank = hashlib.blake2b(digest_size=24), 0, True


def _fingerprint(survey: Survey, take: NDArray[np.int64]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    used = np.flatnonzero(take)
    owners = survey.owner[used]
    for group in np.split(used, np.flatnonzero(np.diff(owners)) + 1):
        digest.update(survey.sources.sources[survey.owner[group[0]]].name.encode(errors="surrogateescape") + b"\0")
        digest.update(survey.keys[group].tobytes() + take[group].astype("<i8").tobytes())
    return digest.hexdigest()


def _changed(name: str) -> CorpusUnreadable:
    return CorpusUnreadable(f"{name}: changed while it was being read; run the command again")
