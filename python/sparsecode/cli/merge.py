"""`sparsecode merge`: several datasets into one."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import debug_option, quiet_option
from sparsecode.errors import LeftOut, SparsecodeError


@click.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="DATASET DATASET...", type=click.Path(path_type=Path))
@click.option("--into", required=True, metavar="FOLDER", type=click.Path(path_type=Path), help="The dataset to write.")
@quiet_option
@debug_option
def command(sources: tuple[Path, ...], into: Path, quiet: bool) -> None:
    """Join datasets of the same provenance into one.

    The rows of each DATASET follow those of the one before it; a folder of datasets stands for all of them, by name.
    What they were harvested from (model, text, hook point) must agree. Where one cannot be read, all such are listed
    and nothing is written: a dataset without their rows would not say what it lacks.
    """
    sources = tuple(folder for source in sources for folder in _datasets(source))
    if len(sources) < 2:
        raise click.UsageError("name two or more datasets")
    from sparsecode.pipeline.progress import say
    from sparsecode.store import Dataset, merge_datasets

    left_out = LeftOut()
    for source in sources:
        with left_out.where(str(source), SparsecodeError):
            Dataset(source)
    broken = [error for _, error in left_out.found]
    if len(broken) > 1:
        for one in broken:
            click.echo(f"cannot be read: {' '.join(str(one).split())}", err=True)
        raise type(broken[0])(f"{len(broken)} of {len(sources)} datasets cannot be read (above); nothing was written")
    merged = merge_datasets(into, sources)
    if not quiet:
        say(f"{into}: {merged.rows} rows from {len(sources)} datasets")


def _datasets(path: Path) -> list[Path]:
    """The dataset at a path, or all in a folder; opening reports a path that is neither."""
    inside = sorted(manifest.parent for manifest in path.glob("*/manifest.json"))
    return inside if inside and not (path / "manifest.json").is_file() else [path]
