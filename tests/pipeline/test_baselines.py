"""The baselines stage on a small dataset, alone and beside trained dictionaries."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sparsecode import store
from sparsecode.cli import main
from sparsecode.comparison import load_members
from sparsecode.comparison.members import place
from sparsecode.errors import DatasetUnfit, InvalidSetting, RunInvalid, SettingsDiffer, StageMissing
from sparsecode.pipeline.baselines import fit_baselines, load_baselines
from sparsecode.pipeline.compare import compare_files
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.report.page import render
from sparsecode.report.sections.baselines import baselines_section
from sparsecode.science.baselines.kinds import BASELINES, OF_WEIGHTS
from sparsecode.sweep import Dictionary

D, ROWS, HELD_OUT = 12, 3000, 500
SMALL: dict[str, Any] = {"nmf_iterations": 30, "iterative_rows": 1500, "curve_rows": 300, "eval_rows": HELD_OUT}


def write_dataset(path: Path, rows: int = ROWS) -> store.Dataset:
    """Sparse sums of 20 directions; the held-out rows are shifted, so that using others shows."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    codes = torch.rand(rows, 20, generator=generator) * (torch.rand(rows, 20, generator=generator) < 0.15)
    x = codes @ directions
    x[rows - HELD_OUT :] += 0.5
    provenance = {"hook_point": "blocks.2.mlp.hook_post"}
    with store.DatasetWriter(path, activation_dim=D, dtype="float32", provenance=provenance) as writer:
        writer.append(x, np.arange(rows, dtype=np.int32))
        return writer.finish()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, store.Dataset, dict[str, Any]]:
    """A run with a dataset, two trained dictionaries and baselines."""
    folder = tmp_path_factory.mktemp("baselines")
    dataset = write_dataset(folder / "data")
    run = Run(folder / "run")
    train_dicts(
        run, dataset=str(folder / "data"), sizes="16,24", l1="1e-2", batch_size=128, samples=128 * 40, warmup_steps=8,
        eval_rows=HELD_OUT, engine="reference", device="cpu", threads=1, quiet=True,
    )  # fmt: skip
    fit_baselines(run, dataset=str(folder / "data"), quiet=True, **SMALL)
    record = load_baselines(run)
    assert record is not None
    return run, dataset, record


WITHOUT_A_MODEL = [name for name in BASELINES if name not in OF_WEIGHTS]
Made = tuple[Run, store.Dataset, dict[str, Any]]


def test_each_is_a_dictionary_measured_on_the_held_out_rows(made: Made) -> None:
    run, dataset, record = made
    x = dataset.read(ROWS - HELD_OUT, ROWS)
    spread = float((x - x.mean(0)).double().square().sum())
    assert [row["name"] for row in record["baselines"]] == WITHOUT_A_MODEL
    for row in record["baselines"]:
        own = Dictionary.load(run.path / "baselines" / row["name"])
        assert own.meta["kind"] == row["name"]
        assert own.meta["dataset_fingerprint"] == dataset.fingerprint
        codes = own.encode(x)
        error = float((own.decode(codes) - x).double().square().sum())
        assert row["fvu"] == pytest.approx(error / spread, rel=1e-4, abs=1e-9)
        assert row["l0"] == pytest.approx(float((codes > 0).sum()) / HELD_OUT, rel=1e-3)
        assert own.meta["metrics"]["fvu"] == row["fvu"] and row["rows"] == HELD_OUT
        torch.testing.assert_close(own.features["density"], (codes > 0).float().mean(0))
    # Fitted on the other rows: their mean is not that of the rows that were held out.
    centre = Dictionary.load(run.path / "baselines/pca").mean
    assert centre is not None and float((x.mean(0) - centre).mean()) == pytest.approx(0.5, abs=0.05)


def test_similarities_are_those_of_the_atoms(made: Made) -> None:
    run, _, record = made
    atoms = {row["name"]: Dictionary.load(run.path / "baselines" / row["name"]).W_dec for row in record["baselines"]}
    trained = {row["name"]: Dictionary.load(run.dictionaries_path / row["name"]) for row in record["trained"]}
    assert len(trained) == 2
    for row in record["trained"]:
        own = trained[row["name"]]
        live = own.features["density"] > 0
        for kind, found in row["against"].items():
            table = own.W_dec @ atoms[kind].T
            assert found["mmcs"] == pytest.approx(float(table.amax(1).mean()), abs=1e-5)
            assert found["live_mmcs"] == pytest.approx(float(table.amax(1)[live].mean()), abs=1e-5)
            assert found["mmcs_back"] == pytest.approx(float(table.amax(0).mean()), abs=1e-5)
            assert found["above"] == int((table.amax(1) > 0.9).sum())
    neurons = record["baselines"][0]
    assert "neurons" not in neurons["against"]
    assert neurons["against"]["identity"]["mmcs"] == pytest.approx(1, abs=1e-6)
    assert neurons["against"]["identity"]["mmcs_back"] == pytest.approx(0.5, abs=1e-6), "the other sign is orthogonal"


def test_compare_takes_them_and_makes_no_family_of_them(made: Made) -> None:
    run, _, record = made
    paths = [
        run.path / "baselines/ica",
        run.path / "baselines/nmf",
        run.dictionaries_path / record["trained"][0]["name"],
    ]
    members = load_members(paths)
    assert all(place(members, k).next is None for k in range(3)), "PCA is no larger ICA"
    found = compare_files(paths, quiet=True)
    assert found.cosine("ica", "nmf").double().mean() == pytest.approx(
        next(row for row in record["baselines"] if row["name"] == "ica")["against"]["nmf"]["mmcs"], abs=1e-5
    )


def test_csv_has_a_line_for_each(made: Made) -> None:
    run, _, record = made
    lines = list(csv.DictReader((run.path / "baselines/measures.csv").read_text().splitlines()))
    assert [line["name"] for line in lines] == WITHOUT_A_MODEL
    for line, row in zip(lines, record["baselines"], strict=True):
        assert float(line["fvu"]) == row["fvu"]
        assert float(line["fvu_top4"]) == next(p["fvu"] for p in row["curve"] if p["codes"] == 4)


def test_the_same_seed_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    run, dataset, _ = made
    other = Run(tmp_path)
    fit_baselines(other, dataset=str(dataset.path), quiet=True, **SMALL)
    for kind in WITHOUT_A_MODEL:
        file = f"baselines/{kind}.safetensors"
        assert (other.path / file).read_bytes() == (run.path / file).read_bytes()
    alone = load_baselines(other)
    assert alone is not None and alone["trained"] == []
    assert baselines_section(alone).summary == ""
    render("t", "s", [baselines_section(alone)])


def test_done_is_done_and_new_dictionaries_are_told(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run, dataset, _ = made
    fit_baselines(run, dataset=str(dataset.path), **SMALL)
    assert "already done" in capsys.readouterr().err
    with pytest.raises(SettingsDiffer, match="seed 0, not 1"):
        fit_baselines(run, dataset=str(dataset.path), seed=1, **SMALL)


def test_the_section_says_what_the_record_holds(made: Made) -> None:
    record = made[2]
    section = baselines_section(record)
    assert section.summary.startswith("Of the baselines, ")
    found = section.as_json()
    assert [row["features"] for row in found["baselines-table"]["rows"]] == [
        r["dict_size"] for r in record["baselines"]
    ]
    cells = {row["from"]: row for row in found["baselines-mmcs"]["rows"]}
    assert cells["PCA"]["PCA"] == 1.0
    assert cells[record["trained"][0]["name"]]["ICA"] == record["trained"][0]["against"]["ica"]["live_mmcs"]
    page = render("t", "s", [section])
    assert 'id="baselines-fvu"' in page and 'id="baselines-mmcs"' in page


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kinds": "pca,sorcery"}, "known are neurons"),
        ({"kinds": ","}, "known are"),
        ({"rows": 0}, "--rows"),
        ({"threshold": 0.0}, "--threshold"),
        ({"seed": 1 << 64}, "--seed"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        fit_baselines(tmp_path, quiet=True, **settings)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="sparsecode harvest"):
        fit_baselines(tmp_path, quiet=True)
    write_dataset(tmp_path / "few", 2 * D + 6)
    with pytest.raises(DatasetUnfit, match="too few"):
        fit_baselines(tmp_path, dataset=str(tmp_path / "few"), quiet=True)
    with store.DatasetWriter(tmp_path / "flat", activation_dim=D, dtype="float32", provenance={}) as writer:
        writer.append(torch.ones(100, D), np.zeros(100, dtype=np.int32))
        writer.finish()
    with pytest.raises(DatasetUnfit, match="all rows are equal"):
        fit_baselines(tmp_path, dataset=str(tmp_path / "flat"), quiet=True)
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rows": D - 1},
            f"--rows {D - 1} are fewer than the {D} dimensions of .*; raise it, or leave pca, ica, nmf out",
        ),
        ({"rows": 1, "kinds": "neurons,pca"}, "--rows 1 are fewer .* leave pca out of --kinds"),
        ({"iterative_rows": 1}, "--iterative-rows 1 are fewer .* leave ica, nmf out"),
    ],
)
def test_fewer_rows_than_dimensions_are_refused_before_anything_is_written(
    made: Made, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    data = str(made[1].path)
    with pytest.raises(InvalidSetting, match=message):
        fit_baselines(tmp_path, dataset=data, quiet=True, **SMALL | settings)
    assert not list(tmp_path.iterdir())
    unfitted = SMALL | settings | {"kinds": "neurons,identity,random"}
    assert fit_baselines(tmp_path, dataset=data, quiet=True, **unfitted)["baselines"] == [
        "neurons",
        "identity",
        "random",
    ]


def test_as_many_rows_as_dimensions_are_enough(made: Made, tmp_path: Path) -> None:
    found = fit_baselines(tmp_path, dataset=str(made[1].path), quiet=True, **SMALL | {"rows": D})
    assert found["fit_rows"] == D


def test_a_broken_record_is_named(tmp_path: Path, made: Made) -> None:
    run = Run(tmp_path)
    assert load_baselines(run) is None
    fit_baselines(run, dataset=str(made[1].path), kinds="neurons", quiet=True)
    (tmp_path / "baselines/baselines.json").write_text("[]")
    with pytest.raises(RunInvalid, match="sparsecode baselines --force"):
        load_baselines(run)


def test_the_command_prints_a_table_or_json(made: Made) -> None:
    run, dataset, record = made
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    call = ["baselines", "--run", str(run.path), "--dataset", str(dataset.path), *flags]
    shown = CliRunner().invoke(main, call)
    assert shown.exit_code == 0, shown.output
    assert "non-negative" in shown.stdout and "(random directions)" in shown.stdout
    assert json.loads(CliRunner().invoke(main, [*call, "--json", "-q"]).stdout) == record
