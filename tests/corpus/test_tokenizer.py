"""Tokenizers: any text comes back, pieces give the tokens of the whole, and files in every form are read or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sparsecode.corpus import readers
from sparsecode.corpus.readers import cut
from sparsecode.corpus.tokenizer import (
    END_OF_TEXT,
    byte_lengths,
    prepared,
    read_tokenizer,
    train_tokenizer,
    vocabulary_size,
)
from sparsecode.errors import InvalidSetting, TokenizerInvalid

TEXT = "def read(path):\n    return open(path).read()\n\nThe café's 1234 words, it's said, aren't   many.\n" * 3
TOKENIZER = train_tokenizer(iter([TEXT]), 300)


def ids(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.sampled_from(TEXT + END_OF_TEXT + "\r\t\u2028")))
def test_any_text_comes_back(text: str) -> None:
    tokens = ids(text)
    assert TOKENIZER.decode(tokens, skip_special_tokens=False) == text
    assert prepared(TOKENIZER)[1] not in tokens
    assert sum(byte_lengths(TOKENIZER, 0)[tokens]) == len(text.encode())


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aé9 \n\r\t.'s_\u00a0\u2028\u0301中"), max_size=60), st.integers(1, 6))
def test_pieces_give_the_tokens_of_the_whole(text: str, piece: int) -> None:
    with mock.patch.multiple(readers, PIECE=piece, _LONGEST_WORD=1000):
        pieces = list(cut(text))
    assert "".join(part.text for part in pieces) == text
    assert [token for part in pieces for token in ids(part.text)] == ids(text)


def test_long_text_is_cut() -> None:
    assert len(list(cut("word " * 400_000))) > 3
    assert max(len(part.text) for part in cut("x" * 5_000_000)) <= 2 << 20


def test_a_spelled_end_of_text_is_ordinary_text() -> None:
    tokens = ids(f"a{END_OF_TEXT}b")
    assert prepared(TOKENIZER)[1] not in tokens
    assert TOKENIZER.decode(tokens, skip_special_tokens=False) == f"a{END_OF_TEXT}b"


def test_training_is_deterministic_and_bounded() -> None:
    again = train_tokenizer(iter([TEXT]), 300)
    assert again.to_str() == TOKENIZER.to_str()
    assert vocabulary_size(TOKENIZER) == 300
    assert vocabulary_size(train_tokenizer(iter(["short"]), 4096)) == 257
    with pytest.raises(InvalidSetting, match="257"):
        train_tokenizer(iter([TEXT]), 256)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with one tokenizer in all three forms."""
    for folder in ("one", "openai", "hub"):
        (tmp_path / folder).mkdir()
    TOKENIZER.save(str(tmp_path / "one" / "tokenizer.json"))
    TOKENIZER.model.save(str(tmp_path / "hub"))
    (tmp_path / "openai" / "encoder.json").write_bytes((tmp_path / "hub" / "vocab.json").read_bytes())
    (tmp_path / "openai" / "vocab.bpe").write_bytes((tmp_path / "hub" / "merges.txt").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "where", ["one", "one/tokenizer.json", "hub", "hub/merges.txt", "openai", "openai/encoder.json", "openai/vocab.bpe"]
)
def test_every_form_reads_the_same(saved: Path, where: str) -> None:
    tokenizer = read_tokenizer(saved / where)
    assert ids(TEXT, tokenizer) == ids(TEXT)
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_end_of_text_is_added_where_there_is_none(saved: Path) -> None:
    path = saved / "hub" / "vocab.json"
    vocabulary = json.loads(path.read_text())
    del vocabulary[END_OF_TEXT]
    path.write_text(json.dumps({text: token - 1 for text, token in vocabulary.items()}))
    tokenizer = read_tokenizer(saved / "hub")
    assert prepared(tokenizer)[1] == 299 == vocabulary_size(tokenizer) - 1
    assert tokenizer.decode(ids(TEXT, tokenizer)) == TEXT


def test_padding_and_truncation_are_undone(saved: Path) -> None:
    other = Tokenizer.from_str(TOKENIZER.to_str())
    other.enable_truncation(4)
    other.enable_padding(length=64)
    other.save(str(saved / "cut.json"))
    assert ids(TEXT, read_tokenizer(saved / "cut.json")) == ids(TEXT)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"3", b"nonsense\0", b"\xff\xfe", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
     b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', b'{"model": {"type": "Nothing"}}'],
)  # fmt: skip
def test_nonsense_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("tokenizer.json", "mine.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TokenizerInvalid, match=name) as raised:
            read_tokenizer(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_missing_and_half_pairs_are_refused(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "empty").mkdir()
    (saved / "openai" / "vocab.bpe").unlink()
    (saved / "hub" / "merges.txt").write_text("a b c d\n")
    for where in ("empty", "gone", "openai", "openai/encoder.json", "hub"):
        with pytest.raises(TokenizerInvalid):
            read_tokenizer(tmp_path / where)


def test_a_forked_child_encodes_after_its_parent_did() -> None:
    if sys.platform == "win32":
        pytest.skip("no fork")
    script = """
import os
from sparsecode.corpus.tokenizer import train_tokenizer
tokenizer = train_tokenizer(iter(["some text " * 50]), 300)
whole = len(tokenizer.encode_batch_fast(["some text"] * 500))
child = os.fork()
if child == 0:
    os._exit(0 if len(tokenizer.encode_batch_fast(["some text"] * 500)) == whole else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
