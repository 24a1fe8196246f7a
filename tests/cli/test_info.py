"""`info`, `verify`, `merge` and `doctor`: their output for people and for programs."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from sparsecode.cli import doctor, main
from sparsecode.cli.output import columns, size
from sparsecode.pipeline.config import STAGES
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.run import Run
from sparsecode.store import DatasetWriter

HOOK = "blocks.2.mlp.hook_post"
NAME = "n64_l1-0.023_s0"


def make_dataset(path: Path, *, rows: int = 1000, complete: bool = True) -> Path:
    """Rows of 16 float16, all values 0.125, in two shards where there are 1000."""
    writer = DatasetWriter(
        path, activation_dim=16, dtype="float16", provenance={"hook_point": HOOK}, shard_bytes=36 * 500, durable=False
    )
    with writer:
        writer.append(torch.full((rows, 16), 0.125), torch.zeros(rows, dtype=torch.int32))
        if complete:
            writer.finish()
    return path


def damage(shard: Path) -> Path:
    """Changes one byte of the activations."""
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    return shard


def make_dictionary(folder: Path, name: str = NAME, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "format": 1, "dict_size": 64, "activation_dim": 16, "l1": 0.023, "seed": 0, "hook_point": HOOK,
        "normalization": {"kind": "rms", "mean": [0.0] * 16, "scale": 0.1}, "samples_seen": 5000,
        "metrics": {"mse": 0.001, "l0": 7.5, "fvu": 0.15, "dead": 3, "rows": 4096},
    }  # fmt: skip
    facts |= changes
    (folder / f"{name}.json").write_text(json.dumps(facts))
    n = facts["dict_size"]
    tensors = {"W_enc": np.zeros((n, 16), np.float32), "b_enc": np.zeros(n, np.float32)}
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / name


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with two stages done and one begun."""
    run = Run(tmp_path / "run")
    results: dict[str, dict[str, Any]] = {
        "train-gpt": {"val_loss": 4.5, "steps": 100},
        f"harvest/{HOOK}": {"rows": 1000, "hook_point": HOOK},
    }
    for key, result in results.items():
        with open_stage(run, key, STAGES[key.partition("/")[0]]()) as stage:
            stage.finish(result)
    with open_stage(run, "train-dicts", STAGES["train-dicts"]()):
        pass
    make_dataset(run.activations_path / HOOK)
    make_dictionary(run.dictionaries_path)
    make_dictionary(run.dictionaries_path, "n128_l1-0.023_s0", dict_size=128, metrics=None)
    return run


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def called_json(*args: str | Path) -> Any:
    result = call(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_info_of_a_run(run: Run) -> None:
    result = call("info", run.path)
    assert result.exit_code == 0, result.output
    told = result.stdout
    assert "train-gpt: done, 100 steps, validation loss 4.500" in told
    assert f"harvest/{HOOK}: done, {HOOK}, 1k rows" in told
    assert "train-dicts: begun, not finished" in told
    assert "1000 rows of 16 float16 in 2 shards" in told
    table = [line.split() for line in told.splitlines() if line.strip().startswith(("name", "n64", "n128"))]
    assert table == [
        ["name", "size", "L1", "seed", "FVU", "L0", "dead", "MSE"],
        [NAME, "64", "0.023", "0", "0.15", "7.5", "3", "0.001"],
        ["n128_l1-0.023_s0", "128", "0.023", "0", "-", "-", "-", "-"],
    ]


def test_info_of_a_run_as_json(run: Run) -> None:
    found = called_json("info", run.path)
    assert found["kind"] == "run"
    assert found["stages"]["train-gpt"]["result"] == {"val_loss": 4.5, "steps": 100}
    assert found["stages"]["train-dicts"]["status"] == "running"
    assert [entry["name"] for entry in found["dictionaries"]] == ["n128_l1-0.023_s0", NAME]
    assert found["datasets"][0]["rows"] == 1000
    assert found["report"] is None
    assert found == called_json("info", "--run", run.path)


def test_info_of_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": 1, "stages": {}}')
    assert "nothing done yet; 'sparsecode train-gpt'" in call("info", tmp_path).stdout


def test_info_of_a_dataset(run: Run) -> None:
    folder = run.activations_path / HOOK
    found = called_json("info", folder)
    assert (found["kind"], found["rows"], found["provenance"]) == ("dataset", 1000, {"hook_point": HOOK})
    assert found["statistics"] == {
        "rms": 0.125,
        "variance": 0.0,
        "non_finite": 0,
        "gamma": None,
    }  # rows that are all the same
    told = call("info", folder).stdout
    assert "not complete" not in told
    assert "rms: 0.125" in told


def test_info_tells_an_incomplete_dataset(tmp_path: Path) -> None:
    assert "not complete" in call("info", make_dataset(tmp_path / "d", complete=False)).stdout


@pytest.mark.parametrize("ending", ["", ".json", ".safetensors"])
def test_info_of_a_dictionary_by_any_of_its_names(tmp_path: Path, ending: str) -> None:
    path = make_dictionary(tmp_path)
    found = called_json("info", f"{path}{ending}")
    assert (found["kind"], found["name"], found["dict_size"]) == ("dictionary", NAME, 64)
    assert found["tensors"] == {"W_enc": [64, 16], "b_enc": [64]}
    assert found["normalization"] == {"kind": "rms", "scale": 0.1}
    told = call("info", f"{path}{ending}").stdout
    assert "fvu 0.15" in told
    assert "loss:" not in told  # not in this file


def test_info_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_layer": 6, "d_model": 32}')
    save_file({"wte": np.zeros((100, 32), np.float32), "b": np.zeros(7, np.float32)}, tmp_path / "model.safetensors")
    found = called_json("info", tmp_path)
    assert (found["kind"], found["parameters"]) == ("model", 3207)
    assert "3207 parameters: n_layer 6, d_model 32" in call("info", tmp_path).stdout


def test_info_of_a_file_is_that_of_its_folder(run: Run, tmp_path: Path) -> None:
    folder = run.activations_path / HOOK
    for name in ("manifest.json", "shard-00000.safetensors"):
        assert called_json("info", folder / name) == called_json("info", folder)
    assert called_json("info", run.config_path)["kind"] == "run"
    several = called_json("info", run.activations_path)
    assert (several["kind"], several["left_out"]) == ("datasets", [])
    assert several["datasets"] == [called_json("info", folder)]
    assert "1000 rows of 16 float16" in call("info", run.activations_path).stdout


def test_info_of_nothing(tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes(b"")
    for path, told in [
        (tmp_path / "none", "no such file or folder"),
        (tmp_path, "no run, dataset, model or dictionary"),
        (lone, "not something that sparsecode wrote"),
    ]:
        result = call("info", path)
        assert result.exit_code == 3
        assert told in result.stderr
        assert str(path) in result.stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not a readable JSON file"),
        ('{"metrics": ', "not a readable JSON file"),
        ("[]", "no 'format'"),
        ("1", "no 'format'"),
        ("{}", "no 'format'"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "do not belong together"),
        ('{"format": 1, "dict_size": 63, "activation_dim": 16}', "do not belong together"),
    ],
)
def test_info_of_a_broken_dictionary(tmp_path: Path, content: str, told: str) -> None:
    path = make_dictionary(tmp_path)
    path.with_name(NAME + ".json").write_text(content)
    result = call("info", path)
    assert result.exit_code == 3
    assert f"{NAME}.json: " in result.stderr
    assert told in result.stderr


@pytest.mark.parametrize("name", ["metrics", "stability", "normalization", "l1", "seed"])
def test_info_of_a_dictionary_with_a_fact_of_another_kind(run: Run, name: str) -> None:
    path = make_dictionary(run.dictionaries_path, **{name: "x"})
    for place in (path, run.path):
        result = call("info", place)
        assert result.exit_code == 3
        assert f"{NAME}.json: '{name}' is 'x'" in result.stderr


@pytest.mark.parametrize("stability", [{"steadiest": 3}, {"steadiest": [], "threshold": "x"}])
def test_info_of_a_stability_that_compare_did_not_write(tmp_path: Path, stability: dict[str, Any]) -> None:
    result = call("info", make_dictionary(tmp_path, stability=stability))
    assert result.exit_code == 3
    assert "'stability' is not what 'sparsecode compare' writes" in result.stderr


def test_info_of_a_truncated_dictionary(tmp_path: Path) -> None:
    path = make_dictionary(tmp_path)
    path.with_name(NAME + ".safetensors").write_bytes(b"\x08")
    result = call("info", path)
    assert result.exit_code == 3
    assert f"{NAME}.safetensors: cannot be read" in result.stderr


def test_info_of_a_folder_of_dictionaries_shows_them(run: Run, tmp_path: Path) -> None:
    result = call("info", run.dictionaries_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"2 dictionaries in {run.dictionaries_path}\n")
    assert [line.split()[:5] for line in result.stdout.splitlines()[2:]] == [
        [NAME, "sparsecode", "relu", "64", "16"],
        ["n128_l1-0.023_s0", "sparsecode", "relu", "128", "16"],
    ]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/autoencoder.pt").touch()
    assert "name a .pt file in it: autoencoder.pt" in call("info", tmp_path / "weights").stderr


def test_verify_takes_a_folder_of_datasets(run: Run) -> None:
    folder = run.activations_path
    assert call("verify", folder).stdout == call("verify", run.path).stdout


def test_verify_passes(run: Run) -> None:
    for args in (["--run", run.path], [run.path], [run.activations_path / HOOK]):
        result = call("verify", *args)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "2 shards, 1000 rows, complete, all as written" in result.stdout
    assert called_json("verify", run.path)["datasets"][0]["damage"] == []


def test_verify_lists_bad_shards_and_exits_1(tmp_path: Path) -> None:
    make_dataset(tmp_path / "activations/good")
    damage(make_dataset(tmp_path / "activations/bad") / "shard-00001.safetensors")
    result = call("verify", tmp_path)
    assert result.exit_code == 1
    assert "activations/bad: 2 shards, 1000 rows, complete, 1 bad" in result.stdout
    assert "shard-00001.safetensors: " in result.stdout
    assert "activations/good: 2 shards, 1000 rows, complete, all as written" in result.stdout
    assert "1 dataset is not what was written" in result.stderr
    as_json = call("verify", tmp_path, "--json")
    assert as_json.exit_code == 1
    bad, good = json.loads(as_json.stdout)["datasets"]
    assert [one["shard"] for one in bad["damage"]] == ["shard-00001.safetensors"]
    assert good["damage"] == []


def test_verify_of_a_dataset_that_cannot_be_opened_is_a_failed_check(tmp_path: Path) -> None:
    shards = sorted(make_dataset(tmp_path / "d").glob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:1000])
    shards[1].unlink()
    result = call("verify", tmp_path / "d")
    assert result.exit_code == 1
    told = [line for line in result.stdout.splitlines() if "shard-" in line]
    assert "cannot be opened" in result.stdout
    assert [shard.name in line for shard, line in zip(shards, told, strict=True)] == [True, True]


def test_verify_of_nothing(tmp_path: Path) -> None:
    result = call("verify", tmp_path)
    assert result.exit_code == 3
    assert "no dataset" in result.stderr


def test_merge_joins_datasets(tmp_path: Path) -> None:
    parts = [make_dataset(tmp_path / name) for name in "ab"]
    result = call("merge", *parts, "--into", tmp_path / "c")
    assert result.exit_code == 0, result.output
    assert "2000 rows from 2 datasets" in result.stderr
    assert called_json("info", tmp_path / "c")["rows"] == 2000


@pytest.mark.parametrize("args", [["--into", "c"], ["a", "--into", "c"], ["a", "b"]])
def test_merge_needs_two_datasets_and_a_place(args: list[str]) -> None:
    assert call("merge", *args).exit_code == 2


def test_doctor_tells_what_this_machine_has(tmp_path: Path) -> None:
    import torch

    from sparsecode._core import CpuEngine, cpu_features

    found = called_json("doctor", "--run", tmp_path / "not" / "yet")
    assert found["simd"] == cpu_features()
    assert found["versions"]["torch"]
    assert found["torch"]["devices"][0] == "cpu"
    assert len(found["torch"]["gpus"]) == torch.cuda.device_count()
    assert found["disk"]["path"] == str(tmp_path)  # the nearest folder that exists
    assert found["machine"]["memory_bytes"] > 1e8
    assert set(found["optional"]) == set(doctor.OPTIONAL)
    told = call("doctor", "--run", tmp_path).stdout
    assert found["engine"]["path"] in CpuEngine.paths()
    for word in (
        "SIMD",
        "Triton",
        "engine",
        "problems",
        found["simd"]["simd"],
        f"instructions {found['engine']['path']}",
    ):
        assert word in told
    assert not (tmp_path / "not").exists()


def test_doctor_exits_1_where_the_disk_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=10**6))
    result = call("doctor", "--run", tmp_path)
    assert result.exit_code == 1
    assert "0.0 GB free" in result.stderr
    assert "problem " in result.stdout


def test_doctor_lives_without_the_native_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sparsecode._core", None)
    result = call("doctor", "--run", tmp_path)
    assert result.exit_code == 1
    assert "the native core cannot be loaded" in result.stderr


def test_doctor_tells_a_triton_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert called_json("doctor", "--run", tmp_path)["triton"] is None


def test_columns_line_up() -> None:
    assert columns([["a", 1, 0.5], ["long", 20, None]], ["name", "n", "x"]) == [
        "name   n    x",
        "a      1  0.5",
        "long  20    -",
    ]
    assert columns([]) == []


def test_sizes_of_files() -> None:
    assert [size(count) for count in (0, 999, 1500, 2.5e6, 3e9, 4e12)] == [
        "0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB"
    ]  # fmt: skip
