"""No verdict on untrained models: each bound as a rule, and in a run that is thin only in that respect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import sparsecode
from claim_cases import GOOD, SMALL, claims_of, record
from fake_run import L1, FakeDataset, fake_sweeps, make_fake_run
from sparsecode import store
from sparsecode.cli import main
from sparsecode.pipeline import sweeps
from sparsecode.pipeline.replicate import not_tested, summary, thin_stages, warnings
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.thin import thin
from sparsecode.science.claims import trained
from sparsecode.science.claims.c7_toy import judge
from sparsecode.sweep import Dictionary
from sparsecode.sweep.metrics import motion

UNTOUCHED = "hardly moved"


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ({"val_loss": 6.69, "unigram_loss": 6.31}, "validation loss 6.69 is not below the unigram's 6.31"),
        ({"val_loss": 6.31, "unigram_loss": 6.31}, "not below"),
        ({"val_loss": 6.30, "unigram_loss": 6.31}, ""),
        ({"val_loss": 6.69}, ""),  # of an older version: not known
        ({}, ""),  # no model of ours
    ],
)
def test_a_model_must_know_more_than_frequencies(result: dict[str, Any], word: str) -> None:
    found = trained.gpt(result)
    assert word in found and bool(found) == bool(word)
    assert thin("train-gpt", result) == ([f"{found}; give it more --minutes, or more text"] if word else [])


@pytest.mark.parametrize(
    ("fvu", "start", "live", "word"),
    [
        (0.12, 0.3, 100, ""),
        (1.0, 0.3, 100, ""),
        (7.56, 0.3, 100, "FVU 7.56 is above 1"),
        (0.12, 0.70, 100, ""),
        (0.12, 0.72, 100, UNTOUCHED),
        (0.12, 0.3, 5, ""),
        (0.12, 0.3, 4, "only 4 live features"),
        (0.12, None, 0, "only 0 live"),
        (None, None, None, ""),  # a public dictionary
    ],
)
def test_a_dictionary_must_beat_the_mean_and_have_left_its_start(
    fvu: float | None, start: float | None, live: int | None, word: str
) -> None:
    found = trained.dictionary(fvu, start, live)
    assert word in found and bool(found) == bool(word)


def test_dictionaries_are_listed_by_the_first_of_them() -> None:
    rows = {f"n{i}": {"fvu": fvu, "dead": 3, "dict_size": 20} for i, fvu in enumerate((0.5, 3.0, 2.0))}
    found = trained.dictionaries(rows | {"n9": {"dead": 18, "dict_size": 20}})
    assert list(found) == ["n1", "n2", "n9"] and found["n9"] == "only 2 live features"
    assert trained.listed(found) == "n1 (FVU 3 is above 1, that of the mean), and 2 more"
    assert trained.share(found, 5) and not trained.share(found, 6) and not trained.listed({})
    told = thin("train-dicts", {"metrics": rows})
    assert told == [
        "2 of 3 dictionaries: n1 (FVU 3 is above 1, that of the mean), and 1 more; give them more --minutes"
    ]
    assert thin("train-dicts", {"metrics": {"n0": {"fvu": 0.5}}}) == []
    assert thin("harvest", {"rows": 3}) == thin("train-dicts", {}) == []


def test_motion_is_that_of_live_features() -> None:
    start = torch.tensor([0.1, 0.2, 0.9, 0.99, 0.99])
    assert motion(start, torch.tensor([5, 5, 1, 0, 0])) == {"live": 3, "start_cosine": pytest.approx(0.2)}
    assert motion(start, torch.zeros(5)) == {"live": 0, "start_cosine": None}


def toy_rows(steps: int | None, fvu: float, start: float) -> dict[str, Any]:
    made = record(GOOD) | ({} if steps is None else {"steps": steps})
    for row in made["dictionaries"]:
        row |= {"name": f"{row['name']}_l1-{row['l1']}"} | {"fvu": fvu, "start_cosine": start, "live": 60}
    return made


@pytest.mark.parametrize(
    ("steps", "fvu", "start", "expected", "word"),
    [
        (1000, 0.1, 0.2, "reproduced", ""),
        (None, 0.1, 0.2, "reproduced", ""),  # of an older version
        (18, 0.1, 0.2, "not tested", "18 steps are fewer than"),
        (1000, 1.2, 0.2, "not tested", "FVU 1.2"),
        (1000, 0.1, 0.9, "not tested", UNTOUCHED),
    ],
)
def test_toy_models_of_too_few_steps_say_nothing(
    steps: int | None, fvu: float, start: float, expected: str, word: str
) -> None:
    found = judge(toy_rows(steps, fvu, start)).verdict
    assert found.verdict == expected and word in found.reason
    assert ("Too little training" in found.reason) == (expected == "not tested")
    assert "true features" in found.number


def test_a_few_toy_dictionaries_may_be_bad() -> None:
    made = toy_rows(1000, 0.1, 0.2)
    for row in made["dictionaries"]:
        row["fvu"] = 2.0 if row["l1"] == 0.2 or row["dict_size"] < 512 else 0.1  # half of those that hold the truth
    assert judge(made).verdict.verdict == "reproduced"


# A run that is thin in one respect


def nothing(run: Run) -> None:
    pass


def unigram(run: Run) -> None:
    config = run.config()
    config["stages"]["train-gpt"]["result"] |= {"val_loss": 6.69, "unigram_loss": 6.31}
    run.config_path.write_text(json.dumps(config))


def other_model(run: Run) -> None:
    """A poor GPT that is unrelated to these dictionaries."""
    unigram(run)
    config = run.config()
    config["stages"]["train-gpt"]["result"]["fingerprint"] = "another"
    run.config_path.write_text(json.dumps(config))


def each_dictionary(change: Callable[[Dictionary], None]) -> Callable[[Run], None]:
    def work(run: Run) -> None:
        for name in run.finished("train-dicts", "")["dictionaries"]:
            path = run.dictionaries_path / name
            own = Dictionary.load(path)
            change(own)
            own.save(path)

    return work


def worse_than_the_mean(own: Dictionary) -> None:
    own.meta["metrics"]["fvu"] = 7.56


def untouched(own: Dictionary) -> None:
    own.features["initial_cosine"] = torch.full((own.dict_size,), 0.95)


def lifeless(own: Dictionary) -> None:
    own.features["density"] = (torch.arange(own.dict_size) < 3).float() * 0.02


def largest_untouched(own: Dictionary) -> None:
    if own.dict_size == 128:
        untouched(own)


def few_alive(own: Dictionary) -> None:
    """A count equal to the dimensions of the space: enough to compare, too few to be more."""
    own.features["density"] = (torch.arange(own.dict_size) < 32).float() * 0.02
    own.features["initial_cosine"] = torch.full((own.dict_size,), 0.1)


def public(own: Dictionary) -> None:
    own.features.pop("initial_cosine")
    own.features.pop("density")
    own.meta.pop("metrics")


ALL = "123456"


@pytest.mark.parametrize(
    ("change", "untested", "word"),
    [
        (nothing, "5", "needs 4"),  # three sizes have a larger relative, as usual
        (unigram, ALL, "6.69 is not below the unigram's 6.31"),
        (other_model, "5", "needs 4"),
        (each_dictionary(worse_than_the_mean), "12356", "FVU 7.56 is above 1"),
        (each_dictionary(untouched), "12356", UNTOUCHED),
        (each_dictionary(lifeless), "12356", "only 3 live features"),
        (each_dictionary(few_alive), "125", "32 live features, not more than the 32 dimensions"),
        (each_dictionary(largest_untouched), "125", UNTOUCHED),
        (each_dictionary(public), "5", "needs 4"),
    ],
)
def test_a_claim_whose_model_or_dictionaries_are_below_the_bounds_is_not_tested(
    tmp_path: Path, change: Callable[[Run], None], untested: str, word: str
) -> None:
    run, dataset = make_fake_run(tmp_path / "run")
    change(run)
    claims = claims_of(run, dataset)
    found = {number: claim["reason"] for number, claim in claims.items() if claim["verdict"] == "not tested"}
    assert "".join(found) == untested
    assert word in found[untested[0]]
    assert all(claim["numbers"] for claim in claims.values()), "the figures are there all the same"
    assert run.finished("claims", "")["not_tested"] == found
    thin = json.loads(run.claims_path.read_text())["thin"]
    assert bool(thin) == (word not in ("needs 4", "32 live features, not more than the 32 dimensions"))
    assert set(thin) <= {"train-gpt", "train-dicts"} and run.finished("claims", "")["thin"] == []


def test_claim_4_looks_at_the_sweeps_of_its_own(tmp_path: Path) -> None:
    run, dataset = make_fake_run(tmp_path / "run", sizes=(16, 32), seeds=(0,))

    def spoiled(run: Run, *_: Any, **__: Any) -> Any:
        found = fake_sweeps(run)
        for one in found:
            for entry in one[1].record["dictionaries"]:
                entry["metrics"]["fvu"] = 3.0 if entry["l1"] > 1.5 * L1 else 0.3
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset)
        patch.setattr(sweeps, "train_both", spoiled)
        sparsecode.compare_dicts(run, quiet=True)
        sparsecode.check_claims(run, quiet=True, directions=8, contexts=6, draws=100, starts=False)
    claims = json.loads(run.claims_path.read_text())["claims"]
    assert claims["4"]["verdict"] == "not tested"
    assert "16 of 16 dictionaries are untrained" in claims["4"]["reason"], "divided by the size all are above"
    told = run.finished("claims", "")["thin"]
    assert [line.partition(":")[0] for line in told] == ["plain sweep", "per-size sweep"]
    assert "8 of 16 dictionaries" in told[0]


@pytest.fixture
def thin_run(tmp_path: Path) -> tuple[Run, FakeDataset]:
    run, dataset = make_fake_run(tmp_path / "run")
    unigram(run)
    each_dictionary(untouched)(run)
    claims_of(run, dataset)
    return run, dataset


def test_the_page_says_it_first(thin_run: tuple[Run, FakeDataset]) -> None:
    run, dataset = thin_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Dataset", lambda path: dataset)
        sparsecode.write_report(run, quiet=True, images=False)
    page, told = run.report_path.read_text(), json.loads(run.report_path.with_suffix(".json").read_text())
    assert page.index('id="thin"') < page.index('id="claims"')
    banner = page[page.index('id="thin"') : page.index("</aside>")]
    assert "Too little training" in banner and banner.count("Not tested:") == 1, "one reason for all"
    assert "train-gpt: validation loss 6.69" in banner and "train-dicts: 8 of 8 dictionaries" in banner
    assert list(told["thin"]) == ["train-gpt", "train-dicts"]
    assert len(told["not_tested"]) == 6 and all("6.69" in reason for reason in told["not_tested"].values())
    for section in told["not_tested"]:
        assert f'href="#{section}"' in banner


def test_a_page_without_anything_thin_has_no_such_line(tmp_path: Path) -> None:
    run, _ = make_fake_run(tmp_path / "run")
    sparsecode.compare_dicts(run, quiet=True)
    sparsecode.write_report(run, quiet=True, images=False)
    assert 'id="thin"' not in run.report_path.read_text()
    told = json.loads(run.report_path.with_suffix(".json").read_text())
    assert told["thin"] == told["not_tested"] == {}
    unigram(run)
    sparsecode.write_report(run, quiet=True, images=False, force=True)
    assert "train-gpt: validation loss 6.69" in run.report_path.read_text(), "also before the claims were tested"


def test_the_command_tells_it_as_json(thin_run: tuple[Run, FakeDataset], tmp_path: Path) -> None:
    run, preset = thin_run[0], tmp_path / "plain.toml"
    preset.write_text("")
    counts = {name: value for name, value in SMALL.items() if name != "starts"}
    flags = ["--no-starts", *(part for name, value in counts.items() for part in (f"--{name}", str(value)))]
    done = CliRunner().invoke(main, ["claims", "--run", str(run.path), "--preset", str(preset), *flags, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told["thin"]) == ["train-gpt", "train-dicts"]
    assert {claim["verdict"] for claim in told["claims"].values()} == {"not tested"}


def test_a_stage_that_is_thin_says_so_when_it_ends_and_replicate_says_it_last(tmp_path: Path) -> None:
    stages: dict[str, dict[str, Any]] = {
        "train-gpt": {"val_loss": 6.69, "unigram_loss": 6.31},
        "claims": {"verdicts": {"1": "not tested"}, "not_tested": {"1": "Too little.", "2": "Too few."}, "thin": ["x"]},
        "toy": {"not_tested": {"7": "Too short."}, "thin": []},
        "report": {"summary": ["A sentence."]},
    }
    assert warnings("train-gpt", stages["train-gpt"]) == [
        "train-gpt: thin: validation loss 6.69 is not below the unigram's 6.31; give it more --minutes, or more text"
    ]
    assert warnings("claims", stages["claims"]) == [
        "claims: thin: x", "claims: claim 1 not tested: Too little.", "claims: claim 2 not tested: Too few.",
    ]  # fmt: skip
    assert warnings("report", stages["report"]) == warnings("compare", object()) == []
    assert list(thin_stages(stages)) == ["train-gpt", "claims"] and list(not_tested(stages)) == ["1", "2", "7"]
    told = summary(Run(tmp_path), stages, 1.0)
    assert told[0] == "A sentence." and told[1].startswith("thin: train-gpt: validation loss")
    assert told[2:4] == ["thin: claims: x", "not tested: claims 1, 2, 7"]
