"""Every kind of dictionary through train-dicts and what reads its files: comparison, report, info, conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sparsecode import store
from sparsecode.cli import main
from sparsecode.errors import InvalidSetting
from sparsecode.interop import load_dictionary
from sparsecode.pipeline import training
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.sweep import Dictionary, fit
from stopping import Stopped, StoppingEngine, outcome

D, ROWS = 12, 4000
KINDS = (
    "relu", "topk k=3 aux=1/32 dead_after=500", "batchtopk k=2,4", "matryoshka k=3 groups=1/4,3/4", "jumprelu l0=3",
    "gated l1=0.03", "panneal l1=0.03 changes=2",
)  # fmt: skip
SMALL: dict[str, Any] = {
    "sizes": "16,24", "l1": "3e-2", "kind": KINDS, "batch_size": 128, "samples": 128 * 40, "warmup_steps": 8,
    "eval_rows": 500, "log_every": 7, "save_every": 5, "device": "cpu", "threads": 1, "quiet": True, "seeds": 2,
    "engine": "reference",
}  # fmt: skip
FLAGS = ["--engine", "reference", "--samples", "1280", "--batch-size", "128", "--eval-rows", "500", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sparse sums of 20 directions in 12 dimensions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    codes = torch.rand(ROWS, 20, generator=generator) * (torch.rand(ROWS, 20, generator=generator) < 0.1)
    path = tmp_path_factory.mktemp("data") / "dataset"
    with store.DatasetWriter(
        path, activation_dim=D, dtype="float32", provenance={"hook_point": "blocks.2.mlp.hook_post"}
    ) as writer:
        writer.append(codes @ directions + 0.1, np.arange(ROWS, dtype=np.int32))
        writer.finish()
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds, trained and compared."""
    path = tmp_path_factory.mktemp("kinds") / "run"
    train_dicts(path, dataset=str(data), **SMALL)
    called(["compare", "--run", str(path), "--quiet"])
    return path


def called(arguments: list[str], code: int = 0) -> str:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == code, found.output
    return found.output


def test_every_kind_trains_and_its_files_say_what_it_is(run: Path) -> None:
    result = Run(run).config()["stages"]["train-dicts"]["result"]
    assert len(result["dictionaries"]) == 2 * 2 * 8
    assert "n16_l1-0.03_s0" in result["dictionaries"]
    batch = Dictionary.load(run / "dictionaries" / "n24_batchtopk-4_s1")
    assert (batch.activation.name, batch.activation.settings) == ("batchtopk", {"k": 4})
    assert float(batch.activation.tensors["threshold"].min()) > 0
    assert batch.meta["kind"] == "batchtopk k=4"
    assert "l1" not in batch.meta
    names = {Dictionary.load(run / "dictionaries" / name).activation.name for name in result["dictionaries"]}
    assert names == {"relu", "topk", "batchtopk", "jumprelu", "gated"}
    for name, found in result["metrics"].items():
        assert found["fvu"] < 1, name
        if "topk" in name:
            assert 0 < found["l0"] < 8, name


@pytest.mark.parametrize("stop", [3, 17, 29])
def test_a_stopped_training_of_all_kinds_resumes_to_the_same_bytes(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Step 17 is in the window before p changes for the first time."""
    engine = StoppingEngine()
    engine.stop = stop
    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_, **__: engine)
        with pytest.raises(Stopped):
            train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    train_dicts(tmp_path / "run", dataset=str(data), **SMALL)
    own, whole = outcome(tmp_path / "run"), outcome(run)
    assert own["metrics"] == [row for row in whole["metrics"] if row["stage"] == "train-dicts"]
    weights = [name for name in own["files"] if name.endswith(".safetensors")]
    assert len(weights) == 32
    for name in weights:
        with_stability = Dictionary.load(run / "dictionaries" / name)
        again = Dictionary.load(tmp_path / "run" / "dictionaries" / name)
        assert again.activation == with_stability.activation
        assert all(torch.equal(value, with_stability.tensors[key]) for key, value in again.tensors.items())


def test_a_relu_dictionary_has_the_bytes_it_has_among_others(data: Path, run: Path, tmp_path: Path) -> None:
    train_dicts(tmp_path / "run", dataset=str(data), **SMALL | {"kind": (), "sizes": "24", "seeds": 1})
    (name,) = Run(tmp_path / "run").config()["stages"]["train-dicts"]["result"]["dictionaries"]
    alone, among = (Dictionary.load(folder / "dictionaries" / name) for folder in (tmp_path / "run", run))
    assert all(torch.equal(value, among.tensors[key]) for key, value in alone.tensors.items())
    assert "kind" not in alone.meta
    settings = Run(tmp_path / "run").config()["stages"]["train-dicts"]["settings"]
    assert not {"kind", "k", "l0", "window", "groups", "aux"} & settings.keys()


def test_comparison_report_and_info_know_kinds(data: Path, run: Path) -> None:
    compared = json.loads((run / "comparison.json").read_text())
    entry = next(one for one in compared["dictionaries"] if one["name"] == "n16_batchtopk-4_s0")
    assert entry["next"]["dictionary"] == "n24_batchtopk-4_s0"
    assert entry["other_seed"]["dictionary"] == "n16_batchtopk-4_s1"
    write_report(run, images=False, quiet=True)
    told = json.loads((run / "report.json").read_text())["sections"]["kinds"]
    rows = told["kinds"]["rows"]
    assert len(rows) == 2 * 7
    assert {row["size"] for row in rows} == {16, 24}
    assert all(row["found again"] is not None and row["FVU"] < 1 for row in rows)
    output = called(["info", str(run)])
    assert output.index("n16_l1-0.03_s0") < output.index("n16_batchtopk-2_s0") < output.index("n16_batchtopk-4_s0")
    assert "trained_as: gated l1=0.03" in called(["info", str(run / "dictionaries" / "n16_gated-0.03_s0")])
    needs = called(["info", str(data), "--sizes", "64", "--kind", "batchtopk k=2,4", "--kind", "gated", "--seeds", "1"])
    assert "sweep of 3 dictionaries at width 12" in needs


@pytest.mark.parametrize("to", ["saelens", "dictionary_learning"])
def test_every_kind_converts_and_encodes_the_same(run: Path, tmp_path: Path, to: str) -> None:
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    for name in ("topk-3-aux0.0312-deadafter500", "batchtopk-4", "matryoshka-3-groups1of4+3of4", "jumprelu-3",
                 "gated-0.03", "panneal-0.03-changes2"):  # fmt: skip
        own = run / "dictionaries" / f"n24_{name}_s0"
        called(["convert", str(own), str(tmp_path / name), "--to", to])
        again = load_dictionary(tmp_path / name)
        here = Dictionary.load(own)
        torch.testing.assert_close(again.encode(x), here.encode(x), rtol=1e-4, atol=1e-5)


def test_short_forms_are_kinds(data: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    short = ["--kind", "topk", "--kind", "relu", "--k", "2,4", "--sizes", "16", "--l1", "0.02", "--seeds", "1"]
    called(["train-dicts", "--run", run, "--dataset", str(data), *short, *FLAGS])
    record = Run(tmp_path / "run").config()["stages"]["train-dicts"]
    assert sorted(record["result"]["dictionaries"]) == ["n16_l1-0.02_s0", "n16_topk-2_s0", "n16_topk-4_s0"]
    assert (record["settings"]["kind"], record["settings"]["k"]) == (["topk", "relu"], "2,4")
    anew = ["train-dicts", "--run", run, "--force", "--kind", "jumprelu l0=3", "--window", "0.1"]
    called([*anew, *FLAGS])
    settings = Run(tmp_path / "run").config()["stages"]["train-dicts"]["settings"]
    assert (settings["kind"], settings["window"], "k" in settings) == (["jumprelu l0=3"], "0.1", False)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--kind", "topk", "--k", "2", "--l0", "3"], "topk knows no l0; it knows k, groups, aux"),
        (["--kind", "topk k=2", "--l1", "0.1"], "topk knows no l1"),
        (["--k", "2"], "relu knows no k; it knows l1, groups"),
        (["--kind", "batchtopk"], "batchtopk needs k"),
        (["--kind", "batchtopk k=17"], "k is more than the 16 features"),
        (["--kind", "jumprelu l0=3", "--window", "wide"], "jumprelu window=wide: 'wide' is not a number"),
        (["--kind", "batchtopk k=2", "--kind", "batchtopk k=2"], "'batchtopk k=2' is given twice"),
        (["--kind", "lista"], "kind 'lista' is unknown; known: relu, topk"),
        (["--kind", "panneal", "--samples", "1280"], "p cannot fall 9 times between steps 1 and 9"),
    ],
)
def test_what_a_kind_does_not_know_is_one_line_that_names_it(
    data: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    run = str(tmp_path / "run")
    told = called(["train-dicts", "--run", run, "--dataset", str(data), "--sizes", "16", *FLAGS, *flags], code=2)
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "dictionaries").exists()


def test_auto_says_in_one_line_that_the_reference_trains(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARSECODE_ENGINE", raising=False)
    flags = ["--kind", "relu groups=1/2,1/2", "--sizes", "16", *FLAGS[2:-1]]
    told = called(["train-dicts", "--run", str(tmp_path), "--dataset", str(data), *flags])
    engine = Run(tmp_path).config()["stages"]["train-dicts"]["result"]["engine"]
    assert ("the reference engine does, more slowly" in told) == (engine == "reference")


def test_fit_takes_kinds() -> None:
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    made = fit(x, [16], kinds=["batchtopk k=2,4", "gated"], l1=0.02, samples=20_000, batch_size=100, engine="reference")
    assert [one.meta["kind"] for one in made] == ["batchtopk k=2", "batchtopk k=4", "gated l1=0.02"]
    assert [one.activation.name for one in made] == ["batchtopk", "batchtopk", "gated"]
    with pytest.raises(InvalidSetting, match="topk knows no l0"):
        fit(x, [16], kinds="topk k=2 l0=3")
