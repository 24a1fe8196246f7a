"""docs/cli.md, generated from the commands' own help: `python -m sparsecode.cli.reference > docs/cli.md`."""

from __future__ import annotations

import click

from sparsecode.cli import COMMANDS, main

_HEAD = """# The command line

Generated from the commands' help by `python -m sparsecode.cli.reference > docs/cli.md`; a test holds it up to date.
"""
_WIDTH = 110


def reference() -> str:
    """The whole page."""
    settings = dict(main.context_settings) | {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    group = click.Context(main, info_name="sparsecode", **settings)
    parts = [_HEAD + "\n", _fenced(main.get_help(group))]
    for name in COMMANDS:
        command = main.get_command(group, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=group, **settings)
        parts.append(f"\n## sparsecode {name}\n\n{_fenced(command.get_help(context))}")
    return "".join(parts)


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
