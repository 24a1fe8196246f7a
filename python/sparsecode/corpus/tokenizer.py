"""A byte-level BPE: trained on the corpus, or read from a file in one of the usual forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from sparsecode.errors import InvalidSetting, TokenizerInvalid, in_a_line

END_OF_TEXT = "<|endoftext|>"
# Separates documents where no token of the tokenizer can; never given to a model.
BORDER = "<|sparsecode: end of document|>"
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "[SEP]")  # its names in other tokenizers
_BYTES = 256
_PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # OpenAI's names, transformers' names
_TRIED = 1024  # tokens, until one can be encoded


def train_tokenizer(text: Iterator[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE with GPT-2's word pattern; token 0 ends a document, 1 to 256 are the bytes.

    The same text gives the same tokenizer. A text too short for `vocab_size` gives a smaller one.

    Raises:
        InvalidSetting: `vocab_size` leaves no room for the bytes.
    """
    if vocab_size < _BYTES + 1:
        raise InvalidSetting(f"vocab-size {vocab_size}: a byte-level vocabulary has at least {_BYTES + 1} tokens")
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(text, trainer)
    return prepared(tokenizer)[0]


def read_tokenizer(path: str | Path) -> Tokenizer:
    """A tokenizer from a tokenizer.json, a folder with one, or GPT-2's pair of vocabulary and merges.

    Raises:
        TokenizerInvalid: there is none, or it cannot encode.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        there = [(path / vocabulary, path / merges) for vocabulary, merges in _PAIRS]
        pair = next(((one, two) for one, two in there if one.is_file() and two.is_file()), None)
        path = path / "tokenizer.json" if pair is None or (path / "tokenizer.json").is_file() else pair[0]
        if not path.is_file():
            raise TokenizerInvalid(f"{path.parent}: no tokenizer in this folder", remedy="tokenizer")
    if not path.is_file():
        raise TokenizerInvalid(f"{path}: no such file", remedy="tokenizer")
    pair = next(((path.with_name(one), path.with_name(two)) for one, two in _PAIRS if path.name in (one, two)), None)
    try:
        tokenizer = _from_json(path) if pair is None else _from_pair(*pair)
        return prepared(checked(tokenizer, str(path)))[0]
    except TokenizerInvalid:
        raise
    except Exception as error:  # the native library raises bare Exception
        raise TokenizerInvalid(f"{path}: not a tokenizer ({in_a_line(error)})", remedy="tokenizer") from error


def prepared(tokenizer: Tokenizer, end: str | None = None) -> tuple[Tokenizer, int]:
    """The tokenizer as the corpus needs it, and the id of the token that ends a document, added if there is none.

    A text that spells a special token is encoded as ordinary text. Nothing is truncated, padded or put around it.

    Args:
        tokenizer: changed in place.
        end: the token that ends a document, if known.
    """
    plain(tokenizer)
    name = end or end_of_document(tokenizer) or END_OF_TEXT
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    token = tokenizer.token_to_id(name)
    assert token is not None  # it was just added
    return tokenizer, int(token)


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without special tokens around a text; special tokens within it are read as ordinary text."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_document(tokenizer: Tokenizer) -> str | None:
    """The usual name of a token that ends a document, if the tokenizer has one of them."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return next((end for end in _ENDS if end in vocabulary), None)


def reading(tokenizer: str, names: Iterable[str]) -> str:
    """A tokenizer.json that recognises tokens of these names where a text spells them, and no other special ones."""
    names = set(names)
    if not names:
        return tokenizer
    about = json.loads(tokenizer)
    for token in about.get("added_tokens") or []:
        if token.get("special") and token["content"] in names:
            token["special"] = False
    return json.dumps(about, ensure_ascii=False)


def checked(tokenizer: Tokenizer, where: str, remedy: str = "tokenizer") -> Tokenizer:
    """A tokenizer that has tokens, and makes some of a text.

    Args:
        tokenizer: to check.
        where: what to name in an error: a file, or a model.
        remedy: what would help, see `SparsecodeError`.

    Raises:
        TokenizerInvalid: it encodes nothing, or has ids that are too large.
    """
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    if not any(_encodes(tokenizer, token) for token in ids[:_TRIED]):
        raise TokenizerInvalid(f"{where}: encodes nothing ({len(ids)} tokens)", remedy=remedy)
    if ids[-1] >= 2**31:
        raise TokenizerInvalid(f"{where}: ids go up to {ids[-1]}, more than the tokens' int32 can hold")
    return tokenizer


def _encodes(tokenizer: Tokenizer, token: int) -> bool:
    """Whether the text of one of its tokens, which is in the tokenizer's alphabet, can be encoded."""
    try:
        text = tokenizer.decode([token]) or str(tokenizer.id_to_token(token))
        return bool(tokenizer.encode(text, add_special_tokens=False).ids)
    except Exception:  # the native library raises bare Exception: a part of the text is unknown, say
        return False


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: some tokenizers have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def byte_lengths(tokenizer: Tokenizer, end: int) -> NDArray[np.int32]:
    """[vocabulary] UTF-8 bytes of the text that each token encodes; 0 for the end of a document."""
    lengths = np.zeros(vocabulary_size(tokenizer), np.int32)
    byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
    for text, token in tokenizer.get_vocab(with_added_tokens=True).items():
        # One character stands for one byte in a byte-level vocabulary.
        lengths[token] = len(text) if byte_level else len(tokenizer.decode([token]).encode())
    lengths[end] = 0
    return lengths


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _from_json(path: Path) -> Tokenizer:
    text = path.read_text(encoding="utf-8")
    if not isinstance(json.loads(text), dict):
        raise ValueError("not a JSON object")
    return Tokenizer.from_str(text)


def _from_pair(vocabulary: Path, merges: Path) -> Tokenizer:
    for path in (vocabulary, merges):
        if not path.is_file():
            raise TokenizerInvalid(f"{path}: no such file; {vocabulary.name} and {merges.name} belong together")
    return _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
