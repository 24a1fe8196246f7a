"""A stage that was killed at its start, or after its last file: every other command answers in one line at most."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparsecode.cli import main
from sparsecode.pipeline.baselines import fit_baselines
from sparsecode.pipeline.browse import browse_features
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.interpret import interpret_directions
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.toy import toy
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import train_gpt

TEXT = "\n".join(f"Line {i}: the quick brown fox number {i * 7} jumps over a lazy dog; {i % 13}." for i in range(300))
SMALL: dict[str, Any] = {"engine": "reference", "device": "cpu", "quiet": True}
DO: dict[str, Callable[[Run], Any]] = {
    "train-gpt": lambda run: train_gpt(
        run, text=(str(run.path.parent / "text.txt"),), val_fraction=0.2, vocab_size=280, n_layer=3, n_head=2,
        d_model=8, context=16, batch_size=4, steps=2, warmup_steps=1, val_tokens=64, device="cpu", quiet=True,
        force=True,
    ),
    "harvest": lambda run: harvest_activations(run, rows=1024, device="cpu", quiet=True, force=True),
    "train-dicts": lambda run: train_dicts(
        run, sizes="8,16", l1="1e-2", samples=2048, batch_size=256, warmup_steps=1, eval_rows=128, force=True, **SMALL
    ),
    "compare": lambda run: compare_dicts(run, quiet=True, force=True),
    "claims": lambda run: check_claims(run, sweep=False, directions=4, draws=100, quiet=True, force=True),
    "baselines": lambda run: fit_baselines(run, kinds="pca,random", rows=400, quiet=True, force=True),
    "interpret": lambda run: interpret_directions(
        run, directions=5, rate=0.1, rows=1000, control_samples=2048, draws=100, quiet=True, force=True
    ),
    "browse": lambda run: browse_features(run, rows=500, contexts=2, quiet=True, force=True),
    "toy": lambda run: toy(
        run, dim=8, true_features=16, active=2.0, draw_rows=16, sizes="8", l1="1e-3", steps=2, batch_size=16,
        warmup_steps=1, eval_rows=64, force=True, **SMALL,
    ),
    "report": lambda run: write_report(run, images=False, quiet=True, force=True),
}  # fmt: skip
OTHERS = [
    ("info",), ("info", "--json"), ("verify",), ("eval", "--rows", "64"), ("compare",), ("claims",), ("baselines",),
    ("interpret",), ("browse",), ("report",), ("report", "--json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    (run.path.parent / "text.txt").write_text(TEXT)
    for do in DO.values():
        do(run)
    return run


class Killed(BaseException):
    """Acts like SIGKILL: nothing catches it."""


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def kill(run: Run, stage: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does a stage again and stops it right after it was recorded as begun, or before it is recorded as done."""
    plain = Run.write_record

    def write(self: Run, key: str, record: Any) -> None:
        plain(self, key, record)
        if moment == "begun" and self.path == run.path and key.partition("/")[0] == stage:
            raise Killed

    def finish(self: Stage, result: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Run, "write_record", write)
        if moment == "written":
            patched.setattr(Stage, "finish", finish)
        DO[stage](run)


MOMENTS = [(stage, "begun") for stage in DO] + [(stage, "written") for stage in ("train-dicts", "compare", "report")]


@pytest.mark.parametrize(("stage", "moment"), MOMENTS)
def test_every_other_command_answers(
    stage: str, moment: str, made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    run = Run(tmp_path / "copy" / "run")
    kill(run, stage, moment, monkeypatch)
    for command in OTHERS:
        if command[0] == stage or (command[0] == "eval" and stage not in ("train-gpt", "train-dicts")):
            continue
        result = call(*command, "--run", run.path, *([] if command[0] in ("info", "verify") else ["--quiet"]))
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        assert result.exit_code in (0, 3), (command, result.output)
        assert len(result.stderr.splitlines()) <= (result.exit_code == 3), (command, result.stderr)
        if result.exit_code == 3 and command[0] != "verify":
            assert "; run: sparsecode " in result.stderr, (command, result.stderr)
    state = next(
        record for key, record in json.loads(call("info", "--run", run.path, "--json").stdout)["stages"].items()
        if key.partition("/")[0] == stage
    )  # fmt: skip
    assert state["status"] == "running"
    assert [command.split()[1] for command in state["run"]][-1] == stage, "info says how to go on"
    # The same command without a flag goes on with it.
    again = call(stage, "--run", run.path, "--quiet")
    assert again.exit_code == 0, again.output
    assert Run(run.path).config()["stages"].keys() == made.config()["stages"].keys()


def test_a_training_that_wrote_some_of_its_dictionaries_is_not_evaluated(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    run = Run(tmp_path / "copy" / "run")
    kill(run, "train-dicts", "written", monkeypatch)
    assert list(run.dictionaries_path.glob("*.json"))
    told = call("eval", "--run", run.path, "--quiet").stderr
    assert "train-dicts is not finished; run: sparsecode train-dicts" in told


def test_another_transformer_than_the_dictionaries_were_trained_for(made: Run, tmp_path: Path) -> None:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    run = Run(tmp_path / "copy" / "run")
    train_gpt(run, seed=5, force=True, quiet=True)
    assert run.config()["stages"]["train-gpt"]["settings"]["d_model"] == 8, "the rest is as it was"
    told = call("eval", "--run", run.path, "--quiet").stderr
    assert told.startswith(f"sparsecode: {run.path}: train-dicts is out of date, as is harvest/")
    assert [command.split()[1] for command in told.partition("; run: ")[2].split(" && ")] == ["harvest", "train-dicts"]
