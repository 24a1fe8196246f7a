"""One bad file among many: the rest is done, what was left out is listed with its reason, and the exit code tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from sparsecode.cli import main
from sparsecode.comparison import load_members, mcs
from sparsecode.comparison.matching import matched_mcs
from sparsecode.errors import DictionaryInvalid, ZeroAtom
from sparsecode.interop import find_dictionaries, save_dictionary
from sparsecode.pipeline.compare import compare_files
from sparsecode.store import DatasetWriter
from sparsecode.sweep import Dictionary

D, N = 6, 20
ZERO = [5, 11]  # atoms without a direction


def call(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def atoms(seed: int, n: int = N) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)))


def write(path: Path, W: Tensor, **meta: object) -> Path:
    density = {"density": torch.linspace(0.1, 0.9, len(W))}
    made = Dictionary(W.clone(), torch.zeros(len(W)), W, meta={"source": {}, **meta}, features=density)
    save_dictionary(made, path, "saelens")
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of three dictionaries, one of which is cut short."""
    folder = tmp_path / "three"
    for seed in range(3):
        write(folder / f"d{seed}", atoms(seed))
    weights = folder / "d1/sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    return folder


def test_a_zero_atom_is_left_out_of_a_comparison_and_everything_else_is_as_without_it(tmp_path: Path) -> None:
    whole, other = atoms(1), atoms(2)
    dead = whole.clone()
    dead[ZERO] = 0
    kept = [i for i in range(N) if i not in ZERO]
    paths = [write(tmp_path / "a", other), write(tmp_path / "b", dead)]
    found = compare_files(paths, quiet=True)
    forward, index = mcs(other, whole[kept])
    assert torch.equal(found.cosine("a", "b"), forward)
    assert torch.equal(found.index("a", "b").long(), torch.tensor(kept)[index])
    back, nearest = mcs(whole[kept], other)
    assert torch.equal(found.cosine("b", "a")[kept], back)
    assert torch.equal(found.index("b", "a")[kept].long(), nearest)
    assert found.cosine("b", "a")[ZERO].isnan().all()
    assert found.index("b", "a")[ZERO].tolist() == [-1, -1]
    assert torch.equal(found.index("b", "b")[kept].long(), torch.tensor(kept)), "each is itself"
    matched = matched_mcs(whole[kept], other)
    for seen, a, b in ((found.matched("b", "a"), "b", "a"), (found.matched("a", "b"), "a", "b")):
        assert seen is not None
        assert len(seen) == N, (a, b)
    of_b, of_a = found.matched("b", "a"), found.matched("a", "b")
    assert of_a is not None
    assert of_b is not None
    torch.testing.assert_close(of_b.values[kept], matched.values)
    assert of_b.indices[ZERO].tolist() == [-1, -1]
    assert not set(of_a.indices.tolist()) & set(ZERO)
    entry = found.record["dictionaries"][1]
    assert (entry["dict_size"], entry["without_direction"], entry["live"]) == (N, 2, N - 2)
    assert found.record["mmcs"]["all"][1][0] == pytest.approx(float(back.double().mean()))
    assert all(one["feature"] not in ZERO for one in found.record["steadiest"] if one["dictionary"] == "b")


def test_a_zero_atom_is_told_in_a_line_and_the_exit_code_is_0(tmp_path: Path) -> None:
    dead = atoms(1)
    dead[ZERO] = 0
    paths = [write(tmp_path / "a", atoms(2)), write(tmp_path / "b", dead)]
    result = call("compare", *paths, "--out", tmp_path / "m.csv")
    assert result.exit_code == 0, result.stderr
    assert "b: 2 of 20 atoms are zero and have no direction" in result.stdout
    rows = [line.split(",") for line in (tmp_path / "m.csv").read_text().splitlines()]
    assert ["b", "a", "5", "", "", "", ""] in rows
    assert len(rows) == 1 + 2 * N
    assert call("compare", *paths, "-q").exit_code == 0


def test_a_dictionary_of_zeros_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    bad = write(tmp_path / "z", torch.zeros(N, D))
    with pytest.raises(ZeroAtom, match="atom 0 is zero"):
        load_members([bad], least=1)
    good = [write(tmp_path / f"d{seed}", atoms(seed)) for seed in range(2)]
    result = call("compare", *good, bad)
    assert result.exit_code == 3
    assert "left out: " in result.stderr
    assert "z: atom 0 is zero" in result.stderr


@pytest.mark.parametrize("to", ["sparsecode", "dictionary_learning"])
def test_a_broken_file_in_a_folder_does_not_end_a_conversion(three: Path, tmp_path: Path, to: str) -> None:
    result = call("convert", three, tmp_path / "out", "--to", to)
    assert result.exit_code == 3
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"left out: {three}/d1/sae_weights.safetensors: missing or not a whole safetensors file")
    assert lines[1] == "sparsecode: 1 of 3 dictionaries left out for the reasons above; the others are done"
    assert len(result.stdout.splitlines()) >= 2
    assert [one.name for one in find_dictionaries(tmp_path / "out")] == ["d0", "d2"]
    shown = json.loads(call("convert", three, tmp_path / "out", "--to", to, "--json", "--force").stdout)
    assert [one["source"] for one in shown["refused"]] == [str(three / "d1")]
    assert len(shown["converted"]) == 2
    alone = call("convert", three / "d1", tmp_path / "o", "--to", to)
    assert (alone.exit_code, alone.stderr.count("\n")) == (3, 1), "a lone one fails as itself"
    assert "left out" not in alone.stderr


def test_what_is_there_already_does_not_keep_the_rest_from_being_written(three: Path, tmp_path: Path) -> None:
    assert call("convert", three / "d0", tmp_path / "out/d0", "--to", "sparsecode").exit_code == 0
    result = call("convert", three, tmp_path / "out", "--to", "sparsecode")
    assert "is there already; --force writes over it" in result.stderr
    assert (tmp_path / "out/d2.json").is_file()


def test_compare_lists_what_it_could_not_read(three: Path, tmp_path: Path) -> None:
    for arguments in ([three], [three / "d0", three / "d1", three / "d2"]):
        result = call("compare", *arguments, "--json", "-q")
        assert result.exit_code == 3
        shown = json.loads(result.stdout)
        assert [entry["name"] for entry in shown["dictionaries"]] == ["d0", "d2"]
        assert [Path(one["path"]).name for one in shown["left_out"]] == ["d1"]
        assert "1 of 3 dictionaries left out" in result.stderr
    missing = call("compare", three / "d0", three / "d2", tmp_path / "none")
    assert missing.exit_code == 3
    assert "left out: " in missing.stderr
    assert "MMCS" in missing.stdout
    too_few = call("compare", three / "d0", three / "d1")
    assert (too_few.exit_code, too_few.stderr.count("\n")) == (3, 1)
    with pytest.raises(DictionaryInvalid, match="not a whole safetensors file"):
        load_members([three / "d0", three / "d1"])


def test_info_lists_what_it_could_not_read(three: Path) -> None:
    result = call("info", three)
    assert result.exit_code == 3
    assert result.stdout.startswith(f"2 dictionaries in {three}\n")
    assert f"left out: {three}/d1/sae_weights.safetensors" in result.stderr
    assert "1 of 3 parts left out" in result.stderr


def dataset(path: Path) -> Path:
    writer = DatasetWriter(path, activation_dim=4, dtype="float32", provenance={}, shard_bytes=1 << 20, durable=False)
    with writer:
        writer.append(torch.ones(10, 4), torch.zeros(10, dtype=torch.int32))
        writer.finish()
    return path


def test_info_of_several_datasets_shows_those_that_are_whole(tmp_path: Path) -> None:
    dataset(tmp_path / "sets/a")
    (dataset(tmp_path / "sets/b") / "manifest.json").write_text("{")
    result = call("info", tmp_path / "sets", "--json")
    assert result.exit_code == 3
    shown = json.loads(result.stdout)
    assert [one["path"] for one in shown["datasets"]] == [str(tmp_path / "sets/a")]
    assert [one["path"] for one in shown["left_out"]] == [str(tmp_path / "sets/b")]
    verified = call("verify", tmp_path / "sets")
    assert verified.exit_code == 1
    assert "sets/a: 1 shards, 10 rows, complete, all as written" in verified.stdout
    assert "sets/b: cannot be opened" in verified.stdout


def test_merge_takes_a_folder_and_names_all_that_is_broken_before_it_writes(tmp_path: Path) -> None:
    for name in "abcd":
        dataset(tmp_path / "sets" / name)
    assert call("merge", tmp_path / "sets", "--into", tmp_path / "whole").exit_code == 0
    assert json.loads(call("info", tmp_path / "whole", "--json").stdout)["rows"] == 40
    for name in "bd":
        (tmp_path / "sets" / name / "manifest.json").write_text("{")
    result = call("merge", tmp_path / "sets", "--into", tmp_path / "other")
    assert result.exit_code == 3
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["cannot be read"] * 2 + ["sparsecode"]
    assert "2 of 4 datasets cannot be read (above); nothing was written" in result.stderr
    assert not (tmp_path / "other").exists()


def test_a_folder_that_may_not_be_looked_into_is_passed_by(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (three / "closed").mkdir()
    plain = Path.iterdir

    def iterdir(self: Path) -> object:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert [one.name for one in find_dictionaries(three)] == ["d0", "d1", "d2"]


def test_numbers_of_names_are_sorted_as_numbers(tmp_path: Path) -> None:
    for layer in (10, 2, 1):
        arrays: dict[str, Any] = {name: np.ones((2, 2)) for name in ("W_enc", "W_dec", "threshold")}
        np.savez(tmp_path / f"layer_{layer}.npz", **arrays)
    assert [one.name for one in find_dictionaries(tmp_path)] == ["layer_1", "layer_2", "layer_10"]
