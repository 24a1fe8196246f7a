"""`sparsecode replicate`: every stage in order."""

from __future__ import annotations

from pathlib import Path

import click

from sparsecode.cli.options import (
    Command,
    debug_option,
    force_option,
    json_option,
    preset_option,
    quiet_option,
    run_option,
    seed_option,
)
from sparsecode.pipeline.preset import load_preset, preset_names


def _costs() -> str:
    width = max(len(name) for name in preset_names())
    return "\n".join(f"  {name:{width}}  {load_preset(name).cost}" for name in preset_names())


@click.command("replicate", cls=Command, epilog=f"\b\nPresets and what they cost:\n{_costs()}")
@run_option
@preset_option
@seed_option
@force_option
@quiet_option
@json_option
@debug_option
def command(run: Path, preset: str | None, seed: int | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Run every stage, from text to report.

    Stages that are done are skipped, but for those whose inputs have changed since. Interrupted or killed, the same
    command goes on where it stopped. The run remembers its preset and its seed.

    \b
    Examples:
      sparsecode replicate
      sparsecode replicate --preset smoke --run /tmp/smoke
      sparsecode replicate --seed 2 --run sparsecode-run-2
    """
    from sparsecode.cli.output import print_json
    from sparsecode.pipeline.replicate import replicate

    result = replicate(run, preset, seed=seed, force=force, quiet=quiet)
    if as_json:
        print_json(result)
