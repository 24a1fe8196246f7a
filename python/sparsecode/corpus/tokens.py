"""Tokens on disk: two memory-mapped arrays, the tokenizer that made them, and what they were made from.

HOME/tokenizer.json
HOME/tokens/train.bin, val.bin    raw little-endian uint16 (uint32 above 65,536 tokens); each document ends with `eot`
HOME/tokens/tokens.json          written last: where it is, the others are whole
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sparsecode.corpus.display import token_text, token_texts
from sparsecode.corpus.tokenizer import plain
from sparsecode.errors import RunInvalid, StageMissing

FORMAT = 1
TOKENIZER, FOLDER = "tokenizer.json", "tokens"
SIDES = ("train", "val")


@dataclass(frozen=True, eq=False)
class Tokens:
    """A text as numbers."""

    train: NDArray[Any]
    """[n] uint16 or uint32, memory-mapped; each document ends with `eot`."""
    val: NDArray[Any]
    """[n] the held-out documents, stored likewise."""
    vocab_size: int
    eot: int
    """The token that ends a document."""
    fingerprint: str
    """A digest of both arrays and the tokenizer."""
    corpus: dict[str, Any]
    """A description of the text: description, documents, bytes, skipped, ..."""
    val_bytes: int
    """UTF-8 bytes of the held-out text: nats per `val` token * len(val) / val_bytes / ln 2 is bits per byte."""
    tokenizer: Tokenizer

    def decode(self, ids: Iterable[int] | NDArray[Any]) -> str:
        """The text of some tokens; bytes that form no whole character become U+FFFD."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=False))

    def encode(self, text: str) -> NDArray[np.int64]:
        """The tokens of a text, without `eot`."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def token_text(self, token: int) -> str:
        """One token, for people: part of a character shows as its bytes, `\\xe2\\x80`."""
        return token_text(self.tokenizer, token)

    def texts(self, ids: Sequence[int], peak: int, start: int, stop: int) -> list[str]:
        """The texts of ids[start:stop], decoded together; see `display.token_texts`."""
        return token_texts(self.tokenizer, ids, peak, start, stop)


def load_tokens(home: str | os.PathLike[str]) -> Tokens:
    """The tokens that `prepare_tokens` wrote.

    Args:
        home: the folder that holds tokenizer.json and tokens/.

    Raises:
        StageMissing: the run has none.
        RunInvalid: files are missing, truncated or from different preparations.
    """
    folder, kept = Path(home) / FOLDER, Path(home) / TOKENIZER
    header = read_header(home)
    if header is None:
        raise StageMissing(f"{home}: no tokens")
    try:
        text = kept.read_bytes()
    except OSError as error:
        raise RunInvalid(f"{kept}: {error.strerror}", remedy="tokens") from error
    if digest_of(text) != header["tokenizer"]:
        raise RunInvalid(f"{kept}: not the tokenizer that made the tokens", remedy="tokens")
    tokenizer = plain(Tokenizer.from_str(text.decode()))
    arrays = {side: _mapped(folder / f"{side}.bin", header["dtype"], header[f"{side}_tokens"]) for side in SIDES}
    return Tokens(
        train=arrays["train"],
        val=arrays["val"],
        vocab_size=header["vocab_size"],
        eot=header["eot"],
        fingerprint=header["fingerprint"],
        corpus=header["corpus"],
        val_bytes=header["val_bytes"],
        tokenizer=tokenizer,
    )


def read_header(home: str | os.PathLike[str]) -> dict[str, Any] | None:
    """tokens.json; None where there is none.

    Raises:
        RunInvalid: it is not what `prepare_tokens` writes.
    """
    path = Path(home) / FOLDER / "tokens.json"
    if not path.exists():
        return None
    try:
        header = json.loads(path.read_text())
        if header["format"] != FORMAT:
            raise RunInvalid(f"{path}: tokens format {header['format']} is not {FORMAT}; update sparsecode")
        wanted = {
            "dtype": str, "vocab_size": int, "eot": int, "fingerprint": str, "corpus": dict, "val_bytes": int,
            "tokenizer": str, "train_tokens": int, "val_tokens": int, "settings": dict, "text": str, "state": str,
        }  # fmt: skip
        wrong = [name for name, kind in wanted.items() if not isinstance(header[name], kind)]
        if wrong or header["dtype"] not in ("<u2", "<u4"):
            raise ValueError(f"wrong {', '.join(wrong) or 'dtype'}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunInvalid(f"{path}: cannot be used ({error})", remedy="tokens") from error
    return dict(header)


def digest_of(data: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _mapped(path: Path, dtype: str, count: int) -> NDArray[Any]:
    wanted = count * np.dtype(dtype).itemsize
    try:
        size = path.stat().st_size
        if size != wanted:
            raise RunInvalid(f"{path}: {size} bytes, not {wanted}", remedy="tokens")
        return np.memmap(path, dtype=dtype, mode="r", shape=(count,))
    except OSError as error:
        raise RunInvalid(f"{path}: {error.strerror}", remedy="tokens") from error
