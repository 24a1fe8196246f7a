"""The command line. Each command is a file, imported when it is called: `--help` loads neither torch nor numpy."""

from __future__ import annotations

import click

from sparsecode.cli.lazy import LazyGroup

# Name, and the line `sparsecode --help` shows for it; the file is the name with `_`. In the order of the pipeline.
COMMANDS = {
    "replicate": "Run every stage, from text to report.",
    "train-gpt": "Train a small transformer on text.",
    "harvest": "Store the activations of a layer, or of several.",
    "train-dicts": "Train a sweep of sparse dictionaries.",
    "eval": "Put reconstructions into the model and see what they cost.",
    "compare": "Find the features that several dictionaries share.",
    "consensus": "Make a dictionary of the features that recur in several.",
    "stitch": "Say what a larger dictionary has that a smaller one lacks.",
    "claims": "Test the claims of the seed experiment on a run.",
    "baselines": "Make dictionaries of neurons, PCA, ICA and the like.",
    "interpret": "Explain features in words and score the explanations.",
    "browse": "Show every feature on a page.",
    "toy": "Train on toy data whose true features are known.",
    "report": "Write the results as one HTML page.",
    "convert": "Turn one library's files into those of another.",
    "info": "Show what a run, dataset or dictionary holds.",
    "verify": "Check stored activations against their digests.",
    "merge": "Join datasets of the same provenance into one.",
    "doctor": "Show what this machine has, and which engine will be used.",
}


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from sparsecode import __version__

        click.echo(f"sparsecode {__version__}")
        context.exit()


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 something is wrong with the data or the machine.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Find the features of a transformer that come back.

    Train a small transformer, harvest its activations, train a whole sweep of sparse dictionaries on them, and
    compare every dictionary with every other. Each stage writes into a run folder, ./sparsecode-run unless --run
    says otherwise, and can be killed at any time: the same command again resumes it. What no flag says is as it was in
    the run.

    \b
    Everything at once:        One by one:
      sparsecode replicate       sparsecode train-gpt
                                 sparsecode harvest --layer 2
                                 sparsecode train-dicts --sizes 64-4096
                                 sparsecode compare
                                 sparsecode claims
                                 sparsecode report
    """
