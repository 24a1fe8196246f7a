"""Training in several processes: the same bytes as in one, whoever is killed and whenever, and none that hangs."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from ranks import WITHIN, Ranks, everything, fail_at_a_step, fill_the_disk, free_port, make_a_group, torchrun
from sparsecode import store
from sparsecode.cli import main
from sparsecode.pipeline.run import Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are started as on Linux")

D, ROWS = 12, 4000
SMALL = (
    "--sizes 16,24 --l1 1e-2,3e-2 --seeds 1 --batch-size 128 --samples 5120 --warmup-steps 8 --eval-rows 500 "
    "--log-every 7 --save-every 5 --device cpu --threads 1"
)
LONG = SMALL.replace("--samples 5120", "--samples 30000")
KILLS = int(os.environ.get("SPARSECODE_KILLS", "6"))
FULL = KILLS > 6  # as in the soak


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sparse sums of 20 directions in 12 dimensions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    codes = torch.rand(ROWS, 20, generator=generator) * (torch.rand(ROWS, 20, generator=generator) < 0.1)
    path = tmp_path_factory.mktemp("data") / "dataset"
    with store.DatasetWriter(path, activation_dim=D, dtype="float32", provenance={"hook_point": "h"}) as writer:
        writer.append(codes @ directions + 0.1, torch.arange(ROWS))
        writer.finish()
    return path


def command(data: Path, run: Path, settings: str, *more: str) -> list[str]:
    return ["train-dicts", "--run", str(run), "--dataset", str(data), *settings.split(), *more]


def trained(data: Path, run: Path, size: int, settings: str, *more: str) -> dict[str, Any]:
    ranks = Ranks(run.parent, size, command(data, run, settings, *more))
    assert ranks.codes() == [0] * size, ranks.said()
    return everything(run)


MATRIX = [
    ("--engine reference --tied --normalize rms", (2, 3)),
    ("--engine cpu --pre-bias --kind relu --kind batchtopk --k 2 --aux 1/32 --kind panneal", (4,)),
]
if FULL:
    MATRIX += [
        ("--engine reference", (2, 3, 4)),
        ("--engine cpu", (2, 3, 4)),
        ("--engine cpu --pre-bias --order windowed --minutes 100", (2,)),
    ]


@pytest.mark.parametrize(("settings", "sizes"), MATRIX)
def test_several_processes_write_the_bytes_of_one(
    data: Path, tmp_path: Path, settings: str, sizes: tuple[int, ...]
) -> None:
    kinds = SMALL.replace("--l1 1e-2,3e-2", "--l1 1e-2") if "--kind" in settings else SMALL
    alone = trained(data, tmp_path / "1", 1, f"{kinds} {settings}")
    assert len(alone["files"]) >= 8 and alone["metrics"] and not alone["left"]
    for size in sizes:
        assert trained(data, tmp_path / str(size), size, f"{kinds} {settings}") == alone


def test_a_training_killed_at_random_is_taken_up_by_any_number_of_processes(data: Path, tmp_path: Path) -> None:
    alone = trained(data, tmp_path / "alone", 1, f"{LONG} --engine reference")
    began = time.monotonic()
    trained(data, tmp_path / "two", 2, f"{LONG} --engine reference")
    seconds, choose, run, killed = time.monotonic() - began, random.Random(0), tmp_path / "run", 0
    while killed < KILLS:
        size = choose.randint(1, 4)
        ranks = Ranks(tmp_path / "said", size, command(data, run, f"{LONG} --engine reference"))
        time.sleep(choose.uniform(0, 0.8 * seconds))
        ranks.signal(signal.SIGKILL, victim := choose.randrange(size))
        ranks.signal(signal.SIGTERM)  # as torchrun does when one has ended
        codes = ranks.codes(WITHIN)
        assert None not in codes, ranks.said()
        killed += codes[victim] == -signal.SIGKILL
        if codes == [0] * size:  # it was done before
            assert everything(run) == alone
            run = tmp_path / f"run-{killed}-{len(list(tmp_path.iterdir()))}"
    assert trained(data, run, choose.randint(1, 4), f"{LONG} --engine reference") == alone


def saved(run: Path) -> Callable[[], bool]:
    return (run / "dictionaries/state.safetensors").exists


@pytest.mark.parametrize("victim", [0, 1, 2] if FULL else [0, 2])
def test_the_end_of_one_is_the_end_of_all_and_is_said_once(data: Path, tmp_path: Path, victim: int) -> None:
    ranks = Ranks(tmp_path, 3, command(data, tmp_path / "run", LONG, "--engine", "reference", "--samples", "10M", "-q"))
    ranks.wait_for(saved(tmp_path / "run"))
    ranks.signal(signal.SIGKILL, victim)
    codes = ranks.codes(WITHIN)
    assert codes.pop(victim) == -signal.SIGKILL
    assert codes == [3, 3]
    assert ranks.said() == f"sparsecode: rank {victim} of 3 ended without a word, as after a kill\n"


@pytest.mark.parametrize("spoiled", [0, 1] if FULL else [1])
@pytest.mark.parametrize(
    ("spoil", "line"),
    [(fail_at_a_step, "ZeroDivisionError a planted failure"), (fill_the_disk, "no space left on the device")],
)
def test_a_failure_of_one_names_rank_and_cause(
    data: Path, tmp_path: Path, spoil: Callable[[], None], line: str, spoiled: int
) -> None:
    args = command(data, tmp_path / "run", LONG, "--engine", "reference", "-q")
    ranks = Ranks(tmp_path, 2, args, spoil, spoiled)
    codes = ranks.codes(WITHIN + 15)
    assert all(codes), ranks.said()
    told = [one for one in ranks.said().splitlines() if f"rank {spoiled} of 2: " in one]
    if not (spoil is fail_at_a_step and spoiled == 0):  # whose traceback says it
        assert len(told) == 1 and line in told[0], ranks.said()
    assert line.split()[0] in ranks.said()


def test_what_all_fail_with_is_said_once(data: Path, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, 2, command(data, tmp_path / "run", SMALL, "--engine", "reference", "--lr", "1e30", "-q"))
    assert ranks.codes() == [3, 3]
    assert ranks.said().count("\n") == 1 and "all 4 dictionaries ran into NaN" in ranks.said()


@pytest.mark.parametrize("wrong", [["--batch-size", "none"], ["--lr", "0"]])
def test_a_setting_of_one_alone_ends_all(data: Path, tmp_path: Path, wrong: list[str]) -> None:
    args = command(data, tmp_path / "run", SMALL, "--engine", "reference", "-q")
    ranks = Ranks(tmp_path, 2, lambda rank: args + wrong * rank)
    assert all(ranks.codes(WITHIN + 15)), ranks.said()
    assert "rank 1" in ranks.said() and ranks.said().count("sparsecode: ") == 1
    assert not (tmp_path / "run/dictionaries").exists()


@pytest.mark.parametrize("victim", [0, 1] if FULL else [1])
def test_one_that_stops_is_reported(data: Path, tmp_path: Path, victim: int) -> None:
    args = command(data, tmp_path / "run", LONG, "--engine", "reference", "--samples", "10M", "--patience", "2", "-q")
    ranks = Ranks(tmp_path, 3, args)
    ranks.wait_for(saved(tmp_path / "run"))
    ranks.signal(signal.SIGSTOP, victim)
    codes = ranks.codes(WITHIN + 2, but=[victim])
    assert codes.pop(victim) is None
    assert codes == [3, 3]
    assert ranks.said() == f"sparsecode: rank {victim} of 3 has not answered for 2 s; see what it waits for\n"


def test_a_request_to_end_saves_one_state_and_is_resumed(data: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", f"{LONG} --engine reference"
    ranks = Ranks(tmp_path, 2, command(data, run, settings))
    ranks.wait_for(saved(run))
    ranks.signal(signal.SIGTERM)
    assert ranks.codes(10) == [143, 143], ranks.said()
    assert ranks.said().count("sparsecode: terminated") == 1
    assert len(list((run / "dictionaries").iterdir())) == 2  # one part of each, of one step
    assert trained(data, run, 3, settings) == trained(data, tmp_path / "alone", 1, settings)


def test_minutes_are_equal_steps(data: Path, tmp_path: Path) -> None:
    settings = SMALL.replace("--samples 5120", "--minutes 0.02 --min-samples 0") + " --engine reference"
    found = trained(data, tmp_path / "run", 2, settings)
    steps = found["record"]["plan"]["steps"]
    assert found["record"]["result"]["steps"] == steps
    lines = Run(tmp_path / "run").metrics("train-dicts")
    assert [line["dictionary"] for line in lines if line["step"] == steps] == found["record"]["result"]["dictionaries"]


def test_a_process_group_that_is_ready_is_used(data: Path, tmp_path: Path) -> None:
    settings = f"{SMALL} --engine reference"
    ranks = Ranks(tmp_path, 2, command(data, tmp_path / "run", settings), make_a_group, 0, 1)
    assert ranks.codes() == [0, 0], ranks.said()
    assert everything(tmp_path / "run") == trained(data, tmp_path / "alone", 1, settings)


def test_more_processes_than_dictionaries_are_refused(data: Path, tmp_path: Path) -> None:
    settings = SMALL.replace("16,24", "16").replace("1e-2,3e-2", "1e-2")
    ranks = Ranks(tmp_path, 2, command(data, tmp_path / "run", settings, "--engine", "reference"))
    assert ranks.codes() == [2, 2]
    assert "2 processes for 1 dictionaries" in ranks.said() and ranks.said().count("\n") == 1


def test_as_documented(data: Path, tmp_path: Path) -> None:
    """The line of docs/scale.md, by torchrun itself."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    args = command(data, tmp_path / "run", SMALL, "--engine", "reference")
    subprocess.run([*line, "sparsecode", *args], check=True, timeout=120, capture_output=True)
    assert everything(tmp_path / "run") == trained(data, tmp_path / "alone", 1, f"{SMALL} --engine reference")


def test_a_process_of_its_own_ends_in_the_same_way(data: Path, tmp_path: Path) -> None:
    """Not forked: with an interpreter that shuts down, while threads still listen."""
    args = [sys.executable, "-m", "sparsecode", *command(data, tmp_path / "run", SMALL, "--engine", "reference")]
    start = functools.partial(subprocess.Popen, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = free_port()
    pair = [start(args + ["--sizes", "8"] * rank, env=os.environ | torchrun(rank, 2, port)) for rank in range(2)]
    said = [one.communicate(timeout=60) for one in pair]
    assert [one.returncode for one in pair] == [3, 3], said
    assert said == [("", "sparsecode: rank 0 of 2: rank 1 has other settings (sizes); start all alike\n"), ("", "")]


CUT = SMALL.replace("--sizes 16,24", "--sizes 16,32") + " --engine reference --segments 4"
SPLITS = [(2, 2), (4, 4), (4, 2)]  # processes, and how many of them share each dictionary


@pytest.mark.parametrize("settings", ["--pre-bias --normalize rms", "--tied", "--start linear --frozen"])
def test_processes_that_share_each_dictionary_write_the_bytes_of_one(data: Path, tmp_path: Path, settings: str) -> None:
    alone = trained(data, tmp_path / "1", 1, f"{CUT} {settings}")
    assert len(alone["files"]) == 8 and alone["metrics"] and not alone["left"]
    assert alone["record"]["plan"]["segments"] == 4
    for size, split in SPLITS if FULL or "--tied" in settings else SPLITS[1:2]:
        assert trained(data, tmp_path / f"{size}-{split}", size, f"{CUT} {settings} --split {split}") == alone


def test_one_that_is_killed_ends_all_that_share_and_any_number_goes_on(data: Path, tmp_path: Path) -> None:
    settings = CUT.replace("--samples 5120", "--samples 40k") + " --pre-bias"
    alone, run = trained(data, tmp_path / "alone", 1, settings), tmp_path / "run"
    state, seen = run / "dictionaries/state.safetensors", 0
    for size, victim in ((4, 2), (2, 0)):
        ranks = Ranks(tmp_path / str(size), size, command(data, run, settings, "--split", str(size), "-q"))
        ranks.wait_for(lambda: state.exists() and state.stat().st_mtime_ns > seen)  # noqa: B023
        ranks.signal(signal.SIGKILL, victim)
        codes = ranks.codes(WITHIN)
        assert codes.pop(victim) == -signal.SIGKILL and codes == [3] * (size - 1), ranks.said()
        assert ranks.said() == f"sparsecode: rank {victim} of {size} ended without a word, as after a kill\n"
        seen = state.stat().st_mtime_ns
    assert trained(data, run, 1, settings) == alone


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--segments", "4", "--engine", "cpu"), "does not train parts of dictionaries"),
        (("--segments", "3"), "--segments must be a power of two, not 3"),
        (("--split", "2", "--segments", "4"), "1 processes for --split 2; start a multiple of 2"),
        (("--split", "4", "--segments", "2"), "--segments 2 are too few for --split 4"),
        (("--segments", "16", "--engine", "reference"), "24 features are no multiple of 16 segments"),
        (("--segments", "4", "--kind", "topk k=2"), "'topk k=2' cannot be cut"),
    ],
)
def test_what_cannot_be_shared_is_one_line(data: Path, tmp_path: Path, more: tuple[str, ...], line: str) -> None:
    settings = SMALL.replace("--l1 1e-2,3e-2", "") if "--kind" in more else SMALL
    shown = CliRunner().invoke(main, command(data, tmp_path / "run", settings, *more, "-q"))
    assert shown.exit_code == 2 and line in shown.stderr and len(shown.stderr.splitlines()) <= 4, shown.stderr
