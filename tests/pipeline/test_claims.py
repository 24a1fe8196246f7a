"""The claims on runs whose features are known: the stage, what it writes, and verdicts that go either way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsecode
from claim_cases import SMALL, claims_of
from fake_run import SIZES, TRUE, D, FakeDataset, make_fake_run
from sparsecode import store
from sparsecode.errors import InvalidSetting, RunInvalid, SettingsDiffer, StageMissing
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.claims import compared, load_claims
from sparsecode.pipeline.config import ClaimsConfig, TrainDictsConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.run import Run
from sparsecode.records import as_json
from sparsecode.science.claims import starts
from sparsecode.science.claims.judge import CLAIMS
from sparsecode.sweep import Dictionary


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, FakeDataset, dict[str, Any]]:
    run, dataset = make_fake_run(tmp_path_factory.mktemp("claims") / "run")
    return run, dataset, claims_of(run, dataset)


def test_every_claim_has_a_verdict_and_numbers(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, claims = made
    assert list(claims) == list(CLAIMS)
    for claim in claims.values():
        assert claim["verdict"] in ("reproduced", "partly", "not reproduced", "not tested")
        assert claim["claim"] and claim["reason"] and claim["number"] and claim["numbers"]
    recorded = run.finished("claims", "")["verdicts"]
    assert recorded == {number: claim["verdict"] for number, claim in claims.items()}
    json.dumps(claims, allow_nan=False)


def test_claim_1_counts_what_was_put_in(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    numbers = made[2]["1"]["numbers"]
    rows = {(row["size"], row["relation"]): row for row in numbers["dictionaries"] if row["sweep"] == "run"}
    for size in SIZES[:-1]:
        for relation in ("next", "next_other_seed"):
            assert rows[size, relation]["above"] == rows[size, relation]["distinct"] == size // 2
    assert rows[64, "next"]["mmcs_by_chance"] < 0.6 and rows[64, "next"]["above_by_chance"] < 1e-3
    # 32 features of the 64 come back: exactly as many as dimensions, which is not more.
    assert made[2]["1"]["verdict"] == "not reproduced" and numbers["dimensions"] == D


def test_claim_2_sees_the_two_kinds_that_were_put_in(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    rows = [row for row in made[2]["2"]["numbers"]["dictionaries"] if row["sweep"] == "run" and row["size"] == 64]
    assert made[2]["2"]["verdict"] == "partly", "the lower mode is of features that stayed near their start"
    for row in rows:
        assert row["everything"]["bimodal"] and row["everything"]["features"] == 64
        assert row["bimodal"] and row["p"] < 0.01
        assert row["modes"]["means"][1] > 0.95 and row["modes"]["density"][1] == pytest.approx(0.02, rel=0.01)
        assert row["modes"]["initial_cosine"][0] > 0.5 > row["modes"]["initial_cosine"][1]
        assert sum(row["live_histogram"]) == row["features"] and sum(row["dead_histogram"]) == row["dead"] > 0


@pytest.mark.parametrize(
    ("dead", "verdict", "word"), [(False, "reproduced", "alone"), (True, "not reproduced", "dead features")]
)
def test_claim_2_depends_on_what_the_lower_mode_is(tmp_path: Path, dead: bool, verdict: str, word: str) -> None:
    run, dataset = make_fake_run(tmp_path / "run", sizes=(128, 256), seeds=(0,))
    generator = torch.Generator().manual_seed(0)
    more = torch.nn.functional.normalize(torch.randn(20, D, generator=generator))
    for name in run.finished("train-dicts", "")["dictionaries"]:
        path = run.dictionaries_path / name
        own = Dictionary.load(path)
        found = own.features["density"] > 0.01  # those that were put in
        if dead:  # and so few that 20 more must come back for a test
            others = torch.nonzero(~found).flatten()[:20]
            turned = more + 0.03 * torch.randn(20, D, generator=generator)
            own.W_dec[others] = torch.nn.functional.normalize(turned)
            found[others] = True
            own.features["density"] = torch.where(found, 0.02, 0.0)
        else:
            own.features["initial_cosine"] = torch.full((own.dict_size,), 0.1)
        own.save(path)
    claim = claims_of(run, dataset)["2"]
    assert claim["verdict"] == verdict and word in claim["reason"]


def test_claim_3_finds_features_of_one_token(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    numbers = made[2]["3"]["numbers"]
    assert numbers["searched"] == made[1].rows, "all rows"
    assert np.mean(numbers["consistency"]["feature"]) > 0.7, "each true feature is that of a few tokens"
    for kind in ("feature", "neuron", "random"):
        for one in numbers["examples"][kind]:
            assert len(one["examples"]) <= 3 and one["distinct"] <= 6


@pytest.mark.parametrize(("tilt", "verdict"), [(0.1, "reproduced"), (0.7, "not reproduced")])
def test_claim_4_follows_the_slope_that_was_put_in(tmp_path: Path, tilt: float, verdict: str) -> None:
    run, dataset = make_fake_run(tmp_path / "run", sizes=(16, 32), seeds=(0,))
    claim = claims_of(run, dataset, tilt=tilt)["4"]
    assert claim["verdict"] == verdict
    assert claim["numbers"]["plain"]["slope"]["value"] == pytest.approx(tilt / 0.7, abs=0.01)
    assert claim["numbers"]["divided"]["slope"]["value"] == pytest.approx(1 + tilt / 0.7, abs=0.01)


def test_claim_5_has_the_curve_of_the_comparison(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run, _, claims = made
    curve = next(curve for curve in claims["5"]["numbers"]["curves"] if curve["sweep"] == "run")
    record = json.loads(run.comparison_path.read_text())
    for point in curve["points"]:
        means = [
            entry["next"]["mcs"]["all"]["mean"]
            for entry in record["dictionaries"]
            if entry["dict_size"] == point["size"]
        ]
        assert point["mmcs"]["value"] == pytest.approx(np.mean(means), abs=1e-6)
        assert point["mmcs"]["low"] <= point["mmcs"]["value"] <= point["mmcs"]["high"]
        assert point["live"]["value"] > point["mmcs"]["value"], "dead features are like chance"
    assert claims["5"]["verdict"] == "not tested", "three sizes have a larger relative"
    known = claims["5"]["numbers"]["known_features"]
    assert known["features"] == TRUE
    shares = [point["mmcs"]["value"] for point in known["points"]]
    assert shares == sorted(shares), "larger dictionaries hold more of the true features"


@pytest.mark.parametrize("dead", [0.0, 0.5])
@pytest.mark.parametrize(("noise", "verdict"), [((0.4, 0.25), "reproduced"), ((0.05, 0.05), "not reproduced")])
def test_claim_5_takes_the_curve_of_features_that_live(
    tmp_path: Path, noise: tuple[float, float], verdict: str, dead: float
) -> None:
    # Small dictionaries hold the features badly, larger ones well; of the largest many features may have died.
    sizes = (8, 16, 32, 64, 128, 256)
    run, dataset = make_fake_run(tmp_path / "run", sizes=sizes, seeds=(0,))
    generator = torch.Generator().manual_seed(0)
    true = torch.nn.functional.normalize(torch.randn(256, D, generator=generator))
    for size, spread in zip(sizes, (*noise, 0.05, 0.05, 0.05, 0.05), strict=True):
        path = run.dictionaries_path / next(
            n for n in run.finished("train-dicts", "")["dictionaries"] if f"n{size}_" in n
        )
        own = Dictionary.load(path)
        alive = torch.ones(size, dtype=torch.bool)
        alive[round(size * (1 - dead)) :] = size < 128
        random = torch.randn(size, D, generator=generator)
        own.W_dec = torch.nn.functional.normalize(torch.where(alive[:, None], true[:size] + spread * random, random))
        own.features["density"] = torch.where(alive, 0.02, 0.0)
        own.features["initial_cosine"] = torch.full((size,), 0.1)
        own.save(path)
    claim = claims_of(run, dataset, sweep=False)["5"]
    assert claim["verdict"] == verdict
    points = next(curve for curve in claim["numbers"]["curves"] if curve["sweep"] == "run")["points"]
    assert (points[-1]["mmcs"]["value"] < points[-1]["live"]["value"] - 0.1) == (dead > 0)


@pytest.mark.parametrize(("sparse", "verdict"), [(False, "reproduced"), (True, "not reproduced")])
def test_claim_6_tells_neurons_from_random_directions(tmp_path: Path, sparse: bool, verdict: str) -> None:
    run, dataset = make_fake_run(tmp_path / "run")
    if sparse:  # the same features in both seeds, each of three neurons
        generator = torch.Generator().manual_seed(0)
        atoms = torch.zeros(128, D)
        for row in atoms:
            row[torch.randperm(D, generator=generator)[:3]] = torch.rand(3, generator=generator) + 0.5
        for name in run.finished("train-dicts", "")["dictionaries"]:
            path = run.dictionaries_path / name
            own = Dictionary.load(path)
            own.W_dec = torch.nn.functional.normalize(atoms[: own.dict_size])
            own.save(path)
    claim = claims_of(run, dataset)["6"]
    assert claim["verdict"] == verdict
    medians = {
        row["group"]: row["quantiles"][2]
        for row in claim["numbers"]["groups"]
        if row["measure"] == "participation ratio"
    }
    assert medians["neurons"] == 1 and medians["random directions"] == pytest.approx((D + 2) / 3, rel=0.1)
    assert (medians["found again"] < 3.01) == sparse


@pytest.mark.parametrize(("loud", "verdict"), [(8, "partly"), (32, "not reproduced")])
def test_claim_6_asks_what_neurons_that_hardly_vary_explain(tmp_path: Path, loud: int, verdict: str) -> None:
    # Features of eight neurons: as spread as chance has it where only these vary, sparse where all do.
    run, dataset = make_fake_run(tmp_path / "run")
    generator = torch.Generator().manual_seed(0)
    atoms = torch.zeros(128, D)
    atoms[:, :8] = torch.randn(128, 8, generator=generator)
    for name in run.finished("train-dicts", "")["dictionaries"]:
        path = run.dictionaries_path / name
        own = Dictionary.load(path)
        own.W_dec = torch.nn.functional.normalize(atoms[: own.dict_size])
        own.save(path)
    dataset.activations = torch.randn(dataset.rows, D, generator=generator) * (torch.arange(D) < loud)
    claim = claims_of(run, dataset)["6"]
    assert claim["verdict"] == verdict
    assert claim["numbers"]["as_spread_as"]["random directions"]["value"] < 0.1


def test_without_activations_what_needs_them_is_not_tested(tmp_path: Path) -> None:
    run, _ = make_fake_run(tmp_path / "run")
    (run.activations_path / "blocks.2.mlp.hook_post").rmdir()
    sparsecode.compare_dicts(run, quiet=True)
    found = sparsecode.check_claims(run, quiet=True, **SMALL)["verdicts"]
    assert found["3"] == found["4"] == "not tested"
    assert "not tested" not in (found["1"], found["2"], found["6"])
    claims = load_claims(run)
    assert claims is not None and "sparsecode harvest" in claims.claims["4"].verdict.reason


def test_one_dictionary_alone_tests_nothing(tmp_path: Path) -> None:
    run, dataset = make_fake_run(tmp_path / "run", sizes=(16,), seeds=(0,))
    claims = claims_of(run, dataset, sweep=False)
    assert {claim["verdict"] for claim in claims.values()} == {"not tested"}


def test_done_is_done_and_other_settings_are_refused(made: tuple[Run, FakeDataset, dict[str, Any]]) -> None:
    run = made[0]
    before = run.claims_path.read_bytes()
    sparsecode.check_claims(run, quiet=True, **SMALL)
    assert run.claims_path.read_bytes() == before
    with pytest.raises(SettingsDiffer, match="draws"):
        sparsecode.check_claims(run, quiet=True, **(SMALL | {"draws": 200}))


def test_bad_settings_and_missing_stages(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="sparsecode compare"):
        sparsecode.check_claims(tmp_path / "none")
    with pytest.raises(InvalidSetting, match="draws"):
        sparsecode.check_claims(tmp_path / "none", draws=3)
    run = Run(tmp_path)
    assert load_claims(run) is None
    with open_stage(run, "claims", ClaimsConfig()) as stage:
        stage.finish({})
    for text in ("{", "[]", '{"format": 3, "claims": []}', '{"format": 2, "claims": {}}',
                 '{"format": 3, "thin": {}, "claims": {}, "starts": null}'):  # fmt: skip
        run.claims_path.write_text(text)
        with pytest.raises(RunInvalid, match="sparsecode claims --force"):
            load_claims(run)


def test_coefficients_of_the_sweep_follow_those_of_the_run() -> None:
    own = {"l1": "1e-2,2e-2,4e-2", "l1_scale": "plain"}
    assert sweeps.coefficients(ClaimsConfig(), own, 128) == [0.01, 0.02, 0.04, 0.08]
    divided = {"l1": "2.56", "l1_scale": "per-size"}
    assert sweeps.coefficients(ClaimsConfig(), divided, 128) == [0.01, 0.02, 0.04, 0.08]
    assert sweeps.coefficients(ClaimsConfig(l1="1,2"), own, 128) == [1, 2]


def test_the_sweeps_are_runs_that_see_the_same_rows(tmp_path: Path) -> None:
    activations = tmp_path / "activations"
    with store.DatasetWriter(activations, activation_dim=8, dtype="float32", provenance={"hook_point": "h"}) as writer:
        rows = torch.relu(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)))
        writer.append(rows, np.zeros(2000, dtype=np.int32))
        writer.finish()
    settings = TrainDictsConfig(eval_rows=200, engine="reference").record()
    config = ClaimsConfig(sizes="4,8", l1="0.1,0.2", samples=600, batch_size=100)
    found = sweeps.train_both(Run(tmp_path / "run"), config, str(activations), settings, 8, quiet=True)
    for (own, comparison), factor in zip(found, (1, 8), strict=True):
        trained = own.finished("train-dicts", "")
        assert trained["samples"] == 600
        assert comparison.names == trained["dictionaries"]
        coefficients = sorted({entry["l1"] for entry in comparison.record["dictionaries"]})
        assert coefficients == pytest.approx([0.1 * factor, 0.2 * factor])
    assert [entry["loss"]["l1_scale"] for entry in found[1][1].record["dictionaries"]] == ["per-size"] * 4
    weights = [compared("x", *one) for one in found]
    assert weights[0].comparison.dimensions == 8 and len(weights[1].dictionaries) == 4


def test_every_start_is_a_run_on_the_same_rows_and_is_judged(tmp_path: Path) -> None:
    activations = tmp_path / "activations"
    with store.DatasetWriter(activations, activation_dim=8, dtype="float32", provenance={"hook_point": "h"}) as writer:
        rows = torch.relu(torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)) + 0.5)
        writer.append(rows, np.zeros(2000, dtype=np.int32))
        writer.finish()
    settings = TrainDictsConfig(sizes="8,16", seeds=2, l1="0.1", eval_rows=200, engine="reference", min_samples=10**9)
    config = ClaimsConfig(start_samples=600, min_samples=300, batch_size=100, warmup_steps=2, draws=100)
    found = sweeps.train_starts(Run(tmp_path / "run"), config, str(activations), settings.record(), quiet=True)
    assert list(found) == list(starts.STARTS) == ["calibrated", "atoms", "linear"]
    begun = {kind: compared(kind, *one) for kind, one in found.items()}
    for kind, (beside, _) in found.items():
        recorded = beside.config()["stages"]["train-dicts"]
        assert (recorded["result"]["samples"], recorded["settings"]["min_samples"]) == (600, 300)
        assert recorded["settings"] | starts.STARTS[kind].settings == recorded["settings"]
        assert {d.meta["training"]["start"]["kind"] for d in begun[kind].dictionaries.values()} == {kind}
    said = as_json(starts.summary(begun, 600, 100))
    json.dumps(said, allow_nan=False)
    for kind, start in said["starts"].items():
        assert start["modes"]["verdict"] == start["growth"]["verdict"] == "not tested"
        assert [(row["size"], row["seed"]) for row in start["dictionaries"]] == [(8, 0), (16, 0), (8, 1), (16, 1)]
        for row in start["dictionaries"]:
            own = begun[kind].dictionaries[row["dictionary"]]
            live = own.features["density"] > 0
            assert row["dead"] == int((~live).sum())
            share = float((own.features["initial_cosine"][live] < 0.5**0.5).double().mean())
            assert row["moved"] == pytest.approx(share)
            assert row["fvu"] == own.meta["metrics"]["fvu"]
    assert sweeps.train_starts(Run(tmp_path / "x"), ClaimsConfig(starts=False), "", {}, quiet=True) == {}
