"""`sparsecode train-dicts`: a sweep of dictionaries on stored activations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import RankedCommand, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import TrainDictsConfig


@click.command("train-dicts", cls=RankedCommand)
@stage_options("train-dicts")
def command(config: TrainDictsConfig, run: Path, force: bool, quiet: bool) -> None:
    """Train a sweep of sparse dictionaries.

    All sizes, kinds, L1 coefficients and seeds train together, on the same batches. Writes
    dictionaries/NAME.safetensors and NAME.json for each.

    \b
    Examples:
      sparsecode train-dicts --sizes 64-4096
      sparsecode train-dicts --sizes 2x-32x --l1 1e-3:1e-1:8 --seeds 3
      sparsecode train-dicts --kind relu --kind "batchtopk k=8,16"
      sparsecode train-dicts --kind topk --k 16,32
      sparsecode train-dicts --hook blocks.2.hook_resid_mid --target blocks.2.hook_mlp_out --skip
    """
    from sparsecode.pipeline import ranks
    from sparsecode.pipeline.replicate import tell
    from sparsecode.pipeline.train_dicts import train_dicts

    result = train_dicts(run, config, force=force, quiet=quiet)
    tell("train-dicts", result, quiet=quiet or ranks.silent())
