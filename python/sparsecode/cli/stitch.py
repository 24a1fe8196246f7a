"""`sparsecode stitch`: what a larger dictionary adds to a smaller one."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import debug_option, json_option


@click.command("stitch")
@click.argument("small", type=click.Path(path_type=Path))
@click.argument("large", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="DIR", help="Folder of the activations.  [default: those of SMALL's run]")
@click.option("--rows", type=click.IntRange(2), default=16_384, show_default=True, metavar="N",
              help="Held-out rows to measure on.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(-1, 1), default=0.7, show_default=True, metavar="X",
              help="Cosine above which features are swapped as a group.")  # fmt: skip
@click.option(
    "--at", type=click.IntRange(0), metavar="N", help="Write the dictionary after N steps of the path to --out."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="NAME", help="Its files: NAME.safetensors, NAME.json.")
@json_option
@debug_option
def command(
    small: Path,
    large: Path,
    dataset: str | None,
    rows: int,
    threshold: float,
    at: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what a larger dictionary has that a smaller one lacks.

    A feature of LARGE is novel if inserting it alone lowers the squared error of SMALL. The path swaps groups of
    features that are alike and then inserts the others, the most novel first; FVU is to be compared at equal L0.

    \b
    Examples:
      sparsecode stitch my-run/dictionaries/n256_l1-0.015_s0 my-run/dictionaries/n1024_l1-0.015_s1
      sparsecode stitch small large --dataset activations --at 300 --out between --json
    """
    from sparsecode.cli.output import columns, print_json
    from sparsecode.pipeline.stitch import stitch_files

    if (at is None) != (out is None):
        raise click.UsageError("--at and --out go together")
    result = stitch_files(small, large, dataset=dataset, rows=rows, threshold=threshold)
    if at is not None and out is not None:
        result.save(at, out)
    record = result.record
    if as_json:
        print_json(record)
        return
    auc = record["auc"]
    told = (
        ""
        if auc is None
        else f"; a low cosine tells them with an AUROC of {auc:.3f}, best at {record['best_cosine']:.3f}"
    )
    click.echo(f"{record['novel']} of {record['features']} features of {large} are novel to {small}{told}")
    path = [[point[name] for name in ("swapped", "inserted", "features", "fvu", "l0")] for point in record["path"]]
    click.echo("\n".join(columns(path, ["swapped", "inserted", "features", "FVU", "L0"])))
