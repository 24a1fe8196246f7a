"""A click group that imports a command's file only when the command is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from sparsecode.cli.failures import told_in_one_line


class GivenPath(click.Path):
    """A path that is not empty: as a path, nothing is the folder one happens to be in, and would be written to."""

    def __init__(self, like: click.Path) -> None:
        self.__dict__.update(vars(like))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Converts as click does, but refuses an empty path."""
        if value in ("", b""):
            self.fail("an empty path; leave it out, or name a folder: '.' is the one you are in", param, ctx)
        return super().convert(value, param, ctx)


class LazyGroup(click.Group):
    """Commands by name, each the object `command` of the file of that name beside this one."""

    def __init__(self, *args: Any, commands_by_name: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.short_help_by_name = dict(commands_by_name or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order they were given."""
        return list(self.short_help_by_name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's file; None where there is no such command."""
        if cmd_name not in self.short_help_by_name:
            return None
        command = importlib.import_module(f"sparsecode.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        for parameter in command.params:
            if type(parameter.type) is click.Path:
                parameter.type = GivenPath(parameter.type)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolves a command as click does, with a suggestion if the name is unknown."""
        if args[0] not in self.short_help_by_name and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0].replace("_", "-"), self.short_help_by_name, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"commands: {', '.join(self.short_help_by_name)}"
            ctx.fail(f"no such command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the short help known here: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.short_help_by_name.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; foreseen failures become one line and an exit code."""
        with told_in_one_line(ctx):
            return super().invoke(ctx)
