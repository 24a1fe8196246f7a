"""`sparsecode toy`: known features, and whether dictionaries find them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import ToyConfig


@click.command("toy", cls=Command)
@stage_options("toy")
@json_option
def command(config: ToyConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Train on toy data whose true features are known.

    Trains a sweep over sizes and L1 on the toy models of superposition that the experiment builds on, and measures
    how much of the truth every dictionary holds. Needs no other stage. Writes toy/toy.json, toy/measures.csv and the
    page toy/report.html into the run; `sparsecode report` shows the same beside a run's other results.

    \b
    Examples:
      sparsecode toy
      sparsecode toy --minutes 3 --sizes 0.125x-8x --l1 1e-5:1e-2:13
      sparsecode toy --preset paper --run paper-toy
    """
    from sparsecode.cli.output import columns, print_json
    from sparsecode.pipeline.replicate import tell
    from sparsecode.pipeline.toy import toy

    result = toy(run, config, force=force, quiet=quiet)
    if quiet and not as_json:
        return
    from sparsecode.pipeline.run import Run
    from sparsecode.pipeline.toy import load_toy

    record = load_toy(Run(run)) or {}
    if as_json:
        print_json(record)
        return
    shown = ("dict_size", "l1", "mmcs_truth", "recovered", "dead", "fvu", "l0", "matched_mmcs_larger")
    rows = [[row.get(name) for name in shown] for row in record["dictionaries"]]
    header = ["size", "L1", "MMCS truth", "recovered", "dead", "FVU", "L0", "matched larger"]
    click.echo("\n".join(columns(rows, header)))
    click.echo(f"{record['verdict']['verdict']}: {record['verdict']['number']}")
    tell("toy", result)
    click.echo(result["page"])
