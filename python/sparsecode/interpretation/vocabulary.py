"""What a token says by itself: its text, the word it belongs to, and the classes it is in.

Shape letters: V tokens of the vocabulary, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from sparsecode.corpus.display import token_text

SPACE = "\u2581"  # SentencePiece's mark for the space before a word
_BYTE_SPACE = "\u0120"  # that of byte-level tokenizers
_SUFFIXES = ("ing", "ed", "er", "est", "ly", "s", "tion", "al", "able", "ment", "ity", "ous", "ive", "or")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_OPERATORS = frozenset("=+-*/<>&|!%^~")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a tokenizer as text.

    Attributes:
        texts: [V] each token's text, with the space before it where it has one.
        begins: [V] whether a token begins a word, as far as the tokenizer tells; punctuation does.
    """

    texts: Sequence[str]
    begins: Sequence[bool]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """The vocabulary of a tokenizer that marks spaces (byte-level, SentencePiece) or continuations (WordPiece)."""
        raw = [tokenizer.id_to_token(i) or f"<{i}>" for i in range(tokenizer.get_vocab_size())]
        if type(tokenizer.model).__name__ == "WordPiece":
            prefix = str(tokenizer.model.continuing_subword_prefix)
            begins = [not one.startswith(prefix) for one in raw]
            return cls([one if own else "##" + one.removeprefix(prefix) for one, own in zip(raw, begins, strict=True)],
                       begins)  # fmt: skip
        marked = sum(one.startswith(SPACE) for one in raw) > sum(one.startswith(_BYTE_SPACE) for one in raw)
        texts = [one.replace(SPACE, " ") if marked and SPACE in one else token_text(tokenizer, i)
                 for i, one in enumerate(raw)]  # fmt: skip
        return cls(texts, [not text[:1].isalpha() for text in texts])

    @cached_property
    def cores(self) -> list[str]:
        """[V] texts without the white space around them and without the mark of a continuation."""
        return [text.strip() if begins else text.removeprefix("##").strip()
                for text, begins in zip(self.texts, self.begins, strict=True)]  # fmt: skip

    @cached_property
    def words(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Texts with spaces and capitals folded, each once, and [V] which of them each token has."""
        folded = [core.lower() or text for core, text in zip(self.cores, self.texts, strict=True)]
        number: dict[str, int] = {}
        which = np.array([number.setdefault(word, len(number)) for word in folded], np.int64)
        return list(number), which

    @cached_property
    def classes(self) -> tuple[list[str], npt.NDArray[np.bool_]]:
        """Names of the classes, and [V, C] which tokens are in them."""
        found: dict[str, Any] = {name: [test(text) for text in self.texts] for name, test in _OF_TEXT.items()}
        found |= {name: [test(core) for core in self.cores] for name, test in _OF_CORE.items()}
        begins = np.array(self.begins, bool)
        letters = np.array([core[:1].isalpha() for core in self.cores], bool)
        found |= {"beginning of a word": begins & letters, "continuation of a word": ~begins & letters}
        return list(found), np.array(list(found.values()), bool).T.reshape(len(self.texts), len(found))

    def counts(self, tell: Callable[[str], int]) -> npt.NDArray[np.int64]:
        """[V] a number for each token's text."""
        return np.array([tell(text) for text in self.texts], np.int64)


def _suffix(ending: str) -> Callable[[str], bool]:
    return lambda core: len(core) > len(ending) + 1 and core.isalpha() and core.lower().endswith(ending)


_OF_TEXT: dict[str, Callable[[str], bool]] = {
    "line end": lambda text: "\n" in text,
    "white space": lambda text: bool(text) and not text.strip(),
    "indentation": lambda text: len(text) >= 3 and not text.strip() and "\n" not in text,
}
_OF_CORE: dict[str, Callable[[str], bool]] = {
    "number": str.isdigit,
    "token with a digit": lambda core: any(c.isdigit() for c in core),
    "punctuation mark": lambda core: bool(core) and not any(c.isalnum() or c.isspace() for c in core),
    "opening bracket": lambda core: any(c in "([{" for c in core),
    "closing bracket": lambda core: any(c in ")]}" for c in core),
    "quote mark": lambda core: any(c in _QUOTES for c in core),
    "operator": lambda core: bool(core) and _OPERATORS.issuperset(core),
    "token with an underscore": lambda core: "_" in core,
    "capitalised word": lambda core: len(core) > 1 and core.isalpha() and core[0].isupper() and core[1:].islower(),
    "upper-case word": lambda core: len(core) > 1 and core.isalpha() and core.isupper(),
    "lower-case word": lambda core: core.isalpha() and core.islower(),
    "token that begins with a capital letter": lambda core: core[:1].isupper(),
    "single letter": lambda core: len(core) == 1 and core.isalpha(),
    "word of eight letters or more": lambda core: len(core) >= 8 and core.isalpha(),
    **{f"word in -{ending}": _suffix(ending) for ending in _SUFFIXES},
}
