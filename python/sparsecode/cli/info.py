"""`sparsecode info`: what is at a path."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import debug_option, json_option, run_option


@click.command("info")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@run_option
@click.option("--sizes", metavar="TEXT", help="Say what a sweep of these sizes, as in train-dicts, would need.")
@click.option("--l1", metavar="TEXT", help="... with these L1 coefficients.")
@click.option("--kind", multiple=True, metavar="KIND", help="... with dictionaries of this kind; may be repeated.")
@click.option("--seeds", metavar="N", type=click.IntRange(1), help="... with as many seeds.")
@click.option("--batch-size", metavar="N", type=click.IntRange(1), help="... with batches of as many rows.")
@json_option
@debug_option
def command(
    path: Path | None,
    run: Path,
    sizes: str | None,
    l1: str | None,
    kind: tuple[str, ...],
    seeds: int | None,
    batch_size: int | None,
    as_json: bool,
) -> None:
    """Show what a run, dataset or dictionary holds.

    PATH is a run folder, a dataset folder, a model folder, or one of a dictionary's two files (their endings may be
    left out), or a dictionary of any library that convert knows, or a folder of several datasets or dictionaries;
    without it, the folder that --run names. What is broken among several is listed, and the exit code is 3. Of a
    dataset, or a run that has one, --sizes, --l1, --kind, --seeds and --batch-size tell how much memory and disk the
    training of a sweep would take.

    \b
    Examples:
      sparsecode info
      sparsecode info my-run/activations/blocks.2.mlp.hook_post --sizes 2x-32x --l1 1e-3:1e-1:8 --seeds 3
    """
    from sparsecode.cli.describe import describe, left_out_of, sweep_need
    from sparsecode.cli.lines import lines
    from sparsecode.cli.output import print_json, tell_left_out

    found = describe(path or run)
    asked = {"sizes": sizes, "l1": l1, "kind": kind or None, "seeds": seeds, "batch_size": batch_size}
    given = {name: value for name, value in asked.items() if value is not None}
    if given:
        found["sweep"] = sweep_need(found, given)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(lines(found)))
    tell_left_out(*left_out_of(found), what="parts")
