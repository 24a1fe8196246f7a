"""Kills, full disks, locks and the order of system calls (promises 10, 13, 14, 16, 20), and no pickle (28)."""

from __future__ import annotations

import ast
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import store_trials as trials
from sparsecode.errors import InvalidArgument, OutOfSpace, RunLocked, ShardCorrupt
from sparsecode.store import Dataset, DatasetWriter

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_a_writer_killed_at_random_moments_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """25 of the 200 kills that `make soak` makes."""
    assert trials.kill_writers(tmp_path, kills=25, seed=0) >= 25


def test_a_full_disk_leaves_nothing_half_visible_and_the_writer_goes_on(tmp_path: Path) -> None:
    assert trials.fill_disk(tmp_path / "x") == (0, trials.ROWS)


def test_a_disk_that_fills_up_after_some_shards_keeps_them(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "x", **trials.SETTINGS) as writer:
        writer.append(trials.rows(0, 1200), torch.arange(1200))
        assert writer.rows == 1000
    assert trials.fill_disk(tmp_path / "x") == (1000, trials.ROWS)
    trials.write_all(tmp_path / "whole")
    assert trials.contents(tmp_path / "x") == trials.contents(tmp_path / "whole")


def test_past_the_page_cache_a_full_disk_is_named_and_the_writer_goes_on(tmp_path: Path) -> None:
    """Shards of 8 MB, of which the second does not find room: as where the disk fills up behind the writer."""
    folder, batch = tmp_path / "x", torch.randn(1 << 14, 128)  # 4 MB on disk
    settings: dict[str, Any] = {"activation_dim": 128, "dtype": "float16", "provenance": {}, "shard_bytes": 8 << 20}

    def write(limit: int) -> None:
        with DatasetWriter(folder, direct=True, **settings) as writer:
            for i in range(6):
                if i == 3:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                writer.append(batch, torch.arange(1 << 14))
            writer.finish()

    def refused() -> None:
        with pytest.raises(OutOfSpace, match="shard-0000"):
            write(4 << 20)

    _, status = os.waitpid(trials.in_child(refused), 0)
    assert os.WEXITSTATUS(status) == 0
    seen = Dataset(folder)
    assert not seen.complete and seen.verify() == [] and 0 < seen.rows < 6 << 14
    assert not {file.name for file in folder.iterdir()} - {".lock", "manifest.json", *(s.file for s in seen.shards)}
    with DatasetWriter(folder, direct=True, **settings) as writer:
        writer.append(batch, torch.arange(1 << 14))
        whole = writer.finish()
    assert whole.rows == seen.rows + (1 << 14) and whole.verify() == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_file_is_safe_before_its_name_and_its_name_before_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    steps = trials.io_steps(folder)

    def commit(name: str) -> list[tuple[str, str]]:
        return [("fsync", f"{folder}/.{name}.tmp"), ("rename", f"{folder}/{name}"), ("fsync", str(folder))]

    expected = commit("manifest.json")
    for index in range(3):
        expected += commit(f"shard-0000{index}.safetensors") + commit("manifest.json")
    assert steps == expected


def test_a_killed_writer_frees_the_lock(tmp_path: Path) -> None:
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(trials.__file__).parent)!r})
        from store_trials import SETTINGS
        from sparsecode.store import DatasetWriter
        writer = DatasetWriter({str(tmp_path / "x")!r}, **SETTINGS)
        print("locked", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with pytest.raises(RunLocked, match="another process is writing here"):
        DatasetWriter(tmp_path / "x", **trials.SETTINGS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    DatasetWriter(tmp_path / "x", **trials.SETTINGS).close()


def test_a_fork_does_not_write_or_clean_up_for_its_parent(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "x", **trials.SETTINGS) as writer:
        writer.append(trials.rows(0, 700), torch.arange(700))

        def child() -> None:
            try:
                writer.append(trials.rows(0, 1), torch.arange(1))
            except InvalidArgument as error:
                assert "fork" in str(error)
                writer.close()
                return
            raise AssertionError("a child appended")

        _, status = os.waitpid(trials.in_child(child), 0)
        assert os.WEXITSTATUS(status) == 0
        writer.append(trials.rows(700, trials.ROWS), torch.arange(700, trials.ROWS))
        assert writer.finish().verify() == []
    trials.write_all(tmp_path / "whole")
    assert trials.contents(tmp_path / "x") == trials.contents(tmp_path / "whole")


def test_a_forked_child_writes_large_batches_after_its_parent_used_all_threads(tmp_path: Path) -> None:
    """The threads of torch's OpenMP, on which the parent writes, do not exist in a child."""
    batch = torch.arange(1 << 21).view(-1, 128).remainder(2039).float()
    settings: dict[str, Any] = {"activation_dim": 128, "dtype": "float16", "provenance": {}, "shard_bytes": 1 << 20}

    def write(name: str) -> None:
        with DatasetWriter(tmp_path / name, **settings) as writer:
            writer.append(batch, torch.arange(len(batch)))
            writer.finish()

    write("parent")
    _, status = os.waitpid(trials.in_child(lambda: write("child")), 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    assert trials.contents(tmp_path / "child") == trials.contents(tmp_path / "parent")


def test_readers_do_not_notice_that_one_of_them_is_killed(tmp_path: Path) -> None:
    digests = trials.kill_readers(tmp_path, readers=8, batches=100)
    assert len(digests) == 7 and len(set(digests)) == 1


def test_reading_goes_on_while_another_process_writes(tmp_path: Path) -> None:
    """A growing dataset always consists of complete shards with correct digests."""
    child = trials.in_child(lambda: trials.write_all(tmp_path / "x", pause=0.002))
    seen = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (tmp_path / "x" / "manifest.json").exists():
            dataset = Dataset(tmp_path / "x")
            assert dataset.verify() == []
            assert (dataset.read(0, dataset.rows).half() == trials.rows(0, dataset.rows)).all()
            seen.add(dataset.rows)
            if dataset.complete:
                break
    assert os.waitpid(child, 0)[1] == 0
    assert seen <= set(range(0, trials.ROWS + 1, 500)) and trials.ROWS in seen and len(seen) > 2


FORBIDDEN = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_nothing_in_the_package_can_load_a_pickle() -> None:
    package = Path(__file__).parents[2] / "python" / "sparsecode"
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] in FORBIDDEN for name in names):
                found.append(f"{file}:{node.lineno}")  # type: ignore[attr-defined]
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                weights_only = any(
                    keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in node.keywords
                )
                unsafe_load = name in ("torch.load", "np.load", "numpy.load") and not (
                    weights_only and "interop" in file.parts
                )
                if name in ("eval", "exec", "__import__") or unsafe_load:
                    found.append(f"{file}:{node.lineno}: {name}")
    assert not found, found


def test_a_planted_pickle_is_not_touched(tmp_path: Path) -> None:
    """Files that would run code when unpickled lie about in a dataset's folder; an audit hook sees no unpickling."""
    trials.write_all(tmp_path / "x")
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "bang").encode() + b"'\ntR."
    for name in ("data.pt", "data.pkl", ".shard-00000.safetensors.tmp", "shard-00008.safetensors", "archive.pth"):
        (tmp_path / "x" / name).write_bytes(bomb)
    script = f"""
        import sys
        seen = []
        sys.addaudithook(lambda event, _: seen.append(event) if event in ("pickle.find_class", "os.system") else None)
        from sparsecode.store import ActivationStream, Dataset
        dataset = Dataset({str(tmp_path / "x")!r})
        assert dataset.verify() == []
        seen.clear()
        next(ActivationStream(dataset, batch_size=10))
        dataset.read(0, 10), dataset.tokens(0, 10), dataset.statistics
        assert not seen, seen
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert not (tmp_path / "bang").exists()
    (tmp_path / "x" / "manifest.json").write_bytes(bomb)
    with pytest.raises(ShardCorrupt):
        Dataset(tmp_path / "x")
    shutil.copy(tmp_path / "x" / "data.pt", tmp_path / "x" / "shard-00000.safetensors")
    assert not (tmp_path / "bang").exists()
