"""A harvest in parts, each in its own process or one after the other: the files of the sequential harvest."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ranks import Ranks
from sparsecode.errors import InvalidSetting, SettingsDiffer
from sparsecode.harvest import rows as rows_module
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt

CONTEXT, ROWS = 16, 60 * 16 + 5
HOOKS = "blocks.0.hook_resid_post,blocks.1.hook_resid_post,blocks.2.hook_resid_post"
SETTINGS: dict[str, Any] = {"hook": HOOKS, "rows": ROWS, "batch_size": 2, "dtype": "float32", "device": "cpu"}
KILLS = int(os.environ.get("SPARSECODE_KILLS", "3"))
FULL = KILLS > 3  # as in the soak


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a tiny GPT."""
    folder = tmp_path_factory.mktemp("harvest")
    text = " ".join(f"sentence {number} says {word * number} again." for number in range(40) for word in range(40))
    (folder / "text.txt").write_text(text)
    train_gpt(
        folder / "run", text=(str(folder / "text.txt"),), vocab_size=300, n_layer=3, n_head=2, d_model=8,
        context=CONTEXT, batch_size=2, steps=2, val_tokens=64, val_fraction=0.2, device="cpu", quiet=True,
    )  # fmt: skip
    return Run(folder / "run")


def copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.path, folder)
    return Run(folder)


def files(run: Run) -> dict[str, bytes]:
    every = [path for path in run.activations_path.rglob("*") if path.is_file()]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in every}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Forward passes, as they are done."""
    passes: list[int] = []
    plain = rows_module._read

    def read(*arguments: Any) -> Any:
        passes.append(1)
        return plain(*arguments)

    monkeypatch.setattr(rows_module, "_read", read)
    return passes


@pytest.mark.parametrize(("hooks", "shard_rows", "twice"), [(HOOKS, 100, True), (HOOKS.split(",")[1], 96, False)])
def test_parts_are_the_sequential_harvest(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: str, shard_rows: int, twice: bool
) -> None:
    settings = SETTINGS | {"hook": hooks, "shard_rows": shard_rows, "quiet": True}
    passes = counted(monkeypatch)
    whole = copy(trained, tmp_path / "whole")
    harvest_activations(whole, **settings)
    sequential, shards = len(passes), -(-ROWS // shard_rows)
    for count in (2, 3, 7) if FULL else (3,):
        run = copy(trained, tmp_path / str(count))
        passes.clear()
        order = random.Random(count).sample(range(count), count)
        found = [harvest_activations(run, **settings, part=f"{part}/{count}") for part in order]
        assert ["rows" in one for one in found] == [False] * (count - 1) + [True]
        assert files(run) == files(whole)
        assert len(passes) - sequential <= (shards if twice else 0)
        key = f"harvest/{hooks.split(',')[0]}"
        assert run.config()["stages"][key]["result"] == whole.config()["stages"][key]["result"]
    passes.clear()
    run = copy(trained, tmp_path / "mixed")
    harvest_activations(run, **settings, part="1/3")
    harvest_activations(run, **settings)
    assert files(run) == files(whole)
    assert len(passes) - sequential <= (shards if twice else 0)


def test_torchrun_s_environment_is_a_part(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, run = copy(trained, tmp_path / "whole"), copy(trained, tmp_path / "run")
    harvest_activations(whole, **SETTINGS, quiet=True, shard_rows=96)
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        harvest_activations(run, **SETTINGS, quiet=True, shard_rows=96)
    assert files(run) == files(whole)


def test_what_parts_refuse(trained: Run, tmp_path: Path) -> None:
    run = copy(trained, tmp_path / "run")
    for text in ("3/3", "1", "-1/2", "x/y"):
        with pytest.raises(InvalidSetting, match="is not I/N"):
            harvest_activations(run, **SETTINGS, part=text)
    with pytest.raises(InvalidSetting, match="--force"):
        harvest_activations(run, **SETTINGS, part="0/2", force=True)
    with pytest.raises(InvalidSetting, match="--shard-rows"):
        two = "blocks.0.hook_resid_post,blocks.0.mlp.hook_post"
        harvest_activations(run, **SETTINGS | {"hook": two}, part="0/2", quiet=True)
    run = copy(trained, tmp_path / "other")
    harvest_activations(run, **SETTINGS, shard_rows=96, part="0/2", quiet=True)
    before = files(run)
    with pytest.raises(SettingsDiffer, match="shard_rows 96, not 112"):
        harvest_activations(run, **SETTINGS, shard_rows=112, part="1/2", quiet=True)
    assert files(run) == before


@pytest.mark.skipif(sys.platform != "linux", reason="processes are started as on Linux")
def test_parts_at_once_one_of_them_killed(trained: Run, tmp_path: Path) -> None:
    whole, run = copy(trained, tmp_path / "whole"), copy(trained, tmp_path / "run")
    harvest_activations(whole, **SETTINGS, quiet=True, shard_rows=32)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = ["harvest", "--run", str(run.path), *flags, "--shard-rows", "32", "-q"]

    def start(*parts: int) -> Ranks:
        return Ranks(tmp_path, len(parts), lambda rank: [*command, "--part", f"{parts[rank]}/3"])

    others = start(0, 2)
    choose = random.Random(0)
    for _ in range(KILLS):
        victim = start(1)
        time.sleep(choose.uniform(0, 1.5))
        victim.signal(signal.SIGKILL)
        assert victim.codes() in ([-signal.SIGKILL], [0]), victim.said()
    last = start(1)
    assert others.codes() == [0, 0], others.said()
    assert last.codes() == [0], last.said()
    assert files(run) == files(whole)
    assert run.is_done("harvest/blocks.0.hook_resid_post")
