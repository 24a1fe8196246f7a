"""Reads .zst with Python's own module (3.14) or the package zstandard."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sparsecode.errors import MissingExtra

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CHUNK = 1 << 17


def open_zstd(path: Path) -> tuple[IO[bytes], type[Exception]]:
    """The decompressed bytes, and the exceptions that reading a broken file raises (EOFError if it is truncated).

    Raises:
        MissingExtra: this Python cannot read .zst.
        OSError: the file cannot be opened.
    """
    try:
        zstd = importlib.import_module("compression.zstd")
        return zstd.open(path), zstd.ZstdError
    except ImportError:
        pass
    try:
        package = importlib.import_module("zstandard")
    except ImportError as error:
        raise MissingExtra(
            f"{path}: .zst needs Python 3.14 or the package zstandard; run: pip install zstandard"
        ) from error
    return io.BufferedReader(_Frames(path, package.ZstdDecompressor())), package.ZstdError


class _Frames(io.RawIOBase):
    """All frames of a file, one after another. The package's own reader accepts a truncated file as complete."""

    def __init__(self, path: Path, decompressor: Any) -> None:
        self._file = path.open("rb")
        self._decompressor = decompressor
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, target: Buffer) -> int:
        """Fills `target` from at most one block; 0 at the end of the last frame."""
        view = memoryview(target).cast("B")
        while not self._ready:
            data = (self._frame.unused_data if self._frame and self._frame.eof else b"") or self._file.read(_CHUNK)
            if not data:
                if self._frame and not self._frame.eof:
                    raise EOFError("ends inside a frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
