"""`sparsecode report`: the results on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import ReportConfig


@click.command("report", cls=Command)
@stage_options("report")
@json_option
def command(config: ReportConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Write the results as one HTML page.

    Writes report.html, which needs no network, and its numbers as report.json. --json prints these numbers.
    """
    from sparsecode.cli.output import print_json
    from sparsecode.pipeline.report import write_report
    from sparsecode.pipeline.run import Run

    write_report(run, config, force=force, quiet=quiet)
    page = Run(run).report_path
    if as_json:
        print_json(json.loads(page.with_suffix(".json").read_text()))
    elif not quiet:
        click.echo(page)
