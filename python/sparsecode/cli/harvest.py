"""`sparsecode harvest`: the activations of a hook point, stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, stage_options

if TYPE_CHECKING:
    from sparsecode.config import HarvestConfig


@click.command("harvest", cls=Command)
@stage_options("harvest")
def command(config: HarvestConfig, run: Path, force: bool, quiet: bool) -> None:
    """Store the activations of a layer.

    Runs the transformer of the run folder over its training text and writes what it finds at one hook point into
    activations/HOOK/, with the token of every row beside it.

    \b
    Examples:
      sparsecode harvest --layer 2
      sparsecode harvest --layer 4 --site resid --rows 12M
    """
    from sparsecode.harvest import harvest_activations
    from sparsecode.pipeline import tell

    tell("harvest", harvest_activations(run, config, force=force, quiet=quiet), quiet=quiet)
