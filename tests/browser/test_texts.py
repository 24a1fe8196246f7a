"""Tokens as the page shows them: bytes of characters that several tokens share."""

from __future__ import annotations

from sparsecode.browser.texts import side_by_side, token_table
from sparsecode.corpus.tokenizer import train_tokenizer, vocabulary_size


def test_a_token_that_is_no_whole_character_is_bytes() -> None:
    tokenizer = train_tokenizer(iter(["plain words " * 5]), 260)
    table = token_table(tokenizer, vocabulary_size(tokenizer) + 2)
    ids = tokenizer.encode("né 😀.").ids
    assert [table[i] for i in ids if isinstance(table[i], list)] == [[195], [169], [240], [159], [152], [128]]
    assert table[-1] == f"<{len(table) - 1}>"
    assert "".join(side_by_side(table, ids)) == "né 😀."


def test_a_character_stands_at_its_first_token_and_halves_as_bytes() -> None:
    table = ["a", [240, 159], [152, 128], [255]]
    assert side_by_side(table, [0, 1, 2, 0]) == ["a", "😀", "", "a"]
    assert side_by_side(table, [1, 0, 3]) == ["\\xf0\\x9f", "a", "\\xff"]
    assert side_by_side(table, []) == []
