"""`sparsecode merge`: several datasets into one."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import debug_option, quiet_option


@click.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="DATASET DATASET...", type=click.Path(path_type=Path))
@click.option("--into", required=True, metavar="FOLDER", type=click.Path(path_type=Path), help="The dataset to write.")
@quiet_option
@debug_option
def command(sources: tuple[Path, ...], into: Path, quiet: bool) -> None:
    """Join datasets of the same provenance into one.

    The rows of each DATASET follow those of the one before it. What they were harvested from (model, text, hook
    point) must agree.
    """
    if len(sources) < 2:
        raise click.UsageError("name two or more datasets")
    from sparsecode.progress import say
    from sparsecode.store import merge_datasets

    merged = merge_datasets(into, sources)
    if not quiet:
        say(f"{into}: {merged.rows} rows from {len(sources)} datasets")
