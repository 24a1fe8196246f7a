"""`sparsecode interpret`: explanations of features in words, scored beside those of other directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsecode.cli.options import Command, json_option, stage_options

if TYPE_CHECKING:
    from sparsecode.pipeline.config import InterpretConfig


@click.command("interpret", cls=Command)
@stage_options("interpret")
@click.option("--dry-run", is_flag=True, help="Only say what asking --endpoint would take: nothing is sent or written.")
@json_option
def command(config: InterpretConfig, run: Path, force: bool, quiet: bool, dry_run: bool, as_json: bool) -> None:
    """Explain features in words and score the explanations.

    Explains features, neurons, PCA, random directions and features of an untrained model from the text alone, on one
    half of the contexts, and scores how well the explanations predict activations on the other half. No network and no
    key is needed. With --endpoint a language model explains and scores as well, and excerpts of the text are sent to
    it. Writes interpret/interpretations.json and interpret/directions.csv; docs/interpretation.md says how to read
    them.

    \b
    Examples:
      sparsecode interpret
      sparsecode interpret --directions 200 --rate 0.005
      sparsecode interpret --dictionaries n512_l1-0.015_s0,downloads/sae --json
      sparsecode interpret --endpoint http://localhost:8000/v1 --llm qwen3-8b --force
      sparsecode interpret --endpoint https://api.openai.com/v1 --llm gpt-4o-mini --budget 2 --dry-run
    """
    from sparsecode.cli.output import columns, print_json
    from sparsecode.pipeline.asking import told
    from sparsecode.pipeline.interpret import interpret_directions
    from sparsecode.pipeline.replicate import tell
    from sparsecode.pipeline.run import Run

    result = interpret_directions(run, config, force=force, quiet=quiet, dry_run=dry_run)
    if dry_run:
        print_json(result) if as_json else click.echo(told(result))
        return
    if quiet and not as_json:
        return
    from sparsecode.pipeline.interpret import load_interpretations

    record = load_interpretations(Run(run)) or {}
    if as_json:
        print_json(record)
        return
    measures = ("correlation", "unseen_correlation", "token_table", "beyond_token", "auroc", "precision", "recall")
    header = [
        "group",
        "explained",
        "nothing",
        "density",
        "score",
        "unseen",
        "tokens",
        "beyond",
        "AUROC",
        "prec.",
        "recall",
    ]
    rows = [
        [group["said"], group["explained"], group["nothing_found"], group["density"]]
        + [round(group["scores"][name]["value"], 3) if group["scores"] else None for name in measures]
        for group in record["groups"]
    ]
    if any("embedding" in group for group in record["groups"]):
        header.append("embedding")
        for row, group in zip(rows, record["groups"], strict=True):
            row.append(round(group["embedding"]["value"], 3) if "embedding" in group else None)
    click.echo("\n".join(columns(rows, header)))
    if "endpoint" in record:
        judged = [(group["said"], group["llm"]) for group in record["groups"] if "llm" in group]
        names = list(dict.fromkeys(name for _, llm in judged for name in llm["scores"]))
        rows = [[said, llm["complete"], llm["asked"], llm["nothing_found"]]
                + [round(llm["scores"][name]["value"], 3) if name in llm["scores"] else None for name in names]
                for said, llm in judged]  # fmt: skip
        click.echo("\n".join(["", *columns(rows, ["group", "complete", "of", "nothing", *names])]))
    click.echo(f"{record['verdict']['verdict']}: {record['verdict']['number']}. {record['verdict']['reason']}")
    tell("interpret", result)
