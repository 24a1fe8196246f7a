"""`sparsecode claims`: verdicts on the claims of the seed experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import ClaimsConfig


@click.command("claims", cls=Command)
@stage_options("claims")
@json_option
def command(config: ClaimsConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Test the claims of the seed experiment on a run.

    Each gets a verdict and why: reproduced, partly, not reproduced, or not tested. Writes claims.json, and into
    science/ the sweeps over size and L1 under both normalisations of L1 that one of the claims needs.
    """
    from sparsecode.cli.output import print_json
    from sparsecode.pipeline.claims import check_claims
    from sparsecode.pipeline.run import Run

    result = check_claims(run, config, force=force, quiet=quiet)
    if quiet and not as_json:
        return
    found = json.loads(Run(run).claims_path.read_text())
    if as_json:
        print_json(found)
        return
    for number, claim in found["claims"].items():
        click.echo(f"{number}  {claim['verdict']:<14}  {claim['claim']}\n   {claim['number']}. {claim['reason']}")
    for line in result.get("thin", []):
        click.echo(f"thin: {line}")
