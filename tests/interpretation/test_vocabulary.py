"""Token texts of every kind of tokenizer, and the classes they are in."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models

from sparsecode.corpus.tokenizer import train_tokenizer
from sparsecode.interpretation.vocabulary import Vocabulary


def word_piece() -> Vocabulary:
    vocabulary = {"[UNK]": 0, "walk": 1, "##ing": 2, "##s": 3, "#": 4, "##é": 5}
    return Vocabulary.of(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")))


def sentence_piece() -> Vocabulary:
    vocabulary = {"<unk>": 0, "▁walk": 1, "ing": 2, "<0xE2>": 3, "▁": 4, "▁Walk": 5, "##": 6}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return Vocabulary.of(tokenizer)


def in_class(vocabulary: Vocabulary, text: str) -> set[str]:
    names, table = vocabulary.classes
    return {name for name, true in zip(names, table[list(vocabulary.texts).index(text)], strict=True) if true}


def test_word_piece() -> None:
    found = word_piece()
    assert list(found.texts) == ["[UNK]", "walk", "##ing", "##s", "#", "##é"]
    words, which = found.words
    assert [words[i] for i in which] == ["[unk]", "walk", "ing", "s", "#", "é"]
    assert "beginning of a word" in in_class(found, "walk")
    assert "continuation of a word" in in_class(found, "##ing")
    assert "punctuation mark" in in_class(found, "#")


def test_sentence_piece() -> None:
    found = sentence_piece()
    assert list(found.texts) == ["<unk>", " walk", "ing", "\\xe2", " ", " Walk", "##"]
    words, which = found.words
    assert which[1] == which[5] and words[which[1]] == "walk"
    assert words[which[6]] == "##", "no mark of a continuation here"
    assert "beginning of a word" in in_class(found, " walk") and "continuation of a word" in in_class(found, "ing")
    assert in_class(found, " ") == {"white space"}


def test_bytes() -> None:
    tokenizer = train_tokenizer(iter([" walking walks\n" * 50]), 280)
    found = Vocabulary.of(tokenizer)
    assert len(found.texts) == tokenizer.get_vocab_size()
    assert any(text.startswith(" w") for text in found.texts)
    assert "\\xe2" in found.texts, "a part of a character is shown as its byte"


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("Running", {"word in -ing", "capitalised word", "token that begins with a capital letter"}),
        ("HTTP", {"upper-case word", "token that begins with a capital letter"}),
        ("12", {"number", "token with a digit"}),
        ("a1_", {"token with a digit", "token with an underscore"}),
        ("([", {"opening bracket", "punctuation mark"}),
        ("\n   ", {"line end", "white space"}),
        ("    ", {"white space", "indentation"}),
        ("+=", {"operator", "punctuation mark"}),
        ("”", {"quote mark", "punctuation mark"}),
        ("ring", {"lower-case word"}),
    ],
)
def test_classes(text: str, classes: set[str]) -> None:
    found = in_class(Vocabulary([text, "x"], [True, True]), text)
    beside = {"beginning of a word", "word of eight letters or more"}
    assert found - beside == classes
