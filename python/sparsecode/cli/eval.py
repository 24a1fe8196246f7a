"""`sparsecode eval`: dictionaries inside their model."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import Command, debug_option, json_option, number, quiet_option, run_option


def _whole(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    found = None if value is None else number(value, whole=True, optional=False)
    return None if found is None else int(found)


@click.command("eval", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE...]", type=click.Path(path_type=Path))
@run_option
@click.option("--model", metavar="TEXT", help="Folder or name of the model; without it, the run's own GPT.")
@click.option(
    "--model-dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="Type the model computes in.  [default: auto, the one it was saved in, or float32 where that is emulated]",
)
@click.option("--hook", metavar="TEXT", help="Hook point or module, where a dictionary does not say its own.")
@click.option("--rows", metavar="N", callback=_whole, default="16k", help="Positions to evaluate on.  [default: 16k]")
@click.option("--context", metavar="N", callback=_whole, help="Tokens in a context.  [default: as harvested]")
@click.option("--documents/--no-documents", default=None, help="One document per context.  [default: as harvested]")
@click.option(
    "--special-tokens/--no-special-tokens", default=None, help="Special tokens count too.  [default: as harvested]"
)
@click.option("--batch-tokens", metavar="N", callback=_whole, help="Tokens in a forward pass.  [default: as fits]")
@click.option("--text", multiple=True, metavar="PATH...", help="Text to read instead of the run's held-out text.")
@click.option("--seed", metavar="N", callback=_whole, default="0", help="Which tokens a masked model is asked for.")
@click.option("--device", metavar="TEXT", default="auto", help="cpu, cuda, mps, or auto: the fastest here.")
@quiet_option
@json_option
@debug_option
def command(
    files: tuple[Path, ...],
    run: Path,
    model: str | None,
    model_dtype: str,
    hook: str | None,
    rows: int,
    context: int | None,
    documents: bool | None,
    special_tokens: bool | None,
    batch_tokens: int | None,
    text: tuple[str, ...],
    seed: int,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Put reconstructions into the model and see what they cost.

    Evaluates the dictionaries of the run, or FILEs of any library that convert knows, over held-out text: what they
    reconstruct, and how the model predicts with reconstructions, with zeros and with the mean in the stead of its own
    values at their hook point.
    --json gives every figure, also under the names of SAELens, SAEBench, dictionary_learning and sparsify.

    \b
    Examples:
      sparsecode eval
      sparsecode eval my-run/dictionaries/n512_l1-0.023_s0 --rows 64k --json
      sparsecode eval --run minilm --model minilm-folder
    """
    from sparsecode.cli.output import columns, print_json
    from sparsecode.evaluate import evaluate_run, table
    from sparsecode.interop import find_dictionaries, load_found, not_recognised

    found_there = {file: find_dictionaries(file) for file in files}
    for file, dictionaries in found_there.items():
        if not dictionaries:
            raise not_recognised(file)
    given = {str(one.path): load_found(one) for dictionaries in found_there.values() for one in dictionaries}
    found = evaluate_run(
        run,
        given or None,
        model=model,
        model_dtype=model_dtype,
        hook=hook,
        rows=rows,
        context=context,
        documents=documents,
        special_tokens=special_tokens,
        batch_tokens=batch_tokens,
        text=text,
        seed=seed,
        device=device,
        quiet=quiet,
    )
    if as_json:
        print_json({"dictionaries": [one.as_json() for one in found]})
        return
    header, lines = table(found)
    first = found[0]
    click.echo("\n".join(columns(lines, header)))
    if first.predictions:
        click.echo(
            f"{first.model}: CE {first.loss_clean:.4g} clean, {first.loss_zero_ablated:.4g} with zeros, "
            f"{first.loss_mean_ablated:.4g} with the mean; {first.rows} positions, {first.predictions} predictions"
        )
    else:
        click.echo(f"{first.model}: predicts no tokens, so there is no CE; {first.rows} positions")
