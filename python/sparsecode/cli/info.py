"""`sparsecode info`: what is at a path."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import debug_option, json_option, run_option


@click.command("info")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@run_option
@json_option
@debug_option
def command(path: Path | None, run: Path, as_json: bool) -> None:
    """Show what a run, dataset or dictionary holds.

    PATH is a run folder, a dataset folder, a model folder, or one of a dictionary's two files (their endings may be
    left out), or a dictionary of any library that convert knows, or a folder of several datasets or dictionaries;
    without it, the folder that --run names. What is broken among several is listed, and the exit code is 3.
    """
    from sparsecode.cli.describe import describe, left_out_of, lines
    from sparsecode.cli.output import print_json, tell_left_out

    found = describe(path or run)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(lines(found)))
    tell_left_out(*left_out_of(found), what="parts")
