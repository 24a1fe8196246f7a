"""`sparsecode compare`: dictionaries against each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import CompareConfig


@click.command("compare", cls=Command)
@click.argument("files", nargs=-1, metavar="[PATH...]", type=click.Path(path_type=Path))
@stage_options("compare")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the matches to FILE (.csv or .safetensors), and what was compared to a .json beside it.",
)
@json_option
def command(
    files: tuple[Path, ...],
    config: CompareConfig,
    run: Path,
    out: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find the features that several dictionaries share.

    Compares every dictionary of the run with every other, writes comparison.json and comparison.safetensors there, and
    adds to each dictionary's files in how many of the others each feature is found again. With PATHs it compares these,
    prints the result and writes nothing but --out: runs and folders for all of theirs, and dictionaries of any library
    that convert knows, in their own format. What cannot be used is left out and listed, and the exit code is 3.

    \b
    Examples:
      sparsecode compare
      sparsecode compare a/dictionaries/n512_l1-0.015_s0 b/dictionaries/n512_l1-0.015_s0
      sparsecode compare run-a run-b --out matches.csv
      sparsecode compare a/dictionaries/n512_l1-0.015_s0 their-saelens-folder their-run/trainer_0
    """
    from sparsecode.cli.output import print_json, tell_left_out
    from sparsecode.interop import find_dictionaries

    if out is not None and out.suffix not in (".csv", ".safetensors"):
        raise click.BadParameter(f"'{out}' ends neither in .csv nor in .safetensors", param_hint="--out")
    if out is not None and not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
        raise click.BadParameter(f"'{out.parent}' is not a folder that can be written to", param_hint="--out")
    if len(files) == 1 and not (files[0] / "config.json").is_file() and len(find_dictionaries(files[0])) < 2:
        if not files[0].exists() and not files[0].absolute().with_name(f"{files[0].name}.json").exists():
            raise click.UsageError(f"there is no {files[0]}")
        raise click.UsageError(f"{files[0]} alone has nothing to be compared with; name two dictionaries or more")
    if out is not None:
        from sparsecode.comparison.tables import check_free

        check_free(out)
    if files:
        from sparsecode.pipeline.compare import compare_files

        found = compare_files(files, config, quiet=quiet)
    else:
        from sparsecode.pipeline.compare import compare_dicts

        found = compare_dicts(run, config, force=force, quiet=quiet)
    if out is not None:
        from sparsecode.comparison import write_matches

        write_matches(found, out)
    if as_json:
        print_json(found.as_json())
    elif not quiet:
        click.echo(found.table())
    left_out = found.as_json().get("left_out", [])
    tell_left_out([(one["path"], one["reason"]) for one in left_out], len(left_out) + len(found.names))
