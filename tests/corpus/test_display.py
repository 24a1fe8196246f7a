"""Tokens as text for people: several tokens that form one character are shown as that character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sparsecode.corpus.display import token_text, token_texts
from sparsecode.report.page import visible

TEXT = "语言模型 naïve café — 👩‍🚀 и ещё, שלום; नमस्ते 한국어 ok"


def byte_level() -> Tokenizer:
    """One token per byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    """A few words and letters, and bytes for everything else, as in Llama and Gemma."""
    words = ["<unk>", "▁", "o", "k", ",", ";", "a", "n"]
    vocabulary = {word: place for place, word in enumerate(words + [f"<0x{byte:02X}>" for byte in range(256)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def wordpiece() -> Tokenizer:
    vocabulary = {"[UNK]": 0, "语": 1, "言": 2, "un": 3, "##able": 4, "ok": 5}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@pytest.mark.parametrize("tokenizer", [byte_level(), sentencepiece()], ids=["bytes", "sentencepiece"])
def test_texts_joined_are_the_text_and_the_peak_has_its_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    whole = tokenizer.decode(ids)
    assert len(ids) > len(TEXT)
    for peak in range(len(ids)):
        texts = token_texts(tokenizer, ids, peak, 0, len(ids))
        assert len(texts) == len(ids) and "".join(texts) == whole
        assert texts[peak]
    assert not any("\\x" in text or "\ufffd" in text for text in texts)


def test_characters_at_the_edges_are_whole_where_their_bytes_are_known() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("中文字").ids  # three bytes each
    assert token_texts(tokenizer, ids, 4, 2, 7) == ["中", "", "文", "", "字"]
    assert token_texts(tokenizer, ids, 6, 2, 7) == ["中", "文", "", "", "字"]
    # Here nobody knows what is before and behind.
    cut = token_texts(tokenizer, ids[1:8], 3, 0, 7)
    assert cut == ["\\xb8", "\\xad", "", "文", "", "\\xe5", "\\xad"]
    assert token_texts(tokenizer, ids[:2], 0, 0, 2) == ["\\xe4", "\\xb8"]


def test_words_of_pieces_and_spaces_between_words_read_as_text() -> None:
    tokenizer = wordpiece()
    ids = tokenizer.encode("unable 语 言 ok").ids
    assert token_texts(tokenizer, ids, 0, 0, len(ids)) == ["un", "able", " 语", " 言", " ok"]


BYTES = byte_level()


@settings(max_examples=40, deadline=None)
@given(text=st.text(min_size=1, max_size=12), peak=st.integers(0, 40))
def test_any_text_survives(text: str, peak: int) -> None:
    tokenizer = BYTES
    ids = tokenizer.encode(text).ids
    peak %= len(ids)
    texts = token_texts(tokenizer, ids, peak, 0, len(ids))
    assert "".join(texts) == text or "\ufffd" in text
    assert len(texts) == len(ids) and texts[peak]


def test_bytes_of_both_kinds_show_as_bytes_alone() -> None:
    one, other = byte_level(), sentencepiece()
    assert token_text(one, one.encode("中").ids[0]) == "\\xe4"
    for name, shown in (("<0xE4>", "\\xe4"), ("<0x41>", "A")):
        token = other.token_to_id(name)
        assert token is not None and token_text(other, token) == shown


def test_the_page_keeps_joiners_and_names_wide_spaces() -> None:
    assert visible("👩\u200d🚀 ok") == "👩\u200d🚀 ok"
    assert visible("字\u3000字\u00a0") == "字␣字␣"
    assert visible("a\u202eb") == "a�b"  # turns the direction of what follows


def test_no_tokens_are_no_text() -> None:
    assert token_texts(byte_level(), [], 0, 0, 0) == []
