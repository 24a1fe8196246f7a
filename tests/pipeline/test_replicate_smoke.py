"""The whole experiment, small: `sparsecode replicate --preset smoke` on the real stages, in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sparsecode.pipeline.preset import load_preset
from sparsecode.pipeline.replicate import STAGE_FUNCTIONS
from sparsecode.pipeline.run import Run

pytestmark = pytest.mark.slow

HOOK = "blocks.2.mlp.hook_post"
COMMAND = [sys.executable, "-m", "sparsecode", "replicate", "--preset", "smoke", "--run"]
HANGS = 1000  # seconds after which a process is given up; the preset takes some 20 on two cores
SIZES, SEEDS = [32, 64, 128], 2


def replicate(run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(run)], capture_output=True, text=True, check=False, timeout=HANGS)


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file below `folder`, by its relative path; locks left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def killed_when(run: Path, ready: Callable[[], bool]) -> bool:
    """Starts a replication and kills it without warning once `ready`; False where it ended before."""
    with subprocess.Popen([*COMMAND, str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if ready():
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.005)
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, subprocess.CompletedProcess[str]]:
    """An unbroken replication: the run, and what it printed."""
    run = Run(tmp_path_factory.mktemp("smoke") / "run")
    return run, replicate(run.path)


Whole = tuple[Run, subprocess.CompletedProcess[str]]


def test_it_succeeds_and_says_what_it_found(whole: Whole) -> None:
    run, done = whole
    assert done.returncode == 0, done.stderr
    assert f"report: {run.report_path}" in done.stderr
    for sentence in run.finished("report", "")["summary"]:
        assert sentence in done.stderr


def test_the_run_holds_what_other_programs_rely_on(whole: Whole) -> None:
    run, _ = whole
    for path in (
        run.config_path, run.tokenizer_path, run.tokens_path / "train.bin", run.tokens_path / "val.bin",
        run.gpt_path / "model.safetensors", run.gpt_path / "config.json",
        run.activations_path / HOOK / "manifest.json", run.metrics_path, run.comparison_path,
        run.comparison_path.with_suffix(".safetensors"), run.claims_path, run.report_path,
        run.figures_path / "found-again.csv", run.report_path.with_suffix(".json"),
    ):  # fmt: skip
        assert path.is_file(), path
        assert path.stat().st_size > 0, path
    left = [path for path in run.path.rglob("*") if path.name.endswith(".tmp") or path.name == "state.safetensors"]
    assert not left


def test_each_dictionary_can_be_read_alone(whole: Whole) -> None:
    run, _ = whole
    names = {file.stem for file in run.dictionaries_path.glob("*.safetensors")}
    assert names == {f"n{size}_l1-0.023_s{seed}" for size in SIZES for seed in range(SEEDS)}
    for name in names:
        facts = json.loads((run.dictionaries_path / f"{name}.json").read_text())
        tensors = load_file(run.dictionaries_path / f"{name}.safetensors")
        n, d = facts["dict_size"], facts["activation_dim"]
        assert d == 128
        assert tensors["W_enc"].shape == tensors["W_dec"].shape == (n, d)
        assert tensors["b_enc"].shape == (n,)
        assert facts["hook_point"] == HOOK
        assert facts["metrics"]["fvu"] > 0
        assert facts["metrics"]["rows"] > 0
        for fact in ("l1", "seed", "dataset_fingerprint", "normalization", "loss", "samples_seen"):
            assert facts[fact] is not None, fact


def test_the_record_holds_every_stage(whole: Whole) -> None:
    run, _ = whole
    stages = run.config()["stages"]
    assert [key.partition("/")[0] for key in stages] == list(STAGE_FUNCTIONS)
    for key, record in stages.items():
        assert record["status"] == "done", key
        assert record["settings"] == load_preset("smoke").stage(key.partition("/")[0]).record()
        assert record["versions"]["torch"]
        assert record["machine"]["cores"] >= 1
    logged = {row["stage"] for row in run.metrics()}
    assert {"train-gpt", "train-dicts"} <= logged


def test_the_page_needs_no_network(whole: Whole) -> None:
    page = whole[0].report_path.read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    for reference in ('src="http', "src='http", 'rel="stylesheet" href="http', "@import url(http"):
        assert reference not in page


def test_again_it_does_nothing(whole: Whole) -> None:
    run, _ = whole
    before = digests(run.path)
    done = replicate(run.path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done") == len(STAGE_FUNCTIONS)
    assert digests(run.path) == before
    quiet = subprocess.run([*COMMAND, str(run.path), "--quiet"], capture_output=True, check=True, timeout=HANGS)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")


def test_other_settings_are_refused_with_what_differs(whole: Whole) -> None:
    run, _ = whole
    command = [
        sys.executable,
        "-m",
        "sparsecode",
        "harvest",
        "--preset",
        "smoke",
        "--rows",
        "1024",
        "--run",
        str(run.path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "rows 40960, not 1024" in done.stderr
    assert "--force" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["info"], ["verify"], ["compare"], ["claims"], ["baselines"], ["interpret"], ["toy"], ["report"], ["eval"]],
)
def test_commands_read_the_run(whole: Whole, command: list[str]) -> None:
    run, _ = whole
    environment = {name: value for name, value in os.environ.items() if name != "SPARSECODE_PRESET"}  # the run has it
    done = subprocess.run(
        [sys.executable, "-m", "sparsecode", *command, "--run", str(run.path), "--json"],
        capture_output=True, text=True, check=False, timeout=HANGS, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_in_every_stage_it_ends_with_the_same_bytes(whole: Whole, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")

    def begun(key: str) -> Callable[[], bool]:
        def check() -> bool:
            record = json.loads(run.config_path.read_text())["stages"] if run.config_path.exists() else {}
            return key in record and record[key]["status"] != "done"

        return check

    def saved(stage: str) -> Callable[[], bool]:
        # A state was saved and work has gone on since: the run must go on from the state, not from the start.
        return lambda: begun(stage)() and any(run.path.rglob("state.safetensors"))

    moments = [
        saved("train-gpt"),
        begun(f"harvest/{HOOK}"),
        saved("train-dicts"),
        begun("compare"),
        begun("claims"),
        begun("report"),
    ]
    killed = [killed_when(run.path, moment) for moment in moments]
    assert killed[0], "never killed in train-gpt"
    assert killed[2], "never killed in train-dicts"
    done = replicate(run.path)
    assert done.returncode == 0, done.stderr
    unbroken = whole[0]
    assert digests(run.dictionaries_path) == digests(unbroken.dictionaries_path)
    assert digests(run.gpt_path) == digests(unbroken.gpt_path)
    for scale in ("plain", "per-size"):
        own = [Run(folder.path / "science" / scale).dictionaries_path for folder in (run, unbroken)]
        assert digests(own[0]) == digests(own[1]) != {}
    assert run.claims_path.read_bytes() == unbroken.claims_path.read_bytes()
    assert digests(run.activations_path) == digests(unbroken.activations_path)
    assert digests(run.tokens_path) == digests(unbroken.tokens_path)
