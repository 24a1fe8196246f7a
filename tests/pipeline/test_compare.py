"""The compare stage on a run whose features are known, and on files without a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fake_run import L1, SEEDS, SIZES, TRUE, dictionary, make_fake_run
from sparsecode.comparison import Comparison, matched_mcs, mcs
from sparsecode.comparison.members import load_members, place
from sparsecode.errors import DictionaryInvalid, InvalidSetting, RunInvalid, SettingsDiffer, StageMissing, ZeroAtom
from sparsecode.pipeline.compare import compare_dicts, compare_files
from sparsecode.pipeline.run import Run
from sparsecode.sweep import Dictionary, dictionary_name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run: Run = make_fake_run(tmp_path_factory.mktemp("compare") / "run")[0]
    compare_dicts(run, quiet=True)
    return run


@pytest.fixture(scope="module")
def found(run: Run) -> Comparison:
    return Comparison.load(run.comparison_path)


def name(size: int, seed: int) -> str:
    return dictionary_name(size, L1, seed)


def test_finds_exactly_the_features_that_were_put_in(found: Comparison) -> None:
    for entry in found.record["dictionaries"]:
        size, seed = entry["dict_size"], entry["seed"]
        held = dictionary(size, seed)[1]
        assert entry["other_seed"]["mcs"]["all"]["above"] == int((held >= 0).sum())
        if size == max(SIZES):
            assert entry["next"] is None and entry["every_larger"] is None
            continue
        for relation, other in (("next", seed), ("next_other_seed", 1 - seed)):
            theirs = dictionary(2 * size, other)[1]
            index = found.index(name(size, seed), name(2 * size, other))
            assert entry[relation]["dictionary"] == name(2 * size, other)
            assert torch.equal(theirs[index[held >= 0]], held[held >= 0]), "each met its own true feature"
        assert entry["every_larger"]["features"] == entry["every_larger"]["live"] == int((held >= 0).sum())
        larger = {name(s, x) for s in SIZES for x in SEEDS if s > size}
        assert set(entry["every_larger"]["dictionaries"]) == larger


def test_dead_features_are_reported_apart(found: Comparison) -> None:
    entry = next(e for e in found.record["dictionaries"] if e["name"] == name(64, 0))
    mcs_next, live = entry["next"]["mcs"], found.tensors[f"{name(64, 0)}.live"].bool()
    assert entry["live"] == int(live.sum()) == mcs_next["live"]["features"] < 64
    assert mcs_next["dead"]["features"] == 64 - entry["live"]
    assert mcs_next["dead"]["above"] == 0
    assert mcs_next["live"]["mean"] > mcs_next["all"]["mean"] > mcs_next["dead"]["mean"]
    values = found.cosine(name(64, 0), name(128, 0))
    assert mcs_next["live"]["mean"] == pytest.approx(float(values[live].mean()), abs=1e-6)
    assert sum(mcs_next["all"]["histogram"]) == 64


def test_numbers_are_those_of_the_functions(found: Comparison, run: Run) -> None:
    a, b = (dictionary(n, 0)[0].W_dec for n in (32, 64))
    values, indices = mcs(a, b)
    torch.testing.assert_close(found.cosine(name(32, 0), name(64, 0)), values, atol=1e-6, rtol=0)
    assert torch.equal(found.index(name(32, 0), name(64, 0)).long(), indices)
    i, j = found.names.index(name(32, 0)), found.names.index(name(64, 0))
    assert found.record["mmcs"]["all"][i][j] == pytest.approx(float(values.mean()), abs=1e-6)
    assert found.record["mmcs"]["all"][j][i] != pytest.approx(float(values.mean()), abs=1e-3), "it has a direction"
    assert found.record["mmcs"]["all"][i][i] == 1
    one_to_one = matched_mcs(a, b)
    torch.testing.assert_close(found.tensors[f"{name(32, 0)}.matched.{name(64, 0)}.cosine"], one_to_one.values)
    entry = found.record["dictionaries"][i]
    assert entry["next"]["matched"]["all"]["mean"] == pytest.approx(float(one_to_one.values.mean()))


def test_the_steadiest_are_the_features_of_the_smallest_each_once(found: Comparison) -> None:
    steadiest = found.record["steadiest"]
    everywhere = [entry for entry in steadiest if entry["stability"] == 1]
    assert len(everywhere) == min(SIZES) // 2, "those that the smallest dictionaries hold too"
    assert all(entry["in_every_larger"] is not False for entry in everywhere)
    assert len(steadiest) == TRUE, "every true feature is found again somewhere, and is listed once"
    assert [e["stability"] for e in steadiest] == sorted((e["stability"] for e in steadiest), reverse=True)


def test_a_second_call_does_nothing_and_other_settings_need_force(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.comparison_path.stat().st_mtime_ns
    again = compare_dicts(run)
    assert "already done" in capsys.readouterr().err
    assert run.comparison_path.stat().st_mtime_ns == before
    assert again.as_json() == json.loads(run.comparison_path.read_text())
    with pytest.raises(SettingsDiffer, match=r"threshold 0\.9, not 0\.5"):
        compare_dicts(run, threshold=0.5)


def test_a_broken_record_is_named(run: Run, tmp_path: Path) -> None:
    shutil.copy(run.comparison_path, tmp_path / "comparison.json")
    with pytest.raises(RunInvalid, match="cannot be read"):
        Comparison.load(tmp_path / "comparison.json")


def test_a_comparison_that_lost_a_file_is_made_again(run: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    before = compare_dicts(copy, force=True, quiet=True).as_json()
    copy.comparison_path.with_suffix(".safetensors").unlink()
    assert compare_dicts(copy, quiet=True).as_json() == before
    assert Comparison.load(copy.comparison_path).as_json()["mmcs"] == before["mmcs"]


def test_dictionaries_that_lost_their_scores_get_them_again(run: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    compare_dicts(copy, quiet=True)
    path = copy.dictionaries_path / name(16, 0)
    scores = Dictionary.load(path).features["stability"]
    dictionary(16, 0)[0].save(path)  # as a training does that is done again
    assert "stability" not in Dictionary.load(path).features
    compare_dicts(copy, quiet=True)
    assert torch.equal(Dictionary.load(path).features["stability"], scores)


def test_needs_dictionaries(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="sparsecode train-dicts"):
        compare_dicts(tmp_path)


def test_files_without_a_run(run: Run, tmp_path: Path) -> None:
    paths = [run.dictionaries_path / name(16, 0), run.dictionaries_path / f"{name(32, 1)}.json"]
    found = compare_files(paths, quiet=True)
    assert found.names == [name(16, 0), name(32, 1)]
    assert list(found.record["matched"]) == [f"{name(16, 0)} -> {name(32, 1)}"]
    assert name(32, 1) in found.table() and "0.9" in found.table()
    found.save(tmp_path / "both.json")
    assert Comparison.load(tmp_path / "both.json").as_json() == json.loads(json.dumps(found.as_json()))
    copy = tmp_path / "copy"
    shutil.copytree(run.dictionaries_path, copy)
    same = compare_files([paths[0], copy / name(16, 0)], quiet=True)
    assert same.record["mmcs"]["all"][0][1] == pytest.approx(1)
    assert same.names[1].startswith(str(copy)), "two files of one name go by their paths"
    long = tmp_path / ("long " * 40)
    shutil.copytree(copy, long)
    table = compare_files([paths[0], long / name(16, 0)], quiet=True).table()
    assert str(long / name(16, 0)) in table and "…" not in table, "no name is cut off"


def test_files_that_cannot_be_compared(run: Run, tmp_path: Path) -> None:
    first = run.dictionaries_path / name(16, 0)
    with pytest.raises(InvalidSetting, match="two or more"):
        compare_files([first])
    with pytest.raises(InvalidSetting, match="twice"):
        compare_files([first, first])
    with pytest.raises(InvalidSetting, match="threshold"):
        compare_files([first, run.dictionaries_path / name(32, 0)], threshold=1.0)
    with pytest.raises(DictionaryInvalid, match="nowhere"):
        compare_files([first, tmp_path / "nowhere"])
    other = dictionary(16, 0)[0]
    other.W_dec = other.W_enc = torch.eye(16, 8)
    with pytest.raises(ZeroAtom, match="8"):
        other.save(tmp_path / "zero")
        compare_files([first, tmp_path / "zero"])


def test_dictionaries_of_other_widths_are_named(run: Run, tmp_path: Path) -> None:
    other = dictionary(16, 0)[0]
    other.W_dec, other.W_enc = torch.ones(16, 8), torch.ones(16, 8)
    other.save(tmp_path / "narrow")
    with pytest.raises(DictionaryInvalid, match="narrow of 8"):
        compare_files([run.dictionaries_path / name(16, 0), tmp_path / "narrow"])


def test_relatives_stay_within_an_l1(tmp_path: Path) -> None:
    for size, seed, l1 in [(16, 0, 0.1), (16, 1, 0.1), (16, 2, 0.1), (64, 0, 0.1), (32, 1, 0.1), (32, 0, 0.2)]:
        dictionary(size, seed, l1)[0].save(tmp_path / dictionary_name(size, l1, seed))
    members = load_members(sorted(tmp_path.glob("*.json")))
    names = [member.name for member in members]
    where = place(members, names.index("n16_l1-0.1_s0"))
    assert where.next == names.index("n64_l1-0.1_s0")
    assert where.other_seed == names.index("n16_l1-0.1_s1")
    assert where.next_other_seed == names.index("n32_l1-0.1_s1")
    assert {names[j] for j in where.larger} == {"n64_l1-0.1_s0", "n32_l1-0.1_s1"}
    assert place(members, names.index("n16_l1-0.1_s2")).other_seed == names.index("n16_l1-0.1_s0")
    alone = place(members, names.index("n32_l1-0.2_s0"))
    assert (alone.next, alone.other_seed, alone.next_other_seed, alone.larger) == (None, None, None, ())
