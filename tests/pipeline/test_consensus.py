"""The consensus stage and command: on a run, on files, and what reads the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from sparsecode.cli import main
from sparsecode.comparison import Comparison
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting, RunInvalid
from sparsecode.pipeline.compare import compare_dicts, compare_files
from sparsecode.pipeline.consensus import consensus_of_files, load_consensus, make_consensus, write_files
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.science.toy.batches import ToyBatches
from sparsecode.science.toy.data import ToyData, ToySettings
from sparsecode.store import DatasetWriter

QUICK: dict[str, Any] = {"samples": 20_000, "eval_rows": 500}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with five seeds of one size over toy data in a dataset beside it, compared."""
    folder = tmp_path_factory.mktemp("trained")
    rows = ToyBatches(ToyData(ToySettings(dim=16, n_features=20, active=2.0, batch_size=64)), 64).sample(8192)
    with DatasetWriter(folder / "data", activation_dim=16, dtype="float32", provenance={"hook_point": "toy"}) as writer:
        writer.append(rows, torch.zeros(len(rows), dtype=torch.int32))
        writer.finish()
    settings: dict[str, Any] = {"samples": 120_000, "batch_size": 256, "lr": 2e-2, "l1": 3e-3, "eval_rows": 1024}
    train_dicts(folder / "run", sizes=[40], seeds=5, dataset=str(folder / "data"), quiet=True, **settings)
    compare_dicts(folder / "run", quiet=True)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "run", tmp_path / "run")
    return Run(tmp_path / "run")


def called(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_run_has_a_consensus_that_is_a_dictionary(run: Run) -> None:
    result = make_consensus(run, quiet=True, **QUICK)
    assert len(result["members"]) == 4 and result["held_out"] == ["n40_l1-0.003_s4"] and result["support"] == 3
    record = load_consensus(run)
    assert record is not None and record.name == result["dictionary"] == f"n{record.features}_support3"
    made = Dictionary.load(run.path / "consensus" / record.name)
    assert made.dict_size == record.features and made.meta["kind"] == "consensus"
    assert int(made.features["support"].min()) == 3 and made.meta["loss"]["frozen"] is True
    assert {one["name"] for one in made.meta["members"]} == set(result["members"])
    assert [row.what for row in record.quality][:2] == ["consensus", "consensus, averaged encoders"]
    assert {len(row.chance) for row in record.found_again} == {len(row.chance) for row in record.supports} == {3}
    # The same again does nothing; other settings are refused; what it was made from decides.
    before = run.consensus_path.read_bytes()
    make_consensus(run, quiet=True, **QUICK)
    assert run.consensus_path.read_bytes() == before
    compare_dicts(run, threshold=0.8, force=True, quiet=True)
    assert "compare changed since" in stale(run)["consensus"].reason


def test_the_command_prints_it_and_the_report_shows_it(run: Run) -> None:
    flags = ("--samples", "20000", "--eval-rows", "500")
    shown = called("consensus", "--run", run.path, *flags)
    assert shown.exit_code == 0, shown.output
    for words in ("held out: n40_l1-0.003_s4", "by atoms", "by data", "loss recovered", "Brier score"):
        assert words in shown.output
    printed = called("consensus", "--run", run.path, "--quiet", "--json", *flags)
    assert json.loads(printed.stdout) == json.loads(run.consensus_path.read_text())
    write_report(run, images=False, quiet=True)
    report = json.loads(run.report_path.with_suffix(".json").read_text())
    section = report["sections"]["consensus"]
    assert {"consensus-support", "consensus-quality", "consensus-found-again", "consensus-calibration"} <= set(section)
    assert "features are in 3 or more of 4 dictionaries" in report["summary"]["consensus"]


def test_files_give_the_same_dictionary_in_any_order(run: Run, trained: Path, tmp_path: Path) -> None:
    paths = [run.dictionaries_path / f"n40_l1-0.003_s{seed}" for seed in range(5)]
    results = []
    for number, order in enumerate((paths, paths[::-1])):
        out = tmp_path / f"out{number}" / "merged"
        out.parent.mkdir()
        made = consensus_of_files(order, dataset=str(trained / "data"), quiet=True, **QUICK)
        results.append([file.read_bytes() for file in write_files(made, out)])
    assert results[0] == results[1]
    with pytest.raises(InvalidSetting, match="is there already"):
        write_files(made, out)


def test_dictionaries_with_a_common_member_do_not_count_for_each_other(run: Run, tmp_path: Path) -> None:
    paths = [run.dictionaries_path / f"n40_l1-0.003_s{seed}" for seed in range(5)]
    made = []
    for name, several in (("one", paths[:3]), ("other", paths[2:])):
        write_files(consensus_of_files(several, refit="none", quiet=True), tmp_path / name)
        made.append(tmp_path / name)
    found = compare_files([*made, paths[0]], quiet=True)
    assert found.contents.akin is not None
    pairs = {(one.first, one.second): one.members for one in found.contents.akin}
    assert pairs == {("one", "other"): ["n40_l1-0.003_s2"], ("one", paths[0].name): [paths[0].name]}
    assert "agree by construction" in found.table().replace("\n", " ")
    assert float(found.tensors["one.stability"].max()) == 0  # every other one is akin
    cosine = found.cosine("other", paths[0].name) > 0.9
    assert torch.equal(found.tensors["other.stability"], cosine.float())
    again = tmp_path / "matches.json"
    found.save(again)
    assert Comparison.load(again).contents.akin == found.contents.akin


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dictionaries", "n99*"], "nothing in the run matches 'n99*'"),
        (["--dictionaries", "n40_l1-0.003_s0"], "is one dictionary"),
        (["--support", "9"], "support is 9"),
        (["--hold-out", "5"], "hold_out is 5"),
        (["--threshold", "0.99999999"], "lower --support or --threshold"),
        (["--out", "somewhere"], "goes with PATHs"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(run: Run, flags: list[str], words: str) -> None:
    result = called("consensus", "--run", run.path, "--quiet", *flags)
    assert result.exit_code in (2, 3) and words in result.output
    assert "Traceback" not in result.output


def test_files_without_activations_are_averaged_or_refused(run: Run) -> None:
    result = called("consensus", run.dictionaries_path, "--quiet")
    assert result.exit_code in (2, 3) and "--dataset" in result.output
    averaged = called("consensus", run.dictionaries_path, "--refit", "none", "--quiet", "--json")
    record = json.loads(averaged.stdout)
    assert averaged.exit_code == 0 and record["quality"] == [] and "refit" not in record


def test_a_broken_record_is_named(run: Run) -> None:
    make_consensus(run, quiet=True, refit="none", eval_rows=500)
    run.consensus_path.write_text("{}")
    with pytest.raises(RunInvalid, match=r"consensus\.json"):
        load_consensus(run)
