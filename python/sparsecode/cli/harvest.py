"""`sparsecode harvest`: the activations of a hook point, stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import HarvestConfig


@click.command("harvest", cls=Command)
@stage_options("harvest")
@click.option(
    "--part", metavar="I/N", default=None, help="Make every N-th shard, from the I-th on, counted from 0; run all "
    "parts, in any order or at once (docs/scale.md).  [default: RANK and WORLD_SIZE of torchrun, or all]",
)  # fmt: skip
def command(config: HarvestConfig, run: Path, force: bool, quiet: bool, part: str | None) -> None:
    """Store the activations of a layer, or of several.

    Runs the transformer of the run folder over its training text and writes what it finds at a hook point into
    activations/HOOK/, with the token of every row beside it. With --model it reads another model, over --text in that
    model's own tokens; rows of padding and special tokens are left out. Several layers and sites are read in one pass,
    which ends at the last of them.

    \b
    Examples:
      sparsecode harvest --layer 2
      sparsecode harvest --layer 4 --site resid --rows 12M
      sparsecode harvest --layer 0,2,4 --site mlp,resid
      sparsecode harvest --run pythia --model EleutherAI/pythia-70m --layer 3 --text books/
      sparsecode harvest --run own --model my-model --module encoder.layers.2.act
    """
    from sparsecode.pipeline.harvest import harvest_activations
    from sparsecode.pipeline.replicate import tell

    found = harvest_activations(run, config, force=force, quiet=quiet, part=part)
    for one in found.get("datasets", {}).values() or [found]:
        tell("harvest", one, quiet=quiet or "rows" not in one)
