"""The tokens of a tokenizer as a browser shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from sparsecode.corpus.display import part_of_character
from sparsecode.interpretation.vocabulary import Vocabulary


def token_table(tokenizer: Tokenizer, size: int) -> Sequence[Any]:
    """A text for each of `size` ids; the bytes, as numbers, of a token that is part of a character."""
    texts: list[Any] = list(Vocabulary.of(tokenizer).texts[:size])
    for token in range(len(texts)):
        if (data := part_of_character(tokenizer, token)) is not None:
            texts[token] = list(data)
    return texts + [f"<{token}>" for token in range(len(texts), size)]
