"""docs/cli.md has the commands' own help."""

from __future__ import annotations

from pathlib import Path

from sparsecode.cli import COMMANDS
from sparsecode.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs/cli.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run: python -m sparsecode.cli.reference > docs/cli.md"


def test_every_command_is_documented() -> None:
    page = PAGE.read_text()
    for name in COMMANDS:
        assert f"\n## sparsecode {name}\n" in page
        assert f"Usage: sparsecode {name} [OPTIONS]" in page


def test_nothing_of_this_machine_is_in_the_page() -> None:
    assert str(Path.home()) not in reference()
    assert str(PAGE.parents[1]) not in reference()
