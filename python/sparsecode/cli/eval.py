"""`sparsecode eval`: dictionaries inside their model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, debug_option, json_option, number, quiet_option, run_option

if TYPE_CHECKING:
    from sparsecode.errors import SparsecodeError
    from sparsecode.evaluate.result import Evaluation
    from sparsecode.sweep import Dictionary


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
    reconstruct, and how the model predicts with reconstructions, with zeros and with the mean in place of its own
    values at their hook point. What cannot be evaluated is left out and listed, and the exit code is 3. --json gives
    every figure, also under the names of SAELens, SAEBench, dictionary_learning and sparsify.

    \b
    Examples:
      sparsecode eval
      sparsecode eval my-run/dictionaries/n512_l1-0.015_s0 --rows 64k --json
      sparsecode eval --run minilm --model minilm-folder
    """
    from sparsecode.cli.output import print_json, tell_left_out
    from sparsecode.evaluate import evaluate_run

    left_out: list[tuple[str, SparsecodeError]] = []
    given = _load(files, left_out)
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
        leave_out=lambda name, error: left_out.append((name, error)),
    )
    told = [(name, str(error)) for name, error in left_out]
    if as_json:
        listed = [{"name": name, "reason": reason} for name, reason in told]
        print_json({"dictionaries": [one.as_json() for one in found], "left_out": listed})
    else:
        _show(found)
    tell_left_out(told, len(found) + len(told))


def _load(files: tuple[Path, ...], left_out: list[tuple[str, SparsecodeError]]) -> dict[str, Dictionary]:
    """Dictionaries by path; what cannot be used is added to `left_out`, and the first of it raised where all is."""
    from sparsecode.errors import DictionaryInvalid, NotExpressible, NotRecognised
    from sparsecode.interop import find_dictionaries, load_found, not_recognised

    given: dict[str, Dictionary] = {}
    for file in files:
        name = str(file)
        try:
            there = find_dictionaries(file)
            if not there:
                raise not_recognised(file)
        except (DictionaryInvalid, NotRecognised) as error:
            left_out.append((name, error))
            continue
        for one in there:
            try:
                given[str(one.path)] = load_found(one)
            except (DictionaryInvalid, NotExpressible) as error:
                left_out.append((str(one.path), error))
    if left_out and not given:
        raise left_out[0][1]
    return given


def _show(found: Sequence[Evaluation]) -> None:
    from sparsecode.cli.output import columns
    from sparsecode.evaluate import table

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
