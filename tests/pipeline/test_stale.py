"""A stage notices that its inputs have changed, and says what to run; `replicate` runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from sparsecode.cli import main
from sparsecode.errors import StageStale
from sparsecode.pipeline import replicate
from sparsecode.pipeline.baselines import fit_baselines
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.config import STAGES, HarvestConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.store import DatasetWriter

HOOK = "blocks.2.mlp.hook_post"
SWEEP: dict[str, Any] = {
    "l1": "1e-2", "batch_size": 64, "samples": 640, "warmup_steps": 2, "eval_rows": 200, "engine": "reference",
    "device": "cpu", "threads": 1,
}  # fmt: skip


def harvest(run: Run, seed: int, gpt: str = "g") -> None:
    """A harvest's files with random rows."""
    folder = run.activations_path / HOOK
    config = HarvestConfig(seed=seed)
    inputs = {"gpt": gpt, "tokens": "t"}
    with open_stage(run, f"harvest/{HOOK}", config, inputs=inputs, outputs=[folder], force=True) as stage:
        x = torch.randn(1200, 8, generator=torch.Generator().manual_seed(seed)).relu()
        with DatasetWriter(folder, activation_dim=8, dtype="float32", provenance={"hook_point": HOOK}) as writer:
            writer.append(x, torch.zeros(len(x), dtype=torch.int32))
            dataset = writer.finish()
        stage.finish({"hook_point": HOOK, "rows": dataset.rows, "fingerprint": dataset.fingerprint})


def train_gpt(run: Run, fingerprint: str) -> None:
    with open_stage(run, "train-gpt", STAGES["train-gpt"](), force=True) as stage:
        stage.finish({"fingerprint": fingerprint, "tokens_fingerprint": "t"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("stale") / "run")
    train_gpt(run, "g")
    harvest(run, 0)
    train_dicts(run, sizes="12,16", seeds=2, quiet=True, **SWEEP)
    compare_dicts(run, quiet=True)
    check_claims(run, sweep=False, quiet=True)
    fit_baselines(run, kinds="pca,random", rows=500, eval_rows=200, quiet=True)
    write_report(run, images=False, quiet=True)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.path, tmp_path / "run")
    return Run(tmp_path / "run")


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def refused(*args: str | Path) -> str:
    """The one line of a command that refuses."""
    result = call(*args)
    assert result.exit_code == 3, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.strip()


def commands(told: str) -> list[list[str]]:
    return [command.split()[1:] for command in told.partition("; run: ")[2].split(" && ")]


def follow(told: str) -> None:
    """Runs the commands in a message."""
    for command in commands(told):
        result = call(*command, "--quiet")
        assert result.exit_code == 0, result.output


def test_nothing_is_stale_where_nothing_changed(run: Run) -> None:
    assert stale(run) == {}
    for command in ("train-dicts", "compare", "claims", "baselines", "report"):
        assert call(command, "--run", run.path, "--quiet").exit_code == 0, "without flags it is what the run has"
    assert json.loads(call("report", "--json", "--quiet", "--run", run.path).stdout)["format"] == 1


def test_stability_scores_that_compare_stores_make_nothing_stale(run: Run) -> None:
    compare_dicts(run, threshold=0.5, force=True, quiet=True)
    assert "baselines" not in stale(run)
    assert call("baselines", "--run", run.path, "--quiet").exit_code == 0


def test_dictionaries_that_are_gone_are_not_reported(run: Run) -> None:
    train_dicts(run, sizes="20", seeds=1, force=True, quiet=True)
    assert list(stale(run)) == ["compare", "claims", "baselines", "report"]
    told = refused("report", "--run", run.path, "--force")
    assert "compare is out of date, train-dicts changed since" in told
    assert [command[0] for command in commands(told)] == ["compare", "claims", "baselines", "report"]
    assert "claims is" not in refused("compare", "--run", run.path)
    assert [command[0] for command in commands(refused("claims", "--run", run.path))] == ["compare", "claims"]
    assert "run: sparsecode baselines --force" in refused("baselines", "--run", run.path)
    follow(told)
    assert stale(run) == {}
    page = json.loads(run.report_path.with_suffix(".json").read_text())
    assert "n16_l1" not in json.dumps(page)
    assert "n20_l1" in json.dumps(page)


def test_another_dataset(run: Run) -> None:
    harvest(run, 1)
    assert list(stale(run)) == ["train-dicts", "compare", "claims", "baselines", "report"]
    told = refused("report", "--run", run.path)
    assert [command[0] for command in commands(told)] == ["train-dicts", "compare", "claims", "baselines", "report"]
    assert "run: sparsecode train-dicts --force" in refused("train-dicts", "--run", run.path)
    follow(told)
    assert stale(run) == {}


def test_another_transformer(run: Run) -> None:
    train_gpt(run, "h")
    assert next(iter(stale(run))) == f"harvest/{HOOK}"
    told = refused("train-dicts", "--run", run.path)
    assert f"harvest/{HOOK} is out of date, train-gpt changed since" in told
    assert commands(told)[0][:4] == ["harvest", "--hook", HOOK, "--force"]
    for command in ("compare", "claims", "baselines", "report"):
        assert commands(refused(command, "--run", run.path))[0][0] == "harvest"
    # Its dictionaries do not belong into the other transformer either.
    assert "train-dicts is out of date, as is harvest/" in refused("eval", "--run", run.path)


@pytest.mark.parametrize("stage", ["claims", "baselines"])
def test_a_report_that_was_done_before_a_stage_was_done_again(run: Run, stage: str) -> None:
    flags = ["--contexts", "5"] if stage == "claims" else ["--seed", "4"]
    assert call(stage, "--run", run.path, "--quiet", "--force", *flags).exit_code == 0
    assert list(stale(run)) == ["report"]
    told = refused("report", "--run", run.path)
    assert commands(told)[0][0] == "report"
    follow(told)
    assert stale(run) == {}


def test_a_stage_that_was_begun_again_and_stopped(run: Run) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_stage(run, "train-dicts", STAGES["train-dicts"](), outputs=[run.dictionaries_path], force=True),
    ):
        raise KeyboardInterrupt
    for command in ("compare", "claims", "report", "baselines"):
        assert "train-dicts" in refused(command, "--run", run.path)
    told = call("info", run.path).stdout
    assert "compare: done" in told
    assert "out of date, train-dicts was begun again and is not finished" in told


def test_a_file_that_somebody_else_changed(run: Run) -> None:
    names = run.finished("train-dicts", "")["dictionaries"]
    for suffix in (".safetensors", ".json"):
        shutil.copy(run.dictionaries_path / f"{names[0]}{suffix}", run.dictionaries_path / f"{names[1]}{suffix}")
    for command in ("claims", "report"):
        told = refused(command, "--run", run.path)
        assert "files of the dictionaries changed since" in told
        assert commands(told)[0][0] == "compare"


def test_data_that_were_thrown_away_make_nothing_stale(run: Run) -> None:
    shutil.rmtree(run.activations_path)
    assert stale(run) == {}
    for command in ("compare", "claims", "report"):
        assert call(command, "--run", run.path, "--quiet").exit_code == 0


def test_a_dataset_outside_the_run(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(run.activations_path / HOOK, tmp_path / "data")
    train_dicts(other, sizes="12", dataset=str(tmp_path / "data"), quiet=True, **SWEEP)
    compare_dicts(other, quiet=True)
    check_claims(other, sweep=False, quiet=True)
    fit_baselines(other, kinds="random", rows=500, eval_rows=200, quiet=True)  # knows where the dictionaries' data are
    assert stale(other) == {}
    harvest(run, 2)
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(run.activations_path / HOOK, tmp_path / "data")
    assert list(stale(other)) == ["train-dicts", "compare", "claims", "baselines"]
    with pytest.raises(StageStale, match="train-dicts --force"):
        compare_dicts(other, quiet=True)
    with pytest.raises(StageStale, match="dataset"):
        train_dicts(other, quiet=True)


def test_info_says_what_is_out_of_date_and_what_to_run(run: Run) -> None:
    assert "out of date" not in call("info", run.path).stdout
    train_dicts(run, sizes="20", force=True, quiet=True)
    told = call("info", run.path).stdout
    assert f"out of date, train-dicts changed since; run: sparsecode compare --force --run {run.path}" in told
    found = json.loads(call("info", run.path, "--json").stdout)["stages"]
    assert found["train-dicts"]["out_of_date"] is None
    assert [command.split()[1] for command in found["report"]["run"]] == ["compare", "claims", "baselines", "report"]
    assert found["claims"]["out_of_date"] == "as is compare, which it reads"
    assert [command.split()[1] for command in found["claims"]["run"]] == ["compare", "claims"]


def test_replicate_does_again_what_is_out_of_date(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        replicate,
        "STAGE_FUNCTIONS",
        {
            key: value
            for key, value in replicate.STAGE_FUNCTIONS.items()
            if key not in ("train-gpt", "harvest", "toy", "interpret")
        },
    )
    train_dicts(run, sizes="20", seeds=1, force=True, quiet=True)
    before = run.finished("train-dicts", "")
    replicate.replicate(run)
    told = capsys.readouterr().err
    assert "compare is out of date, train-dicts changed since; doing it again" in told
    assert stale(run) == {}
    assert run.finished("train-dicts", "") == before, "what is not out of date is left alone"
    assert run.finished("compare", "")["dictionaries"] == before["dictionaries"]
