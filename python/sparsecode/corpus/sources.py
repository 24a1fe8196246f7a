"""Where text comes from: the Python sources installed here, files, folders and globs, or a Hugging Face dataset."""

from __future__ import annotations

import glob
import importlib
import inspect
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from sparsecode.corpus.begun import Begun
from sparsecode.corpus.readers import SUFFIXES, Piece, file_kind, read_file, record_pieces
from sparsecode.corpus.saved import is_description, saved_files
from sparsecode.corpus.tables import ARROW, Bad
from sparsecode.corpus.text import TextSettings
from sparsecode.errors import CorpusEmpty, CorpusUnreadable, InvalidSetting, IoFailed, MissingExtra, in_a_line


@dataclass(frozen=True)
class FileSource:
    """One file.

    Attributes:
        name: independent of the text's location, so that two machines with the same text agree on it.
        path: where it is.
        text_key: see `readers.read_file`.
        named: whether the user named it; if so, it is an error when it is empty.
    """

    name: str
    path: Path
    text_key: str = "text"
    named: bool = False

    def state(self) -> str:
        """Size and time of the last change; if a file has none, reading it reports why."""
        try:
            status = self.path.stat()
        except OSError as error:
            return str(error.strerror)
        return f"{status.st_size} {status.st_mtime_ns}"

    def pieces(self, bad: Bad) -> Iterator[Piece]:
        """The file's documents, the same ones at every reading; in pieces, see `readers.read_file`."""
        return read_file(self.path, self.text_key, bad)


@dataclass(frozen=True)
class HubSource:
    """The train split of a Hugging Face dataset, `NAME` or `NAME:CONFIGURATION`."""

    name: str
    text_key: str = "text"
    named: bool = True
    stream: int | None = None
    """Read as a stream until so many bytes of text are there; None: downloaded as a whole."""

    def state(self) -> str:
        """The library's own fingerprint of the data; for a stream, which has none, how much is read."""
        if self.stream is not None:
            return f"the first {self.stream} bytes"
        return str(getattr(self._rows, "_fingerprint", ""))

    def pieces(self, bad: Bad) -> Iterator[Piece]:
        """One document per row; a stream, whose rows come once, is read from a copy on disk."""
        if self.stream is None:
            yield from self._documents(self._rows, bad)
            return
        yield from self._begun.pieces(bad)

    @cached_property
    def _begun(self) -> Begun:
        return Begun(self._documents, self._rows, self.stream or 0)

    def _documents(self, rows: Iterable[Any], bad: Bad) -> Iterator[Piece]:
        records = ((f"{self.name}: row {number}", row) for number, row in enumerate(rows))
        return record_pieces(records, self.text_key, bad)

    @cached_property
    def _rows(self) -> Any:
        try:
            datasets = importlib.import_module("datasets")
        except ImportError as error:
            raise MissingExtra(
                "Hugging Face datasets need the package datasets; run: pip install 'sparsecode[hf]'"
            ) from error
        name, _, configuration = self.name.partition(":")
        try:
            safe = _no_code(datasets.load_dataset)
            if self.stream is not None:
                return datasets.load_dataset(name, configuration or None, split="train", streaming=True, **safe)
            return datasets.load_dataset(name, configuration or None, split="train", **safe)
        except Exception as error:  # the library raises what its many back ends raise
            raise IoFailed(f"Hugging Face dataset {self.name}: cannot be loaded ({in_a_line(error)})") from error


Source = FileSource | HubSource


def _no_code(load: Callable[..., Any]) -> dict[str, bool]:
    """Keeps the library from asking whether to run code that comes with a dataset; from 4.0 on it never does."""
    name = "trust_remote_code"
    return {name: False} if name in inspect.signature(load).parameters else {}


@dataclass(frozen=True)
class Sources:
    """The sources of a corpus, sorted by name, and the corpus's name."""

    description: str
    sources: Sequence[Source]
    lenient: bool = False
    """Unreadable files are left out and counted without asking: nobody chose these files."""


def find_sources(settings: TextSettings) -> Sources:
    """The sources that the settings ask for.

    Raises:
        CorpusEmpty: a folder or glob holds no text.
        CorpusUnreadable: a path does not exist.
        InvalidSetting: a stream without a limit, or of files.
    """
    if settings.hf_stream and (not settings.hf_dataset or settings.max_text_mb is None):
        raise InvalidSetting(
            "a stream is read of a Hugging Face dataset, and only as far as it is told", remedy="hf_stream"
        )
    if settings.hf_dataset and saved_files(Path(settings.hf_dataset).expanduser()) is not None:
        return Sources(settings.hf_dataset, _by_name(_expand(settings.hf_dataset, settings.text_key)))
    if settings.hf_dataset:
        limit = settings.max_text_mb * 1_000_000 if settings.hf_stream and settings.max_text_mb else None
        hub = HubSource(settings.hf_dataset, settings.text_key, stream=limit)
        beginning = f" (its first {settings.max_text_mb} MB)" if limit else ""
        return Sources(f"Hugging Face dataset {settings.hf_dataset}{beginning}", [hub])
    if settings.text:
        found: dict[Path, FileSource] = {}
        for given in settings.text:
            for source in _expand(given, settings.text_key):
                found.setdefault(source.path.resolve(), source)
        return Sources(", ".join(settings.text), _by_name(found.values()))
    return python_sources()


def python_sources() -> Sources:
    """The .py files of the interpreter's standard library and of the packages that sparsecode needs, tests left out."""
    library = Path(sysconfig.get_path("stdlib"))
    found: list[FileSource] = []
    for path in library.rglob("*.py") if library.is_dir() else ():
        inside = path.relative_to(library)
        if not _is_test(inside) and not {"site-packages", "dist-packages"} & set(inside.parts):
            found.append(FileSource(f"python/{inside.as_posix()}", path))
    distributions = required_distributions("sparsecode")
    for distribution in distributions:
        found += [
            FileSource(file.as_posix(), Path(str(file.locate())))
            for file in distribution.files or ()
            if file.suffix == ".py" and ".." not in file.parts and not _is_test(file)
        ]
    packages = f" and of {len(distributions)} packages" if distributions else ""
    description = (
        f"Python sources of the standard library {platform.python_version()}{packages} ({sys.implementation.name})"
    )
    return Sources(description, _by_name(found), lenient=True)


def required_distributions(name: str) -> list[metadata.Distribution]:
    """The installed distributions that `name` needs, directly or indirectly; without itself and without extras."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        key = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if key in found:
            continue
        try:
            found[key] = metadata.distribution(key)
        except metadata.PackageNotFoundError:  # needed on another platform only
            continue
        for requirement in found[key].requires or ():
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            if match and not re.search(r"\bextra\s*==", requirement):
                waiting.append(match[0])
    found.pop(re.sub(r"[-_.]+", "-", name).lower(), None)
    return [found[key] for key in sorted(found)]


_TEST_FOLDERS = {"test", "tests", "testing", "_testing", "idle_test"}


def _is_test(path: PurePath) -> bool:
    name = path.name
    return (
        bool(_TEST_FOLDERS & set(path.parts[:-1]))
        or name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
    )


def _expand(given: str, text_key: str) -> Iterator[FileSource]:
    path = Path(given).expanduser()
    if path.is_dir():
        base = path.resolve().name
        saved = saved_files(path)
        if saved is not None:
            for file in saved:
                yield FileSource(f"{base}/{file.relative_to(path).as_posix()}", file, text_key, named=True)
            return
        inside = [file for file in path.rglob("*") if _is_text_file(file.relative_to(path)) and file.is_file()]
        runs = {file.parent for file in path.rglob("config.json") if file.parent != path and _is_run(file.parent)}
        inside = [file for file in inside if not _is_beside_the_data(file) and runs.isdisjoint(file.parents)]
        if not inside:
            raise CorpusEmpty(f"{given}: no {', '.join(SUFFIXES)} file in this folder")
        for file in inside:
            yield FileSource(f"{base}/{file.relative_to(path).as_posix()}", file, text_key)
    elif path.exists():
        yield FileSource(_name(path), path, text_key, named=True)
    elif glob.has_magic(given):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns too)
        if not matches:
            raise CorpusEmpty(f"{given}: no file matches")
        for match in matches:
            if Path(match).is_file():
                yield FileSource(_name(Path(match)), Path(match), text_key)
    else:
        raise CorpusUnreadable(f"{given}: no such file or folder", remedy="text")


def _is_run(folder: Path) -> bool:
    """Whether a folder below the text is a run of this program, whose JSON records are not text."""
    try:
        record = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"format", "stages"} <= record.keys()


def _name(path: Path) -> str:
    """A file's name; for a link that of its target, unless the target has no ending (the hub's cache)."""
    own = path.resolve()
    return own.name if file_kind(own) == file_kind(path) else path.name


def _is_beside_the_data(file: Path) -> bool:
    """Whether a file of a saved or cached dataset holds none of its rows."""
    if is_description(file):
        return True
    listed = saved_files(file.parent) if file.suffix in ARROW else None
    return listed is not None and file not in listed


def _is_text_file(inside: PurePath) -> bool:
    hidden = any(part.startswith(".") for part in inside.parts)  # .git, .venv and the like
    return file_kind(inside) in SUFFIXES and not hidden


def _by_name(sources: Iterable[FileSource]) -> Sequence[Source]:
    return sorted(sources, key=lambda source: (source.name, str(source.path)))
