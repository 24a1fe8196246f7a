"""`sparsecode consensus`: a dictionary of what recurs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import ConsensusConfig


@click.command("consensus", cls=Command)
@click.argument("files", nargs=-1, metavar="[PATH...]", type=click.Path(path_type=Path))
@stage_options("consensus")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="NAME",
    help="With PATHs: write the dictionary to NAME.safetensors and NAME.json, its record to NAME-consensus.json.",
)
@json_option
def command(
    files: tuple[Path, ...],
    config: ConsensusConfig,
    run: Path,
    out: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a dictionary of the features that recur in several.

    Features of different dictionaries that are each other's nearest make a cluster; the clusters with enough members
    become a dictionary, each with the mean of its atoms, whose encoder is trained anew. Says how well it reconstructs
    beside its members, and how much of it a dictionary has that had no vote. Writes consensus.json,
    consensus.safetensors and consensus/NAME, which every command takes as it takes trained dictionaries. With PATHs it
    takes these, as compare does, and writes --out alone. docs/consensus.md has the rules.

    \b
    Examples:
      sparsecode consensus
      sparsecode consensus --dictionaries 'n512_*' --support 1 --name pooled
      sparsecode consensus a-run b-run their-saelens-folder --dataset acts --out merged
      sparsecode consensus a-run b-run --refit none --threshold 0.9 --json
    """
    from sparsecode.cli.output import print_json
    from sparsecode.consensus.tables import lines
    from sparsecode.records import as_json as json_of

    if out is not None and not files:
        raise click.BadParameter("goes with PATHs; a run keeps its own in RUN/consensus", param_hint="--out")
    if out is not None and not (out.parent.is_dir() and os.access(out.parent, os.W_OK)):
        raise click.BadParameter(f"'{out.parent}' is not a folder that can be written to", param_hint="--out")
    if files:
        from sparsecode.pipeline.consensus import consensus_of_files, write_files

        made = consensus_of_files(files, config, quiet=quiet)
        if out is not None:
            write_files(made, out)
        record = made.record
    else:
        from sparsecode.pipeline.consensus import load_consensus, make_consensus
        from sparsecode.pipeline.run import Run

        make_consensus(run, config, force=force, quiet=quiet)
        found = load_consensus(Run(run))
        assert found is not None, "the stage has just finished"
        record = found
    if as_json:
        print_json(json_of(record))
    elif not quiet:
        click.echo("\n".join(lines(record)))
