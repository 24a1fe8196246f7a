"""The toy stage: its measures against slow ones, resuming, and the command."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsecode.checkpoint import load_tensors
from sparsecode.cli import main
from sparsecode.errors import InvalidSetting, RunInvalid, SettingsDiffer, TrainingDiverged
from sparsecode.pipeline import training
from sparsecode.pipeline.config import ToyConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.plan import entries
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.toy import data_settings, load_toy, toy_models
from sparsecode.report.page import render
from sparsecode.report.sections.toy import MAPS, toy_section
from sparsecode.science.toy.data import ToyData
from sparsecode.science.toy.measures import against_truth, next_larger
from sparsecode.sweep import Dictionary, Sweep, Trainer, initial_atoms
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.cpu import CpuEngine

TINY = ToyConfig(
    dim=16, true_features=24, active=2.0, draw_rows=64, sizes="12,24,48", l1="2e-3,2e-2", steps=60,
    batch_size=128, lr=2e-2, warmup_steps=5, eval_rows=1000, log_every=20, save_every=25, save_dictionaries=True,
    threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    run = Run(tmp_path_factory.mktemp("toy") / "run")
    toy_models(run, TINY, quiet=True)
    record = load_toy(run)
    assert record is not None
    return run, record


def fresh_rows() -> tuple[ToyData, torch.Tensor]:
    """The evaluation's rows, made without the stage."""
    data = ToyData(data_settings(TINY))
    return data, torch.cat([data.batch((1 << 40) + i) for i in range(16)])[:1000]


def test_every_measure_equals_a_slow_one(made: tuple[Run, dict[str, Any]]) -> None:
    run, record = made
    data, x = fresh_rows()
    truth = data.features.double()
    spread = float((x - x.mean(0)).double().square().sum())
    kept = {row["name"]: Dictionary.load(run.path / "toy/dictionaries" / row["name"]) for row in record["dictionaries"]}
    assert len(kept) == 6
    for row in record["dictionaries"]:
        own = kept[row["name"]]
        atoms = own.W_dec.double()
        cosines = [[float(t @ a) for a in atoms] for t in truth]
        best = [max(line) for line in cosines]
        assert row["mmcs_truth"] == pytest.approx(sum(best) / len(best), abs=1e-5)
        assert row["recovered"] == sum(value > 0.9 for value in best)
        back = [max(line[j] for line in cosines) for j in range(len(atoms))]
        assert row["mmcs_atoms_to_truth"] == pytest.approx(sum(back) / len(back), abs=1e-5)
        assert row["true_atoms"] == sum(value > 0.9 for value in back)
        codes = own.encode(x)
        assert row["dead"] == int((codes.amax(dim=0) == 0).sum())
        assert row["l0"] == pytest.approx(float((codes > 0).sum()) / len(x), rel=1e-3)
        assert row["fvu"] == pytest.approx(float((own.decode(codes) - x).double().square().sum()) / spread, rel=1e-4)
        if "larger" in row:
            other = kept[row["larger"]].W_dec.double()
            table = (atoms @ other.T).numpy()
            assert row["mmcs_larger"] == pytest.approx(table.max(axis=1).mean(), abs=1e-5)
            pairs = linear_sum_assignment(table, maximize=True)
            assert row["matched_mmcs_larger"] == pytest.approx(table[pairs].mean(), abs=1e-5)
            assert row["matched_mmcs_larger"] <= row["mmcs_larger"] + 1e-6
    assert [row.get("larger") for row in record["dictionaries"]].count(None) == 2, "the largest have none"


def test_files_say_the_same(made: tuple[Run, dict[str, Any]]) -> None:
    run, record = made
    lines = list(csv.DictReader((run.path / "toy/measures.csv").read_text().splitlines()))
    assert [line["name"] for line in lines] == [row["name"] for row in record["dictionaries"]]
    for line, row in zip(lines, record["dictionaries"], strict=True):
        for name in ("l1", "mmcs_truth", "dead", "fvu", "l0"):
            assert float(line[name]) == row[name]
        assert float(line["mmcs_truth_low"]) == row["mmcs_truth_interval"][0]
    recovery, _ = load_tensors(run.path / "toy/recovery.safetensors")
    assert float(recovery[lines[0]["name"]].double().mean()) == pytest.approx(float(lines[0]["mmcs_truth"]))
    data, _ = fresh_rows()
    truth = Dictionary.load(run.path / "toy/truth")
    assert torch.equal(truth.W_dec, data.features)
    assert float(truth.features["density"].sum()) == pytest.approx(record["true_l0"], rel=1e-5)


def test_training_teaches_something(made: tuple[Run, dict[str, Any]]) -> None:
    low, high = made[1]["dictionaries"][2::2], made[1]["dictionaries"][3::2]
    assert all(row["mmcs_truth"] > row["mmcs_truth_start"] + 0.1 for row in low)
    assert all(weak["l0"] > strong["l0"] for weak, strong in zip(low, high, strict=True))


def digests(run: Run) -> dict[str, str]:
    files = sorted(file for file in (run.path / "toy").rglob("*") if file.is_file())
    found = {str(file.relative_to(run.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return found | {"metrics": str(run.metrics("toy"))}


@pytest.mark.parametrize("at", [25, 37])
def test_a_killed_run_ends_byte_for_byte_as_an_unbroken_one(
    made: tuple[Run, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole, broken = digests(made[0]), Run(tmp_path / "run")

    class Killed(CpuEngine):
        def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
            found = super().step(sweep, x, lr_scale, l1_factor)
            if sweep.step == at + 1:
                raise RuntimeError("killed")
            return found

    with monkeypatch.context() as patch:
        patch.setattr(training, "choose_engine", lambda *_, **__: Killed(threads=1))
        with pytest.raises(RuntimeError, match="killed"):
            toy_models(broken, TINY, quiet=True)
    assert (broken.path / "toy/state.safetensors").is_file()
    assert load_toy(broken) is None
    starts: list[int] = []
    real = Trainer.train

    def train(self: Trainer) -> None:
        starts.append(self.step)
        real(self)

    monkeypatch.setattr(Trainer, "train", train)
    toy_models(broken, TINY, quiet=True)
    assert starts == [25], "from the saved state, not from the start"
    assert digests(broken) == whole


def test_what_is_done_is_not_done_again(made: tuple[Run, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(made[0])
    assert toy_models(made[0], TINY)["best"] == max(made[1]["dictionaries"], key=lambda row: row["mmcs_truth"])["name"]
    assert "already done" in capsys.readouterr().err
    assert digests(made[0]) == before
    with pytest.raises(SettingsDiffer, match="steps 60, not 61"):
        toy_models(made[0], TINY, steps=61, quiet=True)


def test_a_record_that_is_gone_is_made_again(made: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    run = Run(tmp_path / "copy")
    shutil.copytree(made[0].path, run.path)
    before = digests(run)
    (run.path / "toy" / "toy.json").unlink()
    toy_models(run, TINY, quiet=True)
    assert digests(run) == before


def test_a_budget_of_minutes_ends_in_time_and_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    found = toy_models(run, TINY, minutes=0.01, steps=1_000_000, quiet=True)
    assert 1 < found["steps"] < 1_000_000
    assert run.config()["stages"]["toy"]["plan"]["steps"] == found["steps"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"batch_size": 100}, "multiple of --draw-rows"),
        ({"active": 24.0}, "--active"),
        ({"sizes": "large"}, "sizes"),
        ({"l1": "-1"}, "l1"),
        ({"dim": 1}, "--dim"),
        ({"lr": 0.0}, "--lr"),
        ({"decay_fraction": 2.0}, "--decay-fraction"),
        ({"threshold": 1.0}, "--threshold"),
        ({"engine": "steam"}, "steam"),
        ({"blocks": 3, "block_rank": 12, "dim": 36}, "--blocks 3 of --block-rank 12 do not fit"),
    ],
)
def test_settings_that_cannot_be_used_are_named_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidSetting, match=named):
        toy_models(tmp_path / "run", TINY, quiet=True, **settings)
    assert not (tmp_path / "run").exists()


def test_dictionaries_that_ran_into_nan_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer.train

    def spoil(self: Trainer) -> None:
        real(self)
        for k in spoiled:
            self.sweep.W_dec[self.sweep.rows(k)] = torch.nan

    monkeypatch.setattr(Trainer, "train", spoil)
    spoiled = [2]
    result = toy_models(tmp_path, TINY, steps=3, quiet=True)
    assert result["diverged"] == ["n24_l1-0.002_s0"] and len(result["dictionaries"]) == 5
    record = load_toy(Run(tmp_path))
    assert record is not None
    assert record["dictionaries"][2].get("mmcs_truth") is None
    assert record["dictionaries"][0]["larger"] == "n48_l1-0.002_s0", "the next larger one that is whole"
    render("t", "s", [toy_section(record)])
    spoiled = list(range(6))
    with pytest.raises(TrainingDiverged, match="lower --lr"):
        toy_models(tmp_path / "all", TINY, steps=3, quiet=True)


def test_a_broken_record_is_named(made: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    run = Run(tmp_path)
    with open_stage(run, "toy", TINY) as stage:
        stage.finish({})
    for text in ("", "{}", '{"format": 9, "dictionaries": []}'):
        (tmp_path / "toy").mkdir(exist_ok=True)
        (tmp_path / "toy/toy.json").write_text(text)
        with pytest.raises(RunInvalid, match="sparsecode toy --force"):
            load_toy(run)
    assert load_toy(Run(tmp_path / "none")) is None


def test_sizes_are_multiples_of_the_true_features() -> None:
    config = ToyConfig()
    assert sorted({size for size, _, _ in entries(config, config.dim)}) == [64, 128, 256, 512, 1024, 2048]
    paper = config.changed(sizes="0.125x-32x", l1="1e-2:1e2:17")
    keys = entries(paper, paper.dim)
    assert len(keys) == 9 * 17 and max(size for size, _, _ in keys) == 16_384
    values = sorted({kind.l1 or 0.0 for _, kind, _ in keys})
    assert all(b / a == pytest.approx(10**0.25) for a, b in pairwise(values))


def test_the_truth_itself_is_found_and_a_start_is_not() -> None:
    truth = ToyData(data_settings(ToyConfig())).features
    start = initial_atoms(512, 1e-3, 0, 256)
    turned = torch.nn.functional.normalize(truth[torch.randperm(512)] + 1e-4 * start)
    found, cosines = against_truth(truth, turned, start, 0.9)
    assert found["mmcs_truth"] > 0.999 and found["recovered"] == 512 == found["true_atoms"]
    assert cosines.shape == (512,)
    # The largest of 512 cosines of random directions in 256 dimensions is near sqrt(2 ln 512 / 256) = 0.22, below it.
    assert 0.17 < found["mmcs_truth_start"] < 0.22
    half, _ = against_truth(truth, truth[:256], start[:256], 0.9)
    assert half["recovered"] == 256 and half["mmcs_atoms_to_truth"] == pytest.approx(1, abs=1e-6)


def test_next_larger_stays_within_l1_and_seed() -> None:
    keys = [(8, 0.1, 0), (16, 0.1, 0), (64, 0.1, 0), (8, 0.2, 0), (16, 0.1, 1)]
    assert next_larger(keys) == {(8, 0.1, 0): (16, 0.1, 0), (16, 0.1, 0): (64, 0.1, 0)}


def test_the_section_shows_what_the_record_holds(made: tuple[Run, dict[str, Any]]) -> None:
    record = made[1]
    section = toy_section(record)
    assert section.claim is not None and section.claim.verdict.verdict == record["verdict"]["verdict"]
    figures = {block.id: block for block in section.blocks}
    assert set(figures) == {*(each.id for each in MAPS), "toy-sign"}
    page = render("Toy", "s", [section])
    for each in MAPS:
        rows = section.as_json()[each.id]["rows"]
        assert [row["L1"] for row in rows] == [2e-3, 2e-2]
        for row in record["dictionaries"]:
            assert rows[[2e-3, 2e-2].index(row["l1"])][str(row["dict_size"])] == row.get(each.name)
        assert f'id="{each.id}"' in page


def test_the_command_alone_makes_a_page(tmp_path: Path) -> None:
    arguments = ["toy", "--preset", "smoke", "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "run/toy/report.html").read_text()
    assert "Toy models" in page and "default-src 'none'" in page
    again = CliRunner().invoke(main, [*arguments, "--json", "--quiet"])
    record = json.loads(again.stdout)
    assert record == load_toy(Run(tmp_path / "run"))
    assert record["verdict"]["number"] in done.stdout
    assert max(row["mmcs_truth"] for row in record["dictionaries"]) > 0.75
