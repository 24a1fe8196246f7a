"""The interpret stage on a small run: a GPT, dictionaries, baselines and claims that took seconds to make."""

from __future__ import annotations

import csv
import json
import math
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sparsecode import store
from sparsecode.cli import main
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.activations import TopK
from sparsecode.errors import ContextsUnknown, NotExpressible, NotRecognised, RunInvalid, SettingsDiffer, StageStale
from sparsecode.interpretation import interpreting
from sparsecode.pipeline.baselines import fit_baselines
from sparsecode.pipeline.claims import check_claims
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.interpret import interpret_directions, load_interpretations
from sparsecode.pipeline.report import write_report
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import train_gpt

D = 32
SMALL: dict[str, Any] = {"directions": 8, "rate": 0.02, "rows": 6000, "control_samples": 4000, "draws": 100}
HOOK = "blocks.2.mlp.hook_post"


def text() -> str:
    """Lines in which some words follow others, and some stand in brackets."""
    generator = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ba", "ko", "mi", "tu", "re") for b in ("n", "rt", "ck", "ning", "x")]
    lines = []
    for _ in range(2500):
        own = [words[i] for i in generator.integers(0, len(words), 6)]
        own[2:2] = ["(self,", own[0] + ")"] if generator.random() < 0.3 else []
        lines.append(" ".join(own) + (" 42" if generator.random() < 0.2 else ""))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("interpret") / "run")
    words = run.path.parent / "text.txt"
    words.write_text(text())
    train_gpt(
        run, text=(str(words),), val_fraction=0.2, vocab_size=320, n_layer=3, n_head=2, d_model=8, d_mlp=D, context=32,
        batch_size=8, steps=20, warmup_steps=4, val_tokens=256, device="cpu", quiet=True,
    )  # fmt: skip
    harvest_activations(run, rows=12_000, device="cpu", quiet=True)
    train_dicts(
        run, sizes="32,64", seeds=2, l1="5e-3", samples=30_000, batch_size=256, warmup_steps=5, eval_rows=1000,
        engine="reference", device="cpu", threads=1, quiet=True,
    )  # fmt: skip
    compare_dicts(run, threshold=0.5, quiet=True)
    check_claims(run, sweep=False, starts=False, directions=6, features=2, shown=2, draws=100, quiet=True)
    fit_baselines(run, kinds="neurons,identity,random,pca", rows=2000, eval_rows=1000, curve_rows=200, quiet=True)
    interpret_directions(run, quiet=True, **SMALL)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.path.parent, tmp_path / "copy")
    return Run(tmp_path / "copy" / "run")


def numbers(value: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_groups_scores_and_a_verdict(made: Run) -> None:
    record = load_interpretations(made)
    assert record is not None
    names = [group["name"] for group in record["groups"]]
    assert [name for name in names if name != "other features"] == [
        "found again", "neurons", "random", "pca", "untrained",
    ]  # fmt: skip
    for group in record["groups"]:
        own = [one for one in record["directions"] if one["group"] == group["name"]]
        assert len(own) == group["drawn"] <= 8
        assert group["explained"] + sum(group["left_out"].values()) == group["drawn"]
        scored = [one["scores"]["correlation"] for one in own if "scores" in one]
        if scored:
            assert group["scores"]["correlation"]["value"] == pytest.approx(np.mean(scored), abs=1e-6)
            assert group["scores"]["correlation"]["low"] <= np.mean(scored) <= group["scores"]["correlation"]["high"]
    assert record["verdict"]["verdict"] in ("higher", "partly", "not higher", "not informative", "not tested")
    assert record["missing"] == {} and record["explainer"] == "embedded"
    assert all(map(math.isfinite, numbers(record))) and "NaN" not in json.dumps(record)
    assert max(one["scores"]["correlation"] for one in record["directions"] if "scores" in one) > 0.5
    assert record["dataset_fingerprint"] == store.Dataset(made.activations_path / HOOK).fingerprint


def test_the_table_has_a_line_for_each_direction(made: Run) -> None:
    record = load_interpretations(made)
    assert record is not None
    lines = list(csv.DictReader((made.path / "interpret/directions.csv").read_text().splitlines()))
    assert len(lines) == len(record["directions"])
    for line, one in zip(lines, record["directions"], strict=True):
        assert (line["group"], line["dictionary"], line["feature"]) == (
            one["group"], one["dictionary"], str(one["feature"]),
        )  # fmt: skip
        assert line["text"] == one.get("text", "") and bool(line["left_out"]) == ("left_out" in one)
        if "scores" in one:
            assert float(line["correlation"]) == one["scores"]["correlation"]


def test_what_claim_3_shows_is_explained_in_the_report(run: Run) -> None:
    write_report(run, images=False, quiet=True)
    sections = json.loads(run.report_path.with_suffix(".json").read_text())["sections"]
    record = load_interpretations(run)
    assert record is not None
    examples = {(one["dictionary"], one["feature"]) for one in record["directions"] if one["group"] == "examples"}
    neurons = sections["top-tokens"]["neurons"]["features"]
    shown = sections["top-tokens"]["features"]["features"] if "features" in sections["top-tokens"] else []
    assert {("neurons", one["neuron"]) for one in neurons} <= examples
    assert {(one["dictionary"], one["feature"]) for one in shown} <= examples
    assert neurons and all(one["explanation"] for one in [*neurons, *shown])
    assert sections["top-tokens"]["directions"]["features"][0]["explanation"]
    own = sections["interpretation"]
    assert own["numbers"]["verdict"] == record["verdict"] and record["verdict"]["number"] in own["summary"]
    assert len(own["interpretation-groups"]["rows"]) == len(record["groups"])
    page = run.report_path.read_text()
    assert 'id="interpretation"' in page and 'class="explanation"' in page
    interpret_directions(run, force=True, quiet=True, **SMALL | {"seed": 1})
    assert list(stale(run)) == ["report"]


def test_the_same_bytes_after_a_kill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [run.path / "interpret" / name for name in ("interpretations.json", "directions.csv")]
    before = [file.read_bytes() for file in files]

    class Killed(BaseException):
        pass

    plain, calls = interpreting.interpreted, []

    def stop(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 10:
            raise Killed
        return plain(*args)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(interpreting, "interpreted", stop)
        interpret_directions(run, force=True, quiet=True, **SMALL)
    assert not files[0].exists() and load_interpretations(run) is None
    interpret_directions(run, quiet=True)
    assert [file.read_bytes() for file in files] == before


def test_threads_change_no_explanation(run: Run) -> None:
    record = load_interpretations(run)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        interpret_directions(run, control=False, force=True, quiet=True, **SMALL)
    finally:
        torch.set_num_threads(threads)
    again = load_interpretations(run)
    assert record is not None and again is not None
    assert again["directions"] == [one for one in record["directions"] if one["group"] != "untrained"]


def test_what_it_read_may_change(run: Run) -> None:
    assert stale(run) == {}
    with pytest.raises(SettingsDiffer, match="rate"):
        interpret_directions(run, rate=0.03, quiet=True)
    fit_baselines(run, kinds="neurons,random", force=True, quiet=True)
    assert list(stale(run)) == ["interpret"]
    with pytest.raises(StageStale, match="baselines changed since; run: sparsecode interpret --force"):
        interpret_directions(run, quiet=True)
    interpret_directions(run, force=True, quiet=True)
    assert stale(run) == {}
    record = load_interpretations(run)
    assert record is not None and "pca" not in [group["name"] for group in record["groups"]]


def test_dictionaries_by_name_and_of_others(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(48, D, generator=generator))
    Dictionary(atoms.clone(), torch.zeros(48), atoms, activation=TopK(8)).save(tmp_path / "topk")
    names = [file.stem for file in run.dictionaries_path.glob("n32*.json")]
    asked = [*names, str(tmp_path / "topk")]
    interpret_directions(run, dictionaries=asked, force=True, quiet=True, **SMALL)
    record = load_interpretations(run)
    assert record is not None
    used = {one["dictionary"] for one in record["directions"] if one["group"] in ("found again", "other features")}
    assert used <= set(names)
    features = [one for one in record["directions"] if one["group"] == "features"]
    assert {one["dictionary"] for one in features} == {str(tmp_path / "topk")} and len(features) == 8
    with pytest.raises(NotRecognised, match="nothing"):
        interpret_directions(run, dictionaries="nothing", force=True, quiet=True)
    Dictionary(torch.eye(4), torch.zeros(4), torch.eye(4)).save(tmp_path / "narrow")
    with pytest.raises(NotExpressible, match="reads activations of 4 dimensions"):
        interpret_directions(run, dictionaries=str(tmp_path / "narrow"), force=True, quiet=True)


def test_without_baselines_or_control_it_says_what_is_missing(run: Run) -> None:
    shutil.rmtree(run.path / "baselines")
    run.write_record("baselines", None)
    result = interpret_directions(run, control=False, force=True, quiet=True, **SMALL)
    assert result["verdict"] == "not tested" and "sparsecode baselines" in result["missing"]["baselines"]
    assert set(result["scores"]) <= {"found again", "other features"}


def test_activations_without_contexts_are_refused(run: Run) -> None:
    folder = run.activations_path / HOOK
    own = store.Dataset(folder)
    provenance = {key: value for key, value in own.provenance.items() if key != "context"}
    x, ids = own.read(0, own.rows), own.tokens(0, own.rows)
    shutil.rmtree(folder)
    with store.DatasetWriter(folder, activation_dim=D, dtype="float32", provenance=provenance) as writer:
        writer.append(x, ids)
        writer.finish()
    run.write_record("claims", None)
    with pytest.raises(ContextsUnknown, match="harvest it again with --force"):
        interpret_directions(run, force=True, quiet=True, **SMALL)


def test_the_command_prints_a_table_and_json_and_opens_no_socket(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    call = ["interpret", "--run", str(run.path), "--force"]
    shown = CliRunner().invoke(main, call)
    assert shown.exit_code == 0, shown.output
    record = load_interpretations(run)
    assert record is not None
    for group in record["groups"]:
        assert group["said"] in shown.stdout
    assert record["verdict"]["verdict"] in shown.stdout
    found = json.loads(CliRunner().invoke(main, [*call[:-1], "--json", "--quiet"]).stdout)
    assert found == record


def test_a_broken_record_is_reported(run: Run) -> None:
    (run.path / "interpret/interpretations.json").write_text("[]")
    with pytest.raises(RunInvalid, match="sparsecode interpret --force"):
        load_interpretations(run)
