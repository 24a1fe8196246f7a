"""Folders of many published dictionaries, and how a folder may be named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from published import call, write_gemma_2, write_llama, write_npz, write_set
from sparsecode.interop import find_dictionaries, find_format


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A folder of several repositories."""
    for layer in (2, 10):
        write_npz(tmp_path / f"all/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_82")
    write_gemma_2(tmp_path / "all/gemma-scope-2-4b-pt/resid_post/layer_12_width_16k_l0_small")
    write_llama(tmp_path / "all/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x")
    write_set(tmp_path / "all/transcoders", 11)
    return tmp_path / "all"


def test_a_folder_of_many_is_a_folder_of_many(collection: Path, tmp_path: Path) -> None:
    found = find_dictionaries(collection)
    assert len(found) == 15
    layers = [one.path.name for one in found if one.format == "circuit_tracer"]
    assert layers == [f"layer_{layer}.safetensors" for layer in range(11)], "in the order of the layers"
    shown = json.loads(call("info", collection, "--json").stdout)
    assert (shown["kind"], len(shown["dictionaries"]), shown["left_out"]) == ("dictionaries", 15, [])
    told = call("info", collection).stdout
    assert told.startswith(f"15 dictionaries in {collection}\n")
    assert "blocks.10.hook_resid_post" in told
    done = call("convert", collection, tmp_path / "out", "--to", "saelens")
    assert done.exit_code == 0, done.stderr
    assert len(find_dictionaries(tmp_path / "out")) == 15
    assert (tmp_path / "out/transcoders/layer_10/cfg.json").is_file()
    compared = json.loads(call("compare", collection, "--json", "-q").stdout)
    assert len(compared["dictionaries"]) == 15
    assert call("info", collection / "transcoders/config.yaml").stdout.startswith("11 dictionaries")


@pytest.mark.parametrize("to", ["sparsecode", "saelens"])
def test_a_copy_of_a_published_dictionary_does_the_same(collection: Path, tmp_path: Path, to: str) -> None:
    for number, one in enumerate(find_dictionaries(collection)):
        out = tmp_path / "copies" / str(number)
        result = call("convert", one.path, out, "--to", to, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["converted"][0]["difference"] < 1e-5
    source = collection / "transcoders/layer_0.safetensors"
    refused = call("convert", source, collection / "transcoders/layer_0", "--to", "sparsecode", "--force")
    assert "the same place" in refused.stderr, "the copy's file would be the source itself"


def test_the_folder_that_one_is_in_may_be_named_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    for path in (".", "../a", "./."):
        assert find_format(path) is not None
        assert call("info", path).exit_code == 0
    assert call("info", "").exit_code == 2, "no path at all"
    assert find_format("/") is None
    assert call("convert", ".", "../copy", "--to", "sparsecode").exit_code == 0
