"""`sparsecode browse`: every feature of a run on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import BrowseConfig


@click.command("browse", cls=Command)
@stage_options("browse")
@json_option
def command(config: BrowseConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Show every feature on a page.

    Writes browse/index.html and browse/data: a folder that any browser opens, without network, also from a mail or a
    web server. It shows where each feature of each dictionary and baseline is active, what it does to the predictions,
    and what is near it in every other dictionary; docs/browser.md says how to read it.

    \b
    Examples:
      sparsecode browse
      sparsecode browse --dictionaries 'n512*,pca,downloads/sae' --features live
    """
    from sparsecode.cli.output import print_json
    from sparsecode.pipeline.browse import browse_features
    from sparsecode.pipeline.replicate import tell

    result = browse_features(run, config, force=force, quiet=quiet)
    if as_json:
        print_json(result)
    elif not quiet:
        tell("browse", result)
