"""Explanations as English."""

from __future__ import annotations

import pytest

from sparsecode.interpretation.atoms import Atom
from sparsecode.interpretation.rules import Explanation, Rule
from sparsecode.interpretation.words import NOTHING, quoted, text_of


def said(*rules: tuple[float, list[tuple[str, str]]]) -> str:
    return text_of(Explanation(tuple(Rule(tuple(Atom(*one) for one in atoms), level) for level, atoms in rules), 0.0))


@pytest.mark.parametrize(
    ("atoms", "text"),
    [
        ([("token", " self")], "` self`"),
        ([("token", " self"), ("previous", "(")], "` self` after `(`"),
        ([("previous", "("), ("token", " self")], "` self` after `(`"),
        ([("class", "word in -ing")], "any word in -ing"),
        ([("class", "number"), ("class", "operator")], "any number that is an operator"),
        ([("word", "the"), ("class", "capitalised word")], "the word `the` that is a capitalised word"),
        ([("state", "inside brackets")], "anything inside brackets"),
        ([("last", "import"), ("after", "line end")],
         "anything with `import` among the last 8 tokens and after any line end"),
        ([("before", "\n"), ("word", "def")], r"the word `def` two after `\n`"),
    ],
)  # fmt: skip
def test_a_rule(atoms: list[tuple[str, str]], text: str) -> None:
    assert said((0.5, atoms)) == text


def test_several_rules_say_how_strong() -> None:
    first, second, third = [("token", "a")], [("token", "b")], [("token", "c")]
    assert said((0.8, first), (0.5, second)) == "`a`; else `b`", "nearly as strong"
    assert said((0.8, first), (0.4, second), (0.1, third)) == "`a`, most; else `b`, less; else `c`, a little"
    assert said((0.1, first), (0.8, second)) == "`a`, a little; else `b`, most"
    assert said() == NOTHING


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a`b", "``a`b``"), ("\t\n", r"`\t\n`"), ("\u202e", r"`\u202e`"), ("\0", r"`\x00`"), ("日本", "`日本`")],
)
def test_hostile_tokens_are_spelled(text: str, shown: str) -> None:
    assert quoted(text) == shown
