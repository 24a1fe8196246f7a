"""`sparsecode baselines`: dictionaries to compare the trained ones with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import BaselinesConfig


@click.command("baselines", cls=Command)
@stage_options("baselines")
@json_option
def command(config: BaselinesConfig, run: Path, force: bool, quiet: bool, as_json: bool) -> None:
    """Make dictionaries of neurons, PCA, ICA and the like.

    Fits each on the run's activations, measures it on the rows on which the trained dictionaries were measured, and
    says how alike they are. Writes baselines/NAME.safetensors and NAME.json, which every command takes as it takes
    trained dictionaries, baselines/baselines.json and baselines/measures.csv.

    \b
    Examples:
      sparsecode baselines
      sparsecode baselines --kinds pca,ica --ica-iterations 500
      sparsecode compare sparsecode-run/baselines/ica sparsecode-run/dictionaries/n512_l1-0.015_s0
    """
    from sparsecode.cli.output import columns, print_json
    from sparsecode.pipeline.baselines import fit_baselines
    from sparsecode.pipeline.replicate import tell

    result = fit_baselines(run, config, force=force, quiet=quiet)
    if quiet and not as_json:
        return
    from sparsecode.pipeline.baselines import load_baselines
    from sparsecode.pipeline.run import Run

    record = load_baselines(Run(run)) or {}
    if as_json:
        print_json(record)
        return
    rows = [[row[name] for name in ("name", "dict_size", "codes", "fvu", "l0")] for row in record["baselines"]]
    click.echo("\n".join(columns(rows, ["baseline", "features", "codes", "FVU", "L0"])))
    if record["trained"]:
        click.echo("\nMMCS of the trained dictionaries with each baseline, and by chance")
        kinds = [row["name"] for row in record["baselines"]]
        table = [[row["name"], *(row["against"][kind]["mmcs"] for kind in kinds)] for row in record["trained"]]
        table.append(["(random directions)", *(record["chance_mmcs"][kind] for kind in kinds)])
        click.echo("\n".join(columns(table, ["dictionary", *kinds])))
    tell("baselines", result)
