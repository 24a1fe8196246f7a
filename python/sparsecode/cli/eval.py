"""`sparsecode eval`: dictionaries inside their model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, debug_option, json_option, quiet_option, run_option, settings_options
from sparsecode.pipeline.config import EvalConfig

if TYPE_CHECKING:
    from sparsecode.dictionary import Dictionary
    from sparsecode.errors import LeftOut
    from sparsecode.evaluation.result import Evaluation


@click.command("eval", cls=Command)
@click.argument("files", nargs=-1, metavar="[FILE...]", type=click.Path(path_type=Path))
@run_option
@settings_options(EvalConfig)
@quiet_option
@json_option
@debug_option
def command(files: tuple[Path, ...], run: Path, config: EvalConfig, quiet: bool, as_json: bool) -> None:
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
    from sparsecode.errors import LeftOut
    from sparsecode.pipeline.advice import told
    from sparsecode.pipeline.eval import evaluate_run

    left_out = LeftOut()
    given = _load(files, left_out)
    found = evaluate_run(run, given or None, config, quiet=quiet, leave_out=left_out.put)
    reasons = [(name, told(error)) for name, error in left_out.found]
    if as_json:
        listed = [{"name": name, "reason": reason} for name, reason in reasons]
        print_json({"dictionaries": [one.as_json() for one in found], "left_out": listed})
    else:
        _show(found)
    tell_left_out(reasons, len(found) + len(reasons))


def _load(files: tuple[Path, ...], left_out: LeftOut) -> dict[str, Dictionary]:
    """Dictionaries by path; what cannot be used is added to `left_out`, and the first of it raised where all is."""
    from sparsecode.errors import DictionaryInvalid, NotExpressible, NotRecognised
    from sparsecode.interop import find_dictionaries, load_found, not_recognised

    given: dict[str, Dictionary] = {}
    for file in files:
        with left_out.where(str(file), DictionaryInvalid, NotRecognised):
            there = find_dictionaries(file)
            if not there:
                raise not_recognised(file)
            for one in there:
                with left_out.where(str(one.path), DictionaryInvalid, NotExpressible):
                    given[str(one.path)] = load_found(one)
    left_out.check(given)
    return given


def _show(found: Sequence[Evaluation]) -> None:
    from sparsecode.cli.output import columns
    from sparsecode.evaluation import table

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
