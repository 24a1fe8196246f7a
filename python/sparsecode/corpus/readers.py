"""A file to documents: text, JSON lines and parquet, plain or compressed, streamed in pieces and checked on the way."""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from sparsecode.checkpoint import os_failure
from sparsecode.corpus.chat import Messages
from sparsecode.corpus.zstd import open_zstd
from sparsecode.errors import CorpusUnreadable, MissingExtra

SEPARATOR = "<|endoftext|>"  # between the documents of one .txt file
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".parquet")
COMPRESSIONS = (".gz", ".xz", ".zst")

PIECE = 1 << 16  # characters; some 20k tokens: small enough to spread over cores, large enough that calls cost nothing
_CHUNK = 1 << 20  # bytes read at a time
_LONGEST_WORD = 1 << 20  # a run without a space that is longer than this is cut anywhere

# A byte-level BPE never joins a letter or digit with the space or newline after it (GPT-2's pattern and its
# successors): cut there, a text gives the same tokens as whole.
_CUT = re.compile(r"[^\W_](?=[ \n])")

Bad = Callable[[CorpusUnreadable], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a document's text; `ends` marks its last."""

    text: str
    ends: bool


def file_kind(path: PurePath) -> str:
    """The suffix that says what a file holds, compression taken off: `books.txt.xz` -> `.txt`."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1].lower() if suffixes else ""


def read_file(path: Path, text_key: str, bad: Bad) -> Iterator[Piece]:
    """The documents of one file, in pieces of about `PIECE` characters.

    Args:
        path: .jsonl and .parquet are tables; everything else is UTF-8 text, and .txt may hold several documents
            with `<|endoftext|>` between them.
        text_key: key or column of the text in tables.
        bad: called with the error for a record that cannot be used; raises it, or counts it and returns. A file
            that is broken as a whole raises.

    Raises:
        CorpusUnreadable: binary, not UTF-8, cut off, or without `text_key`; names the file and the place.
        MissingExtra: a package for this format is not installed.
        IoFailed: the operating system refused.
    """
    kind = file_kind(path)
    if kind == ".parquet":
        return _read_parquet(path, text_key, bad)
    if kind == ".jsonl":
        return _read_jsonl(path, text_key, bad)
    if isinstance(text_key, Messages):
        raise CorpusUnreadable(f"{path}: prose, not conversations; --chat takes tables of them, such as .jsonl")
    return _read_text(path, several=kind == ".txt")


def cut(text: str) -> Iterator[Piece]:
    """One whole document, cut into pieces that tokenise as the whole does."""
    start = 0
    while (stop := _cut_after(text, start)) is not None:
        yield Piece(text[start:stop], False)
        start = stop
    yield Piece(text[start:], True)


def checked_text(value: Any, where: str, text_key: str) -> str:
    """The text of one record of a table.

    Raises:
        CorpusUnreadable: no such key, not a string, or half a surrogate pair in it.
    """
    text: Any = value.get(text_key) if isinstance(value, dict) else None
    if isinstance(text_key, Messages):
        text = text_key.text(value, where)
    if not isinstance(text, str):
        found = (
            ", ".join(list(value)[:8]) if isinstance(value, dict) else f"{type(value).__name__} instead of an object"
        )
        raise CorpusUnreadable(
            f"{where}: no text under '{text_key}' (found: {found or 'nothing'}); name it by --text-key"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusUnreadable(f"{where}: half a surrogate pair at character {error.start}{_NEXT}") from error
    return text


_NEXT = "; leave it out, or skip what is unreadable with --skip-bad"


def _read_text(path: Path, *, several: bool) -> Iterator[Piece]:
    pending = ""
    for text in _decoded(path):
        pending += text
        if several:
            *whole, pending = pending.split(SEPARATOR)
            for document in whole:
                yield from cut(document)
        # The tail stays behind: it may be the first half of a separator or of a word.
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


def _decoded(path: Path) -> Iterator[str]:
    """The file as UTF-8 text, a mark at its beginning left out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with _opened(path) as file:
        while True:
            data = file.read(_CHUNK)
            if (zero := data.find(b"\0")) >= 0:
                raise CorpusUnreadable(f"{path}: binary, not text (a zero byte at byte {offset + zero}){_NEXT}")
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = offset - held + error.start
                raise CorpusUnreadable(f"{path}: not UTF-8 ({error.reason} at byte {place}){_NEXT}") from error
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(data)
            if text:
                yield text
            if not data:
                return


def _read_jsonl(path: Path, text_key: str, bad: Bad) -> Iterator[Piece]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                text = checked_text(_parsed(line, where), where, text_key)
            except CorpusUnreadable as error:
                bad(error)
                continue
            yield from cut(text)


def _parsed(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusUnreadable(f"{where}: not JSON ({error}){_NEXT}") from error


def _read_parquet(path: Path, text_key: str, bad: Bad) -> Iterator[Piece]:
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra(f"{path}: reading .parquet needs pyarrow; run: pip install pyarrow") from error
    with _opened(path) as file:
        # A compressed file cannot be read from its end, where parquet keeps its index.
        source = file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
        try:
            table = parquet.ParquetFile(source)
            names = list(table.schema_arrow.names)
            if text_key not in names:
                checked_text(dict.fromkeys(names), str(path), text_key)
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=[text_key]):
                for value in batch.column(0):
                    row += 1
                    try:
                        text = checked_text({text_key: value.as_py()}, f"{path}: row {row}", text_key)
                    except CorpusUnreadable as error:
                        bad(error)
                        continue
                    yield from cut(text)
        except arrow.ArrowException as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CorpusUnreadable(f"{path}: not a parquet file ({reason}){_NEXT}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its last suffix; what goes wrong while it is read gets its name here."""
    broken: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    try:
        opened: Any
        if path.suffix == ".gz":
            opened = gzip.open(path)  # noqa: SIM115 (entered below)
        elif path.suffix == ".xz":
            opened = lzma.open(path)  # noqa: SIM115
        elif path.suffix == ".zst":
            opened, zstd_error = open_zstd(path)
            broken += (zstd_error,)
        else:
            opened = path.open("rb")
        with opened as file:
            yield file
    except broken as error:
        raise CorpusUnreadable(f"{path}: not a whole {path.suffix} file ({error}){_NEXT}") from error
    except OSError as error:
        raise os_failure(path, error) from error
