"""The beginning of a stream of documents, kept on disk, because a corpus is read several times and a stream once."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import IO, Any

import numpy as np

from sparsecode.corpus.readers import Piece
from sparsecode.corpus.tables import Bad
from sparsecode.errors import CorpusUnreadable, IoFailed, SparsecodeError, in_a_line


class Begun:
    """Documents up to `size` bytes of text, read at the first use.

    Args:
        documents: turns rows and `Bad` into pieces.
        rows: the stream.
        size: bytes.
    """

    def __init__(self, documents: Callable[[Iterable[Any], Bad], Iterator[Piece]], rows: Any, size: int) -> None:
        self._documents = documents
        self._rows = rows
        self._size = size
        self._bad: list[CorpusUnreadable] = []

    def pieces(self, bad: Bad) -> Iterator[Piece]:
        """The documents, in pieces; unreadable records are reported to `bad` at every reading."""
        file = self._copy
        for error in self._bad:
            bad(error)
        file.seek(0)
        for line in file:
            text, ends, ids = json.loads(line)
            yield Piece(text, ends, None if ids is None else np.array(ids, np.int64))

    @cached_property
    def _copy(self) -> IO[str]:
        file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with this object)
        held, between = 0, True
        try:
            for piece in self._documents(self._rows, self._bad.append):
                if between and held >= self._size:
                    break
                file.write(
                    json.dumps([piece.text, piece.ends, None if piece.ids is None else piece.ids.tolist()]) + "\n"
                )
                held, between = held + piece.size, piece.ends
        except SparsecodeError:
            file.close()
            raise
        except Exception as error:  # the library raises what its many back ends raise
            file.close()
            raise IoFailed(
                f"Hugging Face dataset: the stream broke off ({in_a_line(error)}); run the command again"
            ) from error
        weakref.finalize(self, file.close)
        return file
