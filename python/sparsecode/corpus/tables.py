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
Batches = Callable[[list[str]], Iterable[Any]]  # some columns -> pyarrow's batches of rows

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


def column_rows(file: IO[bytes], path: Path, kind: str, text_key: str) -> Iterator[Record]:
    """Rows of a parquet or arrow file: the column, and its mask if it holds ids."""
    try:
        arrow = importlib.import_module("pyarrow")
        module = importlib.import_module("pyarrow.parquet" if kind == ".parquet" else "pyarrow.ipc")
    except ImportError as error:
        raise MissingExtra(f"{path}: reading {kind} needs pyarrow; run: pip install pyarrow") from error
    # A compressed file cannot be read from its end, where parquet keeps its index.
    source = file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())
    try:
        names, batches = (_parquet if kind == ".parquet" else _arrow)(module, source)
        if text_key not in names:
            yield str(path), dict.fromkeys(names)
            return
        columns = [name for name in (text_key, MASK) if name in names]
        row = 0
        for batch in batches(columns):
            places = [batch.schema.get_field_index(name) for name in columns]
            for values in zip(*(batch.column(place) for place in places), strict=True):
                row += 1
                yield f"{path}: row {row}", {name: value.as_py() for name, value in zip(columns, values, strict=True)}
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        wanted = "a parquet" if kind == ".parquet" else "an arrow"
        raise CorpusUnreadable(f"{path}: not {wanted} file ({reason})", remedy="skip_bad") from error


def _parquet(module: Any, source: IO[bytes]) -> tuple[list[str], Batches]:
    table = module.ParquetFile(source)
    return list(table.schema_arrow.names), lambda columns: table.iter_batches(batch_size=1024, columns=columns)


def _arrow(module: Any, source: IO[bytes]) -> tuple[list[str], Batches]:
    """A stream, as `datasets` writes it, or the format with an index (also .feather)."""
    indexed = source.read(6) == b"ARROW1"
    source.seek(0)
    table = module.open_file(source) if indexed else module.open_stream(source)
    batches = map(table.get_batch, range(table.num_record_batches)) if indexed else table
    return list(table.schema.names), lambda columns: (batch.select(columns) for batch in batches)


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


def _no_json(path: Path, number: int, reason: str) -> CorpusUnreadable:
    return CorpusUnreadable(f"{path}: record {number}: not JSON ({reason})", remedy="skip_bad")
