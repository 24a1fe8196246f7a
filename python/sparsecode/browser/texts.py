"""The tokens of a tokenizer as a browser shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from sparsecode.corpus.display import part_of_character
from sparsecode.interpretation.vocabulary import Vocabulary

_MOST = 4  # tokens of a character: it has no more bytes in UTF-8


def token_table(tokenizer: Tokenizer, size: int) -> Sequence[Any]:
    """A text for each of `size` ids; the bytes, as numbers, of a token that is part of a character."""
    texts: list[Any] = list(Vocabulary.of(tokenizer).texts[:size])
    for token in range(len(texts)):
        if (data := part_of_character(tokenizer, token)) is not None:
            texts[token] = list(data)
    return texts + [f"<{token}>" for token in range(len(texts), size)]


def side_by_side(table: Sequence[Any], ids: Sequence[int]) -> list[str]:
    """The texts of tokens; of several that make one character, it stands at the first and the others are empty."""
    texts: list[str] = []
    while len(texts) < len(ids):
        first = len(texts)
        data, text, count = b"", table[ids[first]], 1
        if not isinstance(text, str):
            text = bytes(text).decode(errors="backslashreplace")
            for behind in range(first, min(first + _MOST, len(ids))):
                if isinstance(table[ids[behind]], str):
                    break
                data += bytes(table[ids[behind]])
                try:
                    text, count = data.decode(), behind + 1 - first
                    break
                except UnicodeDecodeError:
                    continue
        texts += [text] + [""] * (count - 1)
    return texts
