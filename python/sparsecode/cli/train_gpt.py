"""`sparsecode train-gpt`: the text, its tokens and the transformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import TrainGptConfig


@click.command("train-gpt", cls=Command)
@stage_options("train-gpt")
def command(config: TrainGptConfig, run: Path, force: bool, quiet: bool) -> None:
    """Train a small transformer on text.

    Without --text the text is the Python sources installed on this machine. Writes tokenizer.json, tokens/ and gpt/
    into the run folder.

    \b
    Examples:
      sparsecode train-gpt --minutes 3
      sparsecode train-gpt --text notes/ "books/*.txt.gz" --vocab-size 8192
    """
    from sparsecode.pipeline.replicate import tell
    from sparsecode.pipeline.train_gpt import train_gpt

    tell("train-gpt", train_gpt(run, config, force=force, quiet=quiet), quiet=quiet)
