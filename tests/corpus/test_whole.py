"""Long documents are read in windows; their tokens are those of the whole document."""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sparsecode.corpus import TextSettings, prepare, prepare_tokens, readers, whole
from sparsecode.corpus.whole import OVERLAP

WORDS = [
    "the", "quick", "brown", "fox,", "1234567", "jumps", "over", "it's", "lazy", "dogs;", "caf\u00e9", "na\u00efve",
    "\u4e2d\u6587", "river's", "x", "=", "y", "+", "10",
]  # fmt: skip


def text(size: int, seed: int = 0) -> str:
    """Words with line breaks, runs of spaces, long numbers and runs of one letter between them."""
    chance = random.Random(seed)
    between, weights = [" ", "\n", "   ", "\n\n    ", " " + "7" * 40 + " ", " " + "ha" * 30], [60, 8, 8, 8, 1, 1]
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(chance.choice(WORDS) + chance.choices(between, weights)[0])
        length += len(parts[-1])
    return "".join(parts)


TRAINED = text(4000, seed=1)


def bpe(**names: object) -> Tokenizer:
    return Tokenizer(models.BPE(**names))  # type: ignore[arg-type]


def train(tokenizer: Tokenizer, **settings: object) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, max_token_length=8, **settings)  # type: ignore[arg-type]
    tokenizer.train_from_iterator([TRAINED], trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    made = bpe()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    return train(made, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def digits_in_threes() -> Tokenizer:
    made = bpe()
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.normalizer = normalizers.NFC()
    return train(made, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def llama() -> Tokenizer:
    made = bpe(unk_token="<unk>", byte_fallback=True)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return train(made, special_tokens=["<unk>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)])


def metaspace() -> Tokenizer:
    made = bpe(unk_token="<unk>")
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return train(made, special_tokens=["<unk>"])


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    made.train_from_iterator([TRAINED], trainer)
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator([TRAINED], trainer)
    return made


def spaced_words() -> Tokenizer:
    """Added tokens across the points where a text is cut, and one that includes the space before it."""
    made = byte_level()
    made.add_tokens(["the quick", "lazy dogs; caf\u00e9"])
    return made


KINDS = [byte_level, digits_in_threes, llama, metaspace, word_piece, unigram, spaced_words]


def windows(document: str, piece: int, overlap: int, tokenizer: Tokenizer) -> list[int]:
    """The document's tokens through the windows that `prepare` reads it in."""
    with mock.patch.object(readers, "PIECE", piece), mock.patch.object(prepare, "OVERLAP", overlap):
        parts = [prepare._Part(one, False) for one in readers.cut(document)]
        assert len(parts) > 3
        return [token for _, found in prepare._encoded(tokenizer, iter(parts)) for ids in found for token in ids]


@pytest.mark.parametrize("kind", KINDS)
def test_windows_give_the_tokens_of_the_whole(kind: object) -> None:
    tokenizer = kind()  # type: ignore[operator]
    for seed, piece, overlap in ((2, 150, 240), (3, 400, 160), (4, 90, 400)):
        document = text(3000, seed)
        assert windows(document, piece, overlap, tokenizer) == tokenizer.encode(document, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", [byte_level, digits_in_threes, llama])
def test_a_window_grows_where_nothing_in_it_agrees(kind: object) -> None:
    tokenizer = kind()  # type: ignore[operator]
    document = text(900) + " a".join("12345678" * 90 for _ in range(4)) + "a" * 701 + text(900, 5)
    assert windows(document, 100, 120, tokenizer) == tokenizer.encode(document, add_special_tokens=False).ids


def test_what_is_held_is_bounded() -> None:
    tokenizer = llama()
    document = "ab" * 4000
    longest = 0
    plain = whole.Whole._grow

    def grow(self: whole.Whole, text: str) -> None:
        nonlocal longest
        plain(self, text)
        longest = max(longest, len(self._window))

    with (
        mock.patch.object(whole, "_RUN", 10**9),
        mock.patch.object(whole, "_LONGEST", 700),
        mock.patch.object(whole.Whole, "_grow", grow),
    ):
        ids = windows(" a ".join(document[i : i + 50] for i in range(0, 8000, 50)), 100, 120, tokenizer)
    assert 500 < longest <= 700
    assert len(ids) > 100


def test_the_tokens_of_a_run_are_those_of_each_whole_document(tmp_path: Path) -> None:
    """Reads through files, in pieces of the size used in practice."""
    tokenizer = llama()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    documents = [text(3 * readers.PIECE, 6), text(500, 7), text(2 * readers.PIECE + 99, 8)]
    for number, document in enumerate(documents):
        (tmp_path / f"{number}.txt").write_text(document)
    files = tuple(str(tmp_path / f"{number}.txt") for number in range(3))
    tokens = prepare_tokens(tmp_path / "run", TextSettings(text=files, tokenizer=str(tmp_path / "tokenizer.json")))
    found = []
    for side in (tokens.train, tokens.val):
        found += [ids[:-1].tolist() for ids in np.split(side, np.flatnonzero(side == tokens.eot) + 1)[:-1]]
    expected = [tokenizer.encode(document, add_special_tokens=False).ids for document in documents]
    assert sorted(found) == sorted(expected)
    assert OVERLAP < readers.PIECE
