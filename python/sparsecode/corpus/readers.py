"""Reads a file as documents: text or a table, plain or compressed, streamed in pieces and checked."""

from __future__ import annotations

import codecs
import gzip
import importlib
import lzma
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparsecode.checkpoint import os_failure
from sparsecode.corpus import tables
from sparsecode.corpus.chat import Messages
from sparsecode.corpus.records import content
from sparsecode.corpus.tables import Bad
from sparsecode.errors import CorpusUnreadable, MissingExtra

SEPARATOR = "<|endoftext|>"  # between the documents of one .txt file
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
SUFFIXES = (*TEXT_SUFFIXES, *tables.TABLES)
COMPRESSIONS = (".gz", ".xz", ".zst")

# Characters: small enough to spread over cores, yet so large that few documents are longer than two of them. Those are
# read in windows, which takes longer: 20 % of the Python sources of the default corpus at 1 << 16, 2 % at 1 << 18.
PIECE = 1 << 18
_CHUNK = 1 << 20  # bytes read at a time
_ID_BYTES = 4  # of text per token, about: what --max-text-mb counts for an id
_LONGEST_WORD = 1 << 20  # a run without a space that is longer than this is cut anywhere

# A byte-level BPE never joins a letter or digit with the space or newline after it (GPT-2's pattern and its
# successors): cut there, a text gives the same tokens as whole.
_CUT = re.compile(r"[^\W_](?=[ \n])")
# Byte order marks, longer ones first, because some begin with a shorter one.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Piece:
    """A stretch of a document's text; `ends` marks its last."""

    text: str
    ends: bool
    ids: NDArray[np.int64] | None = None
    """Instead of text: a whole document as ids that a tokenizer made."""

    @cached_property
    def size(self) -> int:
        """UTF-8 bytes; estimated for ids."""
        if self.ids is not None:
            return _ID_BYTES * len(self.ids)
        return len(self.text) if self.text.isascii() else len(self.text.encode())

    @property
    def blank(self) -> bool:
        """Whether it is white space only."""
        return not self.text.strip() if self.ids is None else not len(self.ids)

    def data(self) -> bytes:
        """Its content as bytes."""
        return self.text.encode() if self.ids is None else self.ids.astype("<i8").tobytes()

    def split(self, size: int, least: int = 0) -> tuple[Piece, Piece]:
        """The longest beginning of at most `size` bytes, as a document of its own, and the rest.

        The beginning has at least one id, or `least` characters.
        """
        size = max(0, size)
        if self.ids is not None:
            count = max(1, size // _ID_BYTES)
            return Piece("", True, self.ids[:count]), Piece("", True, self.ids[count:])
        text = self.text[:size] if self.text.isascii() else self.text.encode()[:size].decode(errors="ignore")
        text = text or self.text[:least]
        return Piece(text, True), Piece(self.text[len(text) :], self.ends)


def file_kind(path: PurePath) -> str:
    """The suffix of a file without that of its compression: `books.txt.xz` -> `.txt`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def read_file(path: Path, text_key: str, bad: Bad) -> Iterator[Piece]:
    """The documents of one file, in pieces of about `PIECE` characters.

    Args:
        path: `tables.TABLES` are tables; everything else is text, UTF-8 unless a byte order mark says otherwise, and
            .txt may hold several documents with `<|endoftext|>` between them. A .txt file, or one of an unknown ending,
            that contains JSON is read as JSON.
        text_key: key or column of the text in tables, or of ids that a tokenizer made of it.
        bad: called with the error for an unusable record; raises it, or counts it and returns. A file that is broken as
            a whole raises.

    Raises:
        CorpusUnreadable: binary, not UTF-8, cut off, or without `text_key`; names the file and the place.
        MissingExtra: a package for this format is not installed.
        IoFailed: the operating system refused.
    """
    kind = file_kind(path)
    if kind not in SUFFIXES or kind == ".txt":
        kind = tables.looks_like(_beginning(path)) or kind
    if kind in tables.TABLES:
        return record_pieces(_records(path, kind, text_key, bad), text_key, bad, table=str(path))
    if isinstance(text_key, Messages):
        raise CorpusUnreadable(f"{path}: prose, not conversations", remedy="chat_tables")
    return _read_text(path, several=kind == ".txt")


def record_pieces(records: Iterable[tables.Record], text_key: str, bad: Bad, table: str = "") -> Iterator[Piece]:
    """The documents in records, in pieces; `bad` as in `read_file`.

    Raises:
        CorpusUnreadable: see `records.content`; of the record that stands for the whole `table`, which lacks the text.
    """
    for where, value in records:
        try:
            found = content(value, where, text_key)
        except CorpusUnreadable as error:
            if where == table:
                raise
            bad(error)
            continue
        yield from cut(found) if isinstance(found, str) else (Piece("", True, found),)


def cut(text: str) -> Iterator[Piece]:
    """A whole document, cut into pieces that together have the tokens of the whole."""
    start = 0
    while (stop := _cut_after(text, start)) is not None:
        yield Piece(text[start:stop], False)
        start = stop
    yield Piece(text[start:], True)


def _read_text(path: Path, *, several: bool) -> Iterator[Piece]:
    pending = ""
    for text in _decoded(path):
        pending += text
        if several:
            *whole, pending = pending.split(SEPARATOR)
            for document in whole:
                yield from cut(document)
        # The tail is kept back: it may be the first half of a separator or of a word.
        start = 0
        while (stop := _cut_after(pending, start)) is not None and stop < len(pending) - len(SEPARATOR):
            yield Piece(pending[start:stop], False)
            start = stop
        pending = pending[start:]
    yield from cut(pending)


def _cut_after(text: str, start: int) -> int | None:
    """Where the piece that begins at `start` ends; None where the rest is one piece."""
    if len(text) - start <= 2 * PIECE:
        return None
    found = _CUT.search(text, start + PIECE, start + _LONGEST_WORD)
    if found:
        return found.end()
    return start + _LONGEST_WORD if len(text) - start > 2 * _LONGEST_WORD else None


def _mark(head: bytes) -> tuple[bytes, str]:
    """The byte order mark at a file's beginning, empty if there is none, and the encoding of its text."""
    return next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))


def _decoded(path: Path) -> Generator[str, None, None]:
    """The file as text, without its byte order mark, which names the encoding; without a mark it is UTF-8."""
    offset = 0
    with _opened(path) as file:
        start = file.read(4)
        encoding = _mark(start)[1]
        decoder = codecs.getincrementaldecoder(encoding)()
        while True:
            data = start + file.read(_CHUNK)
            start = b""
            if encoding == "utf-8" and (zero := data.find(b"\0")) >= 0:
                raise CorpusUnreadable(
                    f"{path}: binary, not text (a zero byte at byte {offset + zero})", remedy="skip_bad"
                )
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = offset - held + error.start
                raise CorpusUnreadable(
                    f"{path}: not {encoding.upper()} ({error.reason} at byte {place})", remedy="skip_bad"
                ) from error
            if encoding != "utf-8" and (zero := text.find("\0")) >= 0:
                raise CorpusUnreadable(
                    f"{path}: binary, not text (a zero at character {zero} of a chunk)", remedy="skip_bad"
                )
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(data)
            if text:
                yield text
            if not data:
                return


def _lines(path: Path) -> Iterator[str | bytes]:
    """Lines of the file; as bytes if it is UTF-8, so that a broken line does not break the others."""
    with _opened(path) as file:
        head = file.read(4)
        mark, encoding = _mark(head)
        if encoding == "utf-8":
            *whole, begun = head[len(mark) :].split(b"\n")
            yield from (line + b"\n" for line in whole)
            yield begun + file.readline()
            yield from file
            return
    yield from _text_lines(path)


def _text_lines(path: Path) -> Iterator[str]:
    """Lines of the file as text, each with its end."""
    pending = ""
    for text in _decoded(path):
        *whole, pending = (pending + text).split("\n")
        yield from (line + "\n" for line in whole)
    if pending:
        yield pending


def _records(path: Path, kind: str, text_key: str, bad: Bad) -> Iterator[tables.Record]:
    if kind == ".json":
        kind = tables.looks_like(_beginning(path), lines=1) or kind
    if kind in tables.LINES:
        yield from tables.json_lines(_lines(path), path, bad)
    elif kind == ".json":
        yield from tables.json_values(_decoded(path), path)
    elif kind in tables.DELIMITED:
        yield from tables.csv_rows(_text_lines(path), path, text_key, bad)
    else:
        with _opened(path) as file:
            yield from tables.column_rows(file, path, kind, text_key)


def _beginning(path: Path) -> str:
    """Whole lines from the front, or a part of the first; empty where the file cannot be read."""
    chunks = _decoded(path)
    try:
        text = next(chunks, "")
        whole = next(chunks, None) is None
    except CorpusUnreadable:  # reading the whole file reports it
        return ""
    finally:
        chunks.close()
    return text if whole else text.rpartition("\n")[0] or text


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its last suffix; errors while it is read get its name here."""
    broken: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    packed = path.suffix.lower()
    try:
        module: Any = {".gz": gzip, ".xz": lzma}.get(packed)
        if packed == ".zst":
            module = _zstd(path)
            broken += (module.ZstdError,)
        with path.open("rb") if module is None else module.open(path) as file:
            yield file
    except broken as error:
        raise CorpusUnreadable(f"{path}: not a whole {path.suffix} file ({error})", remedy="skip_bad") from error
    except OSError as error:
        raise os_failure(path, error) from error


def _zstd(path: Path) -> Any:
    for name in ("compression.zstd", "backports.zstd"):  # Python's own, and the same for Pythons before 3.14
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtra(f"{path}: .zst needs Python 3.14 or the package backports.zstd; run: pip install backports.zstd")
