"""Records of structured files: JSON lines, JSON lists, CSV, parquet and arrow; `records` finds their texts.

A record is (position, value); a value is an object by key, or what the file has in its place.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from sparsecode.errors import CorpusUnreadable, MissingExtra

LINES = (".jsonl", ".ndjson", ".jsonlines")
DELIMITED = (".csv", ".tsv")
ARROW = (".arrow", ".feather")
TABLES = (*LINES, ".json", *DELIMITED, ".parquet", *ARROW)
MASK = "attention_mask"  # column beside ids: 0 where they are padding

Bad = Callable[[CorpusUnreadable], None]
Record = tuple[str, Any]

_SPACE = " \t\r\n"
_SLACK = 16  # characters: longer than any name or number that may be cut off at the end


def json_lines(lines: Iterable[bytes | str], path: Path, bad: Bad) -> Iterator[Record]:
    """A value per line; blank lines are skipped. A line that is not JSON is reported to `bad` and left out."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            bad(CorpusUnreadable(f"{where}: not JSON ({error})", remedy="skip_bad"))


def json_values(chunks: Iterator[str], path: Path) -> Iterator[Record]:
    """The members of a JSON list, or a sequence of JSON values; one at a time in memory.

    Raises:
        CorpusUnreadable: it is not JSON.
    """
    source = _Characters(chunks)
    decoder = json.JSONDecoder()
    listed = source.next() == "["
    if listed:
        source.skip(1)
    number = 0
    while (first := source.next()) != ("]" if listed else ""):
        if listed and number:
            if first != ",":
                raise _no_json(path, number, "no comma after it")
            source.skip(1)
            source.next()
        number += 1
        try:
            value = source.value(decoder)
        except (ValueError, RecursionError) as error:
            raise _no_json(path, number, str(error)) from error
        yield f"{path}: record {number}", value
    if listed:
        source.skip(1)
        if source.next():
            raise _no_json(path, number, "something stands after the list")


def csv_rows(lines: Iterator[str], path: Path, text_key: str, bad: Bad) -> Iterator[Record]:
    """Rows by the names in the first line. The separator is the one that makes `text_key` a name there.

    A row with more or fewer cells than names is reported to `bad`: an unquoted separator in a text would turn its end
    into another column.
    """
    csv.field_size_limit((1 << 31) - 1)
    first = next(lines, "")
    if not first.strip():
        return
    separators = "\t,;|" if ".tsv" in path.name.lower() else ",;\t|"
    separator = next((one for one in separators if text_key in _names(first, one)), separators[0])
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if text_key not in names:
            yield str(path), dict.fromkeys(names)
            return
        if names.count(text_key) > 1:
            raise CorpusUnreadable(
                f"{path}: {names.count(text_key)} columns are called '{text_key}'; name one of them so"
            )
        before = reader.line_num
        for row in reader:
            where, before = f"{path}: line {before + 1}", reader.line_num
            if row and len(row) != len(names):
                bad(
                    CorpusUnreadable(
                        f"{where}: {len(row)} cells under {len(names)} names; quote the text", remedy="skip_bad"
                    )
                )
            elif row:
                yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise CorpusUnreadable(f"{path}: line {reader.line_num}: not CSV ({error})", remedy="skip_bad") from error


def parquet_rows(file: IO[bytes], path: Path, text_key: str) -> Iterator[Record]:
    """Rows of a parquet file: the column, and its mask if it holds ids."""
    arrow, parquet = _pyarrow(path, "pyarrow.parquet")
    # A compressed file cannot be read from its end, where parquet keeps its index.
    source = file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
    try:
        table = parquet.ParquetFile(source)
        names = list(table.schema_arrow.names)
        columns = [name for name in (text_key, MASK) if name in names] if text_key in names else []
        if not columns:
            yield str(path), dict.fromkeys(names)
            return
        yield from _numbered(table.iter_batches(batch_size=1024, columns=columns), path)
    except arrow.ArrowException as error:
        raise _no_table(path, error) from error


def arrow_rows(file: IO[bytes], path: Path, text_key: str) -> Iterator[Record]:
    """Rows of an arrow file: a stream, as `datasets` writes it, or the format with an index (also .feather)."""
    arrow, ipc = _pyarrow(path, "pyarrow.ipc")
    source = file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
    try:
        magic = source.read(6)
        source.seek(0)
        if magic == b"ARROW1":
            indexed = ipc.open_file(source)
            names, batches = list(indexed.schema.names), map(indexed.get_batch, range(indexed.num_record_batches))
        else:
            stream = ipc.open_stream(source)
            names, batches = list(stream.schema.names), iter(stream)
        if text_key not in names:
            yield str(path), dict.fromkeys(names)
            return
        columns = [name for name in (text_key, MASK) if name in names]
        yield from _numbered((batch.select(columns) for batch in batches), path)
    except (arrow.ArrowException, OSError) as error:
        raise _no_table(path, error) from error


def looks_like(beginning: str, *, lines: int = 2) -> str | None:
    """ ".jsonl" or ".json" if a text with another name begins like one; None for prose.

    It does if its first `lines` lines (or all, if fewer) are objects, or if it is a list whose first member is one.
    """
    start = beginning.lstrip(_SPACE)
    if start.startswith("{"):
        first = [line for line in start.split("\n") if line.strip()][:lines]
        return ".jsonl" if all(_is_object(line) for line in first) else None
    if start.startswith("["):
        inside = start[1:].lstrip(_SPACE)
        if inside.startswith("{") and _is_object(inside, whole=False):
            return ".json"
    return None


class _Characters:
    """Text that comes in chunks and is read from the front; text that was read is dropped."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self._text = ""
        self._at = 0

    def _more(self, least: int) -> bool:
        """Appends at least this many characters; False if the text has ended."""
        parts = [self._text[self._at :]]
        wanted = least
        for chunk in self._chunks:
            parts.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        self._text, self._at = "".join(parts), 0
        return wanted < least

    def next(self) -> str:
        """The next character that is not white space, without consuming it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more(1):
                return ""

    def skip(self, count: int) -> None:
        """Consumes characters that `next` returned."""
        self._at += count

    def value(self, decoder: json.JSONDecoder) -> Any:
        """The JSON value that begins here. Raises ValueError if there is none."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                held = len(self._text) - self._at
                cut = error.pos >= len(self._text) - _SLACK or error.msg.startswith("Unterminated string")
                # As much again as there is: a long value is tried a few times, not once a chunk.
                if not cut or not self._more(max(held, 1)):
                    raise ValueError(error.msg) from error
                continue
            self._at = end
            return value


def _is_object(text: str, *, whole: bool = True) -> bool:
    try:
        value = json.loads(text) if whole else json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _names(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _numbered(batches: Iterable[Any], path: Path) -> Iterator[Record]:
    row = 0
    for batch in batches:
        names = list(batch.schema.names)
        for values in zip(*(batch.column(place) for place in range(len(names))), strict=True):
            row += 1
            yield f"{path}: row {row}", {name: value.as_py() for name, value in zip(names, values, strict=True)}


def _pyarrow(path: Path, module: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module(module)
    except ImportError as error:
        kind = next((one for one in reversed(path.suffixes) if one.lower() in TABLES), path.suffix)
        raise MissingExtra(f"{path}: reading {kind} needs pyarrow; run: pip install pyarrow") from error


def _no_json(path: Path, number: int, reason: str) -> CorpusUnreadable:
    return CorpusUnreadable(f"{path}: record {number}: not JSON ({reason})", remedy="skip_bad")


def _no_table(path: Path, error: Exception) -> CorpusUnreadable:
    kind = "a parquet" if ".parquet" in path.name.lower() else "an arrow"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CorpusUnreadable(f"{path}: not {kind} file ({reason})", remedy="skip_bad")
