"""`sparsecode compare`: dictionaries against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.config import CompareConfig


@click.command("compare", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE FILE...]", type=click.Path(path_type=Path))
@stage_options("compare")
@json_option
def command(files: tuple[Path, ...], config: CompareConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Find the features that several dictionaries share.

    Compares every dictionary of the run with every other and writes comparison.json and comparison.safetensors there.
    With FILEs (two or more dictionaries, from anywhere: also of SAELens, dictionary_learning, sparsify,
    openai/sparse_autoencoder and Llamascopium, as they lie on disk) it compares these, prints the result and writes
    nothing.

    \b
    Examples:
      sparsecode compare
      sparsecode compare a/dictionaries/n512_l1-0.023_s0 b/dictionaries/n512_l1-0.023_s0
      sparsecode compare a/dictionaries/n512_l1-0.023_s0 their-saelens-folder their-run/trainer_0
    """
    from sparsecode.cli.output import print_json

    if len(files) == 1:
        raise click.UsageError(f"one dictionary, {files[0]}, has nothing to be compared with; name two or more")
    if files:
        from sparsecode.compare import compare_files

        found = compare_files(files, config, quiet=quiet)
    else:
        from sparsecode.compare import compare_dicts

        found = compare_dicts(run, config, force=force, quiet=quiet)
    if as_json:
        print_json(found.as_json())
    elif not quiet:
        click.echo(found.table())
