"""The train-dicts stage: its results, its planning, and that a stopped training ends in the same bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsecode import store
from sparsecode.errors import DatasetUnfit, InvalidSetting, SettingsDiffer, StageMissing, TrainingDiverged
from sparsecode.pipeline import training
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stage import StageWatch
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.sweep import Dictionary
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.sweep import Sweep
from stopping import Stopped, StoppingEngine, outcome

D, ROWS = 12, 4000
SMALL: dict[str, Any] = {
    "sizes": "16,24", "l1": "1e-2,3e-2", "batch_size": 128, "samples": 128 * 40, "warmup_steps": 8, "eval_rows": 500,
    "log_every": 7, "save_every": 5, "engine": "reference", "device": "cpu", "threads": 1, "quiet": True,
}  # fmt: skip


def write_dataset(path: Path, x: torch.Tensor, hook: str = "blocks.2.mlp.hook_post") -> store.Dataset:
    with store.DatasetWriter(
        path, activation_dim=x.shape[1], dtype="float32", provenance={"hook_point": hook}
    ) as writer:
        writer.append(x, np.arange(len(x), dtype=np.int32))
        return writer.finish()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sparse sums of 20 directions in 12 dimensions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    codes = torch.rand(ROWS, 20, generator=generator) * (torch.rand(ROWS, 20, generator=generator) < 0.1)
    path = tmp_path_factory.mktemp("data") / "dataset"
    write_dataset(path, codes @ directions + 0.1)
    return path


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    train_dicts(run, dataset=str(data), **SMALL)
    return outcome(run)


def test_dictionaries_metrics_and_result(data: Path, unbroken: dict[str, Any]) -> None:
    names = [f"n{size}_l1-{l1}_s0" for size in (16, 24) for l1 in ("0.01", "0.03")]
    assert sorted(unbroken["files"]) == sorted(name + ending for name in names for ending in (".json", ".safetensors"))
    result = unbroken["result"]
    assert (result["dictionaries"], result["diverged"], result["steps"], result["samples"]) == (names, [], 40, 5120)
    assert (result["eval_rows"], result["engine"], result["hook_point"]) == (500, "reference", "blocks.2.mlp.hook_post")
    about = json.loads(unbroken["files"][names[0] + ".json"])
    assert about["metrics"] == result["metrics"][names[0]]
    assert (about["samples_seen"], about["l1"], about["seed"]) == (5120, 0.01, 0)
    assert about["dataset_fingerprint"] == store.Dataset(data).fingerprint
    assert about["normalization"]["kind"] == "center"
    assert about["normalization"]["scale"] == pytest.approx(store.Dataset(data).statistics["variance"] ** 0.5)
    lines = unbroken["metrics"]
    assert sorted({line["step"] for line in lines}) == [7, 14, 21, 28, 35, 40]
    assert len(lines) == 6 * 4
    assert all(line["rows"] == (128 * 5 if line["step"] == 40 else 128 * 7) for line in lines)
    first, last = (next(line for line in order if line["dictionary"] == names[0]) for order in (lines, lines[::-1]))
    assert last["fvu"] < first["fvu"]
    assert last["lr_scale"] == pytest.approx(1 / 8)


def test_final_metrics_are_those_of_the_held_out_rows(data: Path, tmp_path: Path) -> None:
    result = train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"normalize": "center", "pre_bias": True})
    x = store.Dataset(data).read(ROWS - 500, ROWS)
    for name, values in result["metrics"].items():
        dictionary = Dictionary.load(tmp_path / "run" / "dictionaries" / name)
        z = dictionary.encode(x)
        error = (dictionary.decode(z) - x).double().square().sum()
        spread = (x.double() - x.double().mean(0)).square().sum()
        assert values["fvu"] == pytest.approx(float(error / spread), rel=1e-4)
        assert values["mse"] == pytest.approx(float(error / x.numel()) / dictionary.scale**2, rel=1e-4)
        assert values["l0"] == pytest.approx(float((z > 0).sum()) / 500)
        assert values["l1"] == pytest.approx(float(z.sum()) / 500, rel=1e-5)
        assert values["dead"] == int((dictionary.features["density"] == 0).sum())
        assert values["rows"] == 500
        torch.testing.assert_close(dictionary.features["density"], (z > 0).float().mean(0), atol=1e-6, rtol=0)
        moved = dictionary.features["initial_cosine"]
        assert moved.shape == (dictionary.dict_size,)
        assert 0 < moved.mean() < 0.9999


def test_training_never_reads_the_held_out_rows(data: Path, tmp_path: Path, unbroken: dict[str, Any]) -> None:
    x = store.Dataset(data).read(0, ROWS)
    x[ROWS - 500 :] = x[:500]
    write_dataset(tmp_path / "other", x)
    train_dicts(tmp_path / "run", dataset=str(tmp_path / "other"), **SMALL | {"normalize": "none"})
    train_dicts(tmp_path / "plain", dataset=str(data), **SMALL | {"normalize": "none"})
    name = unbroken["result"]["dictionaries"][0]
    found, expected = (Dictionary.load(tmp_path / run / "dictionaries" / name) for run in ("run", "plain"))
    assert torch.equal(found.W_dec, expected.W_dec)
    assert not torch.equal(found.features["density"], expected.features["density"])


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 14, 15, 33, 40])
@pytest.mark.parametrize("interrupt", [False, True], ids=["killed", "interrupted"])
def test_a_training_stopped_anywhere_resumes_to_the_same_bytes(
    data: Path, tmp_path: Path, unbroken: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stop: int, interrupt: bool
) -> None:
    run = tmp_path / "run"
    engine = StoppingEngine()
    engine.stop, engine.interrupt = stop, interrupt
    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_, **__: engine)
        with pytest.raises(KeyboardInterrupt if interrupt else Stopped):
            train_dicts(run, dataset=str(data), **SMALL)
    assert (run / "dictionaries" / "state.safetensors").exists() == (interrupt or stop > 5)
    train_dicts(run, dataset=str(data), **SMALL)
    assert outcome(run) == unbroken


def test_a_training_stopped_twice_resumes_to_the_same_bytes(
    data: Path, tmp_path: Path, unbroken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = StoppingEngine()
    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_, **__: engine)
        for engine.stop in (12, 29):
            with pytest.raises(Stopped):
                train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    assert outcome(tmp_path / "run") == unbroken


def test_a_killed_process_resumes_to_the_same_bytes(data: Path, tmp_path: Path, unbroken: dict[str, Any]) -> None:
    run, state = tmp_path / "run", tmp_path / "run" / "dictionaries" / "state.safetensors"
    slow = (
        "import sys, time, json\nfrom sparsecode import train_dicts\nfrom sparsecode.sweep import Trainer\n"
        "plain = Trainer.save\n"
        "def save(self):\n    plain(self)\n    time.sleep(0.05)\n"
        "Trainer.save = save\n"
        f"train_dicts({str(run)!r}, dataset={str(data)!r}, **json.loads(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow, json.dumps(SMALL)])
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.12)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert Run(run).config()["stages"]["train-dicts"]["status"] == "running"
    train_dicts(run, dataset=str(data), **SMALL)
    assert outcome(run) == unbroken


def test_what_is_done_is_not_done_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    capsys.readouterr()
    assert train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"log_every": 3, "quiet": False}) == first
    assert "already done" in capsys.readouterr().err
    with pytest.raises(SettingsDiffer, match="lr"):
        train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"lr": 0.1})
    again = train_dicts(tmp_path / "run", dataset=str(data), force=True, **SMALL | {"sizes": "8"})
    assert again["dictionaries"] == ["n8_l1-0.01_s0", "n8_l1-0.03_s0"]
    assert len(list((tmp_path / "run" / "dictionaries").iterdir())) == 4


def test_a_dictionary_trained_alone_has_the_bytes_it_has_in_a_sweep(
    data: Path, tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"sizes": "24", "l1": "3e-2"})
    for name, content in outcome(tmp_path / "run")["files"].items():
        assert content == unbroken["files"][name]


def test_minutes_plan_the_steps_and_a_resumed_run_keeps_the_plan(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, budget = tmp_path / "run", SMALL | {"samples": None, "minutes": 1.5 / 60}
    engine = StoppingEngine()
    plans: list[dict[str, Any]] = []

    def stop_after_plan(*_: Any, **__: Any) -> ReferenceEngine:
        return engine

    plain = StageWatch.planned

    def planned_and_stopped(self: StageWatch, **decisions: int) -> None:
        plain(self, **decisions)
        if "steps" in decisions:
            plans.append(decisions)
            engine.stop = (decisions["steps"] + decisions["planned_at"]) // 2

    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", stop_after_plan)
        patch.setattr(StageWatch, "planned", planned_and_stopped)
        with pytest.raises(Stopped):
            train_dicts(run, dataset=str(data), **budget)
    planned = Run(run).config()["stages"]["train-dicts"]["plan"]
    assert 0 < planned["l1_from"] < planned["l1_until"]
    assert {name: planned[name] for name in ("steps", "planned_at", "engine")} == plans[0] | {"engine": "reference"}
    result = train_dicts(run, dataset=str(data), **budget)
    assert result["steps"] == planned["steps"] > planned["planned_at"] > 0
    # A run that knew the plan from its start ends in the same bytes.
    other = tmp_path / "other"
    record = Run(run).config()
    stage = record["stages"]["train-dicts"]
    stage |= {"status": "running"}
    other.mkdir()
    (other / "config.json").write_text(json.dumps(record))
    train_dicts(other, dataset=str(data), **budget)
    assert outcome(other)["files"] == outcome(run)["files"]


@pytest.mark.parametrize("start", ["atoms", "linear"])
def test_dictionaries_say_how_they_started(data: Path, tmp_path: Path, start: str, unbroken: dict[str, Any]) -> None:
    about = json.loads(unbroken["files"]["n24_l1-0.01_s0.json"])["training"]
    assert about["start"] == {
        "kind": "calibrated", "encoder_norm": 0.5 ** (1 / 3), "density": 0.05, "whitening": 0.5,
    }  # fmt: skip
    assert about["l1_steps"] == 12
    lines = [line for line in unbroken["metrics"] if line["dictionary"] == "n24_l1-0.01_s0"]
    assert [line["l1_factor"] for line in lines] == pytest.approx([7 / 12, 1, 1, 1, 1, 1])
    train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"sizes": "24", "start": start, "l1_warmup": 0.0})
    other = Dictionary.load(tmp_path / "run" / "dictionaries" / "n24_l1-0.01_s0")
    assert other.meta["training"]["start"] == {"kind": start}
    assert other.features["initial_cosine"].mean() > 0.5


def test_a_diverged_dictionary_is_left_out_and_named(data: Path, tmp_path: Path) -> None:
    result = train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"l1": "1e-2,1e41", "l1_warmup": 0.0})
    assert result["diverged"] == ["n16_l1-1e+41_s0", "n24_l1-1e+41_s0"]
    assert result["dictionaries"] == ["n16_l1-0.01_s0", "n24_l1-0.01_s0"]
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    with pytest.raises(TrainingDiverged, match="lower --lr"):
        train_dicts(tmp_path / "none", dataset=str(data), **SMALL | {"l1": "1e41", "l1_warmup": 0.0})


def test_an_atom_that_lost_its_direction_has_diverged_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with a rate of 1e20: the norm overflows, and what is divided by it is zero.
    step = ReferenceEngine.step

    def overflows(self: ReferenceEngine, sweep: Sweep, *args: Any, **kwargs: Any) -> StepStats:
        stats = step(self, sweep, *args, **kwargs)
        sweep.W_dec[3] = 0
        return stats

    monkeypatch.setattr(ReferenceEngine, "step", overflows)
    result = train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    assert result["diverged"] == ["n16_l1-0.01_s0"]
    assert result["dictionaries"] == ["n16_l1-0.03_s0", "n24_l1-0.01_s0", "n24_l1-0.03_s0"]


def test_epochs_and_short_runs(data: Path, tmp_path: Path) -> None:
    result = train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"epochs": 2.0, "sizes": "4", "l1": "0.01"})
    assert result["steps"] == round(2 * 3500 / 128)
    result = train_dicts(tmp_path / "short", dataset=str(data), **SMALL | {"samples": 1, "sizes": "4", "l1": "0.01"})
    assert result["steps"] == 1


def test_hook_points_of_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(StageMissing, match="run: sparsecode harvest --run"):
        train_dicts(run, **SMALL)
    stages = {}
    for hook in ("blocks.0.hook_resid_post", "blocks.2.mlp.hook_post"):
        write_dataset(run.activations_path / hook, torch.randn(500, D), hook)
        stages[f"harvest/{hook}"] = {"status": "done", "settings": {}, "inputs": {}, "result": {}}
    run.config_path.write_text(json.dumps({"format": 1, "stages": stages}))
    with pytest.raises(InvalidSetting, match=r"add --hook, one of blocks\.0"):
        train_dicts(run, **SMALL)
    assert train_dicts(run, **SMALL | {"hook": "blocks.0.hook_resid_post"})["eval_rows"] == 125
    with pytest.raises(StageMissing, match=r"harvest --hook blocks\.9"):
        train_dicts(run, **SMALL | {"hook": "blocks.9.mlp.hook_post"})


def test_a_dictionary_that_is_gone_is_trained_again(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train_dicts(run, dataset=str(data), **SMALL)
    file = run / "dictionaries" / f"{first['dictionaries'][-1]}.safetensors"
    before = file.read_bytes()
    file.unlink()
    assert train_dicts(run, dataset=str(data), **SMALL) == first
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [({"lr": 0.0}, "--lr"), ({"l1_warmup": 1.5}, "--l1-warmup"), ({"initial_density": "2"}, "initial-density"),
     ({"encoder_norm": "long"}, "encoder-norm"),
     ({"batch_size": 0}, "--batch-size"), ({"decay_fraction": 1.5}, "--decay-fraction"),
     ({"minutes": 0.0}, "--minutes"), ({"seeds": 0}, "--seeds"), ({"sizes": "x"}, "sizes"),
     ({"engine": "abacus"}, "engine 'abacus'"), ({"seed": 1 << 64}, "--seed"),
     ({"batch_size": 1 << 44}, "GB of memory")],
)  # fmt: skip
def test_bad_settings_are_named_and_leave_no_dictionary(
    data: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        train_dicts(tmp_path / "run", dataset=str(data), **SMALL | change)
    assert not (tmp_path / "run" / "dictionaries").exists()
    assert not (tmp_path / "run" / "config.json").exists()


def test_data_without_spread_or_rows_are_named(tmp_path: Path) -> None:
    for name, x, message in (("flat", torch.ones(100, D), "all rows are equal"), ("few", torch.randn(3, D), "too few")):
        write_dataset(tmp_path / name, x)
        with pytest.raises(DatasetUnfit, match=message):
            train_dicts(tmp_path / f"run-{name}", dataset=str(tmp_path / name), **SMALL)


def test_a_dataset_that_is_not_finished_is_named(tmp_path: Path) -> None:
    provenance = {"hook_point": "h"}
    with store.DatasetWriter(tmp_path / "d", activation_dim=D, dtype="float32", provenance=provenance) as writer:
        writer.append(torch.randn(500, D), np.arange(500, dtype=np.int32))
    with pytest.raises(DatasetUnfit, match="not finished"):
        train_dicts(tmp_path / "run", dataset=str(tmp_path / "d"), **SMALL)
