"""The pages for users of other libraries: their commands exist as written. `make interop` runs every block."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from sparsecode.cli import COMMANDS, main
from sparsecode.interop import TARGETS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("coming-from-*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_there_is_a_page_for_each_library_that_is_written() -> None:
    assert {page.stem.removeprefix("coming-from-") for page in PAGES} == set(TARGETS) - {"sparsecode"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path) -> None:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "sparsecode"
        assert name in COMMANDS
        command = main.get_command(click.Context(main), name)
        assert command is not None
        flags = {flag for option in command.params for flag in option.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= flags, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_python_parse_and_say_whose_they_are(page: Path) -> None:
    library = {"saelens": "sae_lens", "dictionary_learning": "dictionary_learning", "sparsify": "sparsify"}
    theirs = library[page.stem.removeprefix("coming-from-")]
    for block in blocks(page, "python"):
        imported = {
            node.module.partition(".")[0]
            for node in ast.walk(ast.parse(block))
            if isinstance(node, ast.ImportFrom) and node.module
        }
        assert (theirs in imported) == block.startswith("# with "), block
        assert not {theirs, "sparsecode"} <= imported


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, DOCS / "interop.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (DOCS / target).is_file(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w-]+\.md", (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:")[2])
    assert {page.name for page in DOCS.glob("*.md")} == set(listed) - {"index.md", "contributing.md", "changelog.md"}
