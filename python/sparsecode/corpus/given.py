"""Ids that a tokenizer made elsewhere, as documents of a corpus, without the special tokens around them."""

from __future__ import annotations

from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sparsecode.corpus.tokenizer import byte_lengths
from sparsecode.errors import CorpusUnreadable

_TRIED = 64  # texts of tokens to try until one is not itself a special token


class GivenIds:
    """Accepts documents of ids for the corpus of one tokenizer.

    Args:
        tokenizer: as `tokenizer.prepared` returns it.
        eot: the token that ends a document.
        size: one more than its largest id.
    """

    def __init__(self, tokenizer: Tokenizer, eot: int, size: int) -> None:
        self._tokenizer = tokenizer
        self._eot = eot
        self._size = size

    def document(self, ids: NDArray[np.int64], where: str) -> NDArray[np.int64]:
        """The document's own ids, without the special tokens around it, which are added again where it is used.

        Raises:
            CorpusUnreadable: an id that the tokenizer does not have.
        """
        if len(ids) and int(ids.max()) >= self._size:
            raise CorpusUnreadable(
                f"{where}: holds the id {int(ids.max())}, the tokenizer {self._size} tokens; another tokenizer made it"
            )
        before, after = self._frame
        if len(before) and ids[: len(before)].tolist() == before:
            ids = ids[len(before) :]
        if len(after) and ids[-len(after) :].tolist() == after:
            ids = ids[: -len(after)]
        return ids[:-1] if len(ids) and int(ids[-1]) == self._eot else ids

    def text_bytes(self, ids: NDArray[np.int64]) -> int:
        """UTF-8 bytes of the text that the ids encode."""
        return int(self._lengths[ids].sum())

    @cached_property
    def _lengths(self) -> NDArray[np.int32]:
        return byte_lengths(self._tokenizer, self._eot)

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text."""
        for text in chain("a", islice(self._tokenizer.get_vocab(), _TRIED)):
            around: Any = self._tokenizer.encode(text, add_special_tokens=True)
            own = [place for place, special in enumerate(around.special_tokens_mask) if not special]
            if own:
                return list(around.ids[: own[0]]), list(around.ids[own[-1] + 1 :])
        return [], []
