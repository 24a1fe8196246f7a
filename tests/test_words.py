"""Plain English: phrases that nobody would say stay out of the documentation, of docstrings and of comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")])
SOURCES = sorted(
    file
    for folder in ("python", "kernels", "tests", "benches", "examples", "docs")
    for file in (ROOT / folder).rglob("*.py")
    if ROOT / "python/sparsecode/kernels" not in file.parents and file != Path(__file__)
)
PHRASES = {
    r"stands? twice": "appears twice",
    r"in the stead of|(its|their|whose|['’]s?) stead\b": "in place of",
    r"be (they|it) [a-z]+[.,;)]": "even when",
    r"of other makers": "third-party",
    r"\bas ever\b": "as usual",
    r"\bthe ones? who\b": "name the person or the thing",
    r"\bnobody counted\b": "if that was not counted",
    r"\bsees? to it that\b": "checks that, makes sure that",
    r"\bthe other way round\b": "transposed, reversed",
    r"\bgoes? on on\b": "continues on",
    r"\bas (it|they) lies?\b": "unchanged",
}
# A docstring says what the thing is or does, without its neighbours.
BEGINNINGS = re.compile(r"(As [a-z`]|The same\b|Of [a-z`])")


def prose(file: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether it is a docstring) of the docstrings and comments of a source file."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value, True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def found(text: str, where: str) -> Iterator[str]:
    flat = " ".join(text.split())
    for phrase, better in PHRASES.items():
        for match in re.finditer(phrase, flat, re.IGNORECASE):
            yield f"{where}: '{match[0]}': say {better}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_plain(page: Path) -> None:
    assert list(found(page.read_text(), page.name)) == []


def test_docstrings_and_comments_are_plain() -> None:
    assert len(SOURCES) > 300
    wrong: list[str] = []
    for file in SOURCES:
        where = file.relative_to(ROOT)
        for line, text, docstring in prose(file):
            wrong += found(text, f"{where}:{line}")
            checked = docstring and where.parts[0] in ("python", "kernels")
            if checked and BEGINNINGS.match(text):
                wrong.append(f"{where}:{line}: begins with '{text[:20]}'")
    assert wrong == []
