"""Stability scores in the dictionaries' files, matches for other programs, and comparisons of whole runs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fake_run import L1, make_fake_run
from sparsecode.checkpoint import load_tensors
from sparsecode.cli import main
from sparsecode.comparison import Comparison, write_matches
from sparsecode.comparison.members import fingerprint
from sparsecode.comparison.stability import store_stability
from sparsecode.errors import InvalidSetting, SettingsDiffer, StageMissing
from sparsecode.pipeline.compare import compare_dicts, compare_files
from sparsecode.pipeline.config import ReportConfig
from sparsecode.pipeline.opening import open_stage
from sparsecode.pipeline.run import Run
from sparsecode.sweep import Dictionary, dictionary_name

SIZES = (16, 32)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found: Run = make_fake_run(tmp_path / "run", sizes=SIZES)[0]
    return found


def name(size: int, seed: int) -> str:
    return dictionary_name(size, L1, seed)


def files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.dictionaries_path.iterdir())}


def test_scores_are_in_the_files_and_nothing_else_changed(run: Run) -> None:
    path = run.dictionaries_path / name(32, 0)
    before, mark = Dictionary.load(path), fingerprint(path)
    found = compare_dicts(run, quiet=True)
    after = Dictionary.load(path)
    scores = after.features["stability"]
    assert torch.equal(scores, found.tensors[f"{name(32, 0)}.stability"])
    cosine = found.tensors[f"{name(32, 0)}.cosine"]
    own = found.names.index(name(32, 0))
    for i in range(32):
        again = [float(cosine[i, j]) > 0.9 for j in range(len(found.names)) if j != own]
        assert float(scores[i]) == pytest.approx(sum(again) / 3)
    for attribute in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(getattr(before, attribute), getattr(after, attribute))
    assert {key: value for key, value in after.meta.items() if key != "stability"} == before.meta
    assert after.features.keys() - before.features.keys() == {"stability"}
    assert fingerprint(path) == mark
    about = after.meta["stability"]
    assert about["threshold"] == 0.9 and about["dictionaries"] == 3
    assert about["found_in_all"] == int((scores == 1).sum()) > 0
    assert about["mean"] == pytest.approx(float(scores.mean()))
    assert about["steadiest"][0]["stability"] == 1
    assert [entry["stability"] for entry in about["steadiest"]] == sorted(scores.tolist(), reverse=True)[:10]


def test_again_is_the_same_and_writes_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    compare_dicts(run, quiet=True)
    once, times = files(run), {path: path.stat().st_mtime_ns for path in run.dictionaries_path.iterdir()}
    compare_dicts(run)
    assert "already done" in capsys.readouterr().err
    compare_dicts(run, force=True, quiet=True)
    assert files(run) == once
    assert {path: path.stat().st_mtime_ns for path in run.dictionaries_path.iterdir()} == times
    with pytest.raises(SettingsDiffer, match="absolute"):
        compare_dicts(run, absolute=True)
    compare_dicts(run, threshold=0.99, force=True, quiet=True)
    assert Dictionary.load(run.dictionaries_path / name(16, 0)).meta["stability"]["threshold"] == 0.99


def test_a_comparison_killed_while_it_wrote_scores_is_finished_by_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = store_stability, 0

    def killed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sparsecode.pipeline.compare.store_stability", killed)
    with pytest.raises(KeyboardInterrupt):
        compare_dicts(run, quiet=True)
    assert "stability" not in Dictionary.load(run.dictionaries_path / name(32, 1)).features
    monkeypatch.undo()
    compare_dicts(run, quiet=True)
    resumed = files(run)
    compare_dicts(run, quiet=True, force=True)
    assert files(run) == resumed
    for path in run.dictionaries_path.glob("*.json"):
        assert "stability" in Dictionary.load(path).features


def test_a_changed_dictionary_is_noticed(run: Run) -> None:
    compare_dicts(run, quiet=True)
    path = run.dictionaries_path / name(16, 0)
    changed = Dictionary.load(path)
    changed.b_enc[0] += 1
    changed.save(path)
    with pytest.raises(SettingsDiffer, match="dictionaries"):
        compare_dicts(run, quiet=True)


def test_fingerprints_tell_what_changed(run: Run, tmp_path: Path) -> None:
    path = run.dictionaries_path / name(16, 0)
    own = Dictionary.load(path)
    marks = [fingerprint(path)]
    own.meta["l1"] = 7.0
    own.save(path)
    marks.append(fingerprint(path))
    own.W_dec[0, 0] += 1e-6
    own.save(path)
    marks.append(fingerprint(path))
    (tmp_path / "foreign").mkdir()
    for file, content in (("foreign/weights", b"1"), ("foreign/weights", b"2"), ("alone.pt", b"1"), ("alone.pt", b"2")):
        (tmp_path / file).write_bytes(content)
        marks.append(fingerprint(tmp_path / file.partition("/")[0]))
    assert len(set(marks)) == len(marks)


def test_matches_as_csv_and_safetensors(run: Run, tmp_path: Path) -> None:
    paths = [run.dictionaries_path / name(16, 0), run.dictionaries_path / name(32, 1)]
    found = compare_files(paths, quiet=True)
    written = write_matches(found, tmp_path / "matches.csv")
    assert [path.name for path in written] == ["matches.csv", "matches.json"]
    rows = list(csv.DictReader((tmp_path / "matches.csv").read_text().splitlines()))
    assert len(rows) == 16 + 32
    for row in rows:
        feature = int(row["feature"])
        assert int(row["nearest"]) == int(found.index(row["from"], row["to"])[feature])
        assert float(row["cosine"]) == pytest.approx(float(found.cosine(row["from"], row["to"])[feature]), abs=1e-7)
    large = [row for row in rows if row["from"] == name(32, 1)]
    assert sum(row["matched"] == "" for row in large) == 16, "the larger one has atoms without a partner"
    pairs = {(row["feature"], row["matched"]) for row in rows if row["from"] == name(16, 0)}
    assert {(row["matched"], row["feature"]) for row in large if row["matched"]} == pairs
    about = json.loads((tmp_path / "matches.json").read_text())
    assert about["format"] == 2
    assert [entry["fingerprint"] for entry in about["inputs"]] == [fingerprint(path) for path in paths]
    write_matches(found, tmp_path / "matches.safetensors")
    tensors, _ = load_tensors(tmp_path / "matches.safetensors")
    assert torch.equal(tensors[f"{name(16, 0)}.cosine"], found.tensors[f"{name(16, 0)}.cosine"])
    assert Comparison.load(tmp_path / "matches.json").names == found.names
    with pytest.raises(InvalidSetting, match=r"\.csv or \.safetensors"):
        write_matches(found, tmp_path / "matches.txt")


def test_consistency_of_known_dictionaries(run: Run) -> None:
    found = compare_files([run.dictionaries_path / name(32, seed) for seed in (0, 1)], quiet=True)
    about = found.record["matched"][f"{name(32, 0)} -> {name(32, 1)}"]["consistency"]
    assert about["pairs"] == 32
    assert about["shared"] == 16 and about["share_shared"] == 0.5, "the features that both hold"
    assert about["pw_mcc"] == pytest.approx(
        float(found.tensors[f"{name(32, 0)}.matched.{name(32, 1)}.cosine"].mean()), abs=1e-6
    )
    assert about["pw_mcc_absolute"] > about["pw_mcc"]
    absolute = compare_files([run.dictionaries_path / name(32, seed) for seed in (0, 1)], quiet=True, absolute=True)
    values = absolute.tensors[f"{name(32, 0)}.matched.{name(32, 1)}.cosine"]
    assert float(values.mean()) == pytest.approx(about["pw_mcc_absolute"], abs=1e-6)
    assert bool((absolute.cosine(name(32, 0), name(32, 1)) >= found.cosine(name(32, 0), name(32, 1))).all())


def test_the_table_of_a_sweep_says_what_seeds_share(run: Run) -> None:
    found = compare_dicts(run, quiet=True)
    about = found.record["matched"][f"{name(32, 0)} -> {name(32, 1)}"]["consistency"]
    header, _, *lines = [line.split() for line in found.table().splitlines()]
    line = next(words for words in lines if words[0] == name(32, 0))
    assert [f"{about['pw_mcc']:.3f}", f"{about['pw_mcc_absolute']:.3f}", "16/32"] == line[-3:]
    assert header.index("PW-MCC") + 2 == header.index("shared")


def test_runs_stand_for_their_dictionaries(run: Run, tmp_path: Path) -> None:
    other = make_fake_run(tmp_path / "other", sizes=(16,))[0]
    found = compare_files([run.path, other.path / "dictionaries" / name(16, 0)], quiet=True)
    assert len(found.names) == 2 * len(SIZES) + 1
    assert all(entry["path"] in found.names for entry in found.record["inputs"]), "names clash: paths"
    with pytest.raises(StageMissing, match="train-dicts"):
        empty = Run(tmp_path / "empty")
        with open_stage(empty, "report", ReportConfig()) as stage:
            stage.finish({})
        compare_files([run.path, empty.path])


def test_matches_replace_nothing_else(run: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    compare_dicts(copy, quiet=True)
    (copy.path / "notes.csv").write_text("mine")
    before = {file: file.read_bytes() for file in copy.path.rglob("*") if file.is_file()}
    for out in (f"dictionaries/{name(16, 0)}.safetensors", "config.csv", "comparison.csv", "notes.csv"):
        done = CliRunner().invoke(main, ["compare", str(copy.path), "--out", str(copy.path / out), "--quiet"])
        assert done.exit_code == 2, out
        assert "choose another name" in done.stderr
        with pytest.raises(InvalidSetting, match="choose another name"):
            write_matches(compare_dicts(copy, quiet=True), copy.path / out)
    assert before == {file: file.read_bytes() for file in copy.path.rglob("*") if file.is_file()}


def test_the_commands(run: Run, tmp_path: Path) -> None:
    runner = CliRunner()
    out = tmp_path / "matches.csv"
    made = runner.invoke(main, ["compare", str(run.path), "--out", str(out), "--quiet"])
    assert made.exit_code == 0, made.output
    assert out.is_file() and out.with_suffix(".json").is_file()
    assert "stability" not in json.loads((run.dictionaries_path / f"{name(16, 0)}.json").read_text()), "reads only"
    again = runner.invoke(main, ["compare", str(run.path), "--out", str(out), "--quiet"])
    assert again.exit_code == 0, "matches replace matches"
    wrong = runner.invoke(main, ["compare", str(run.path), "--out", "matches.txt"])
    assert wrong.exit_code == 2 and ".safetensors" in wrong.output
    assert runner.invoke(main, ["compare", "--run", str(run.path), "--quiet"]).exit_code == 0
    shown = runner.invoke(main, ["info", str(run.path)])
    assert "steadiest features" in shown.output
    shown = runner.invoke(main, ["info", str(run.dictionaries_path / name(32, 0))])
    assert "stability: found again above 0.9" in shown.output and "mean cosine" in shown.output
    table = runner.invoke(main, ["compare", *(str(run.dictionaries_path / name(16, s)) for s in (0, 1))])
    assert table.exit_code == 0, table.output
