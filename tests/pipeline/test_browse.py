"""The browse stage on a small run: what it reads, when it is done again, what it serves and exports."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sparsecode.browser import folder as files
from sparsecode.cli import main
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.activations import TopK
from sparsecode.errors import InvalidSetting, NotExpressible, NotRecognised, SettingsDiffer, StageMissing, StageStale
from sparsecode.interop import save_dictionary
from sparsecode.pipeline.baselines import fit_baselines
from sparsecode.pipeline.browse import browse_features, export_browser, serve_browser
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.harvest import harvest_activations
from sparsecode.pipeline.interpret import interpret_directions
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stale import stale
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.pipeline.train_gpt import train_gpt
from sparsecode.store import Dataset

D = 32
TEXT = "\n".join(f"Line {i}: the quick brown fox number {i * 7} jumps over a lazy dog; {i % 13}." for i in range(900))
SMALL: dict[str, Any] = {"rows": 3000, "contexts": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("browse") / "run")
    (run.path.parent / "text.txt").write_text(TEXT)
    train_gpt(
        run, text=(str(run.path.parent / "text.txt"),), val_fraction=0.2, vocab_size=300, n_layer=3, n_head=2,
        d_model=8, d_mlp=D, context=32, batch_size=8, steps=5, warmup_steps=1, val_tokens=64, device="cpu", quiet=True,
    )  # fmt: skip
    harvest_activations(run, rows=4096, device="cpu", quiet=True)
    train_dicts(
        run, sizes="16,32", seeds=2, l1="5e-3", samples=8000, batch_size=256, warmup_steps=1, eval_rows=512,
        engine="reference", device="cpu", threads=1, quiet=True,
    )  # fmt: skip
    compare_dicts(run, threshold=0.5, quiet=True)
    fit_baselines(run, kinds="neurons,pca", rows=2000, eval_rows=512, curve_rows=200, quiet=True)
    interpret_directions(
        run, directions=6, rate=0.1, rows=2000, control=False, draws=100, quiet=True,
    )  # fmt: skip
    browse_features(run, quiet=True, **SMALL)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    shutil.copytree(made.path, tmp_path / "run")
    return Run(tmp_path / "run")


def everything(run: Run) -> dict[str, bytes]:
    home = run.path / "browse"
    return {str(file.relative_to(home)): file.read_bytes() for file in sorted(home.rglob("*")) if file.is_file()}


def test_all_dictionaries_and_baselines_are_shown_with_labels_and_effects(made: Run) -> None:
    home = made.path / "browse"
    about = files.read(home, "run")
    kinds = [one["kind"] for one in about["dictionaries"]]
    assert kinds == ["trained"] * 4 + ["baseline"] * 2 and about["rows"] == 3000 and not about["no_effects"]
    record = json.loads((made.path / "interpret/interpretations.json").read_text())
    said = {(one["dictionary"], one["feature"]): one["text"] for one in record["directions"] if "text" in one}
    shown: dict[tuple[str, int], str] = {}
    for one in about["dictionaries"]:
        columns = files.read(home, f"{one['slug']}/list-0")["columns"]
        shown |= {
            (one["name"], f): words for f, words in zip(columns["feature"], columns["label"], strict=True) if words
        }
        assert one["effects"] == ["direct"] and all(len(ids) == 3 for ids in columns["raised"])
    assert shown == said and len(said) > 5
    counts = compare_dicts(made, quiet=True).found_again()
    for name, own in counts.items():
        about_one = next(one for one in about["dictionaries"] if one["name"] == name)
        assert files.read(home, f"{about_one['slug']}/list-0")["columns"]["found"] == own.tolist()
        assert about_one["among"] == 3


def test_it_is_done_once_resumes_and_says_what_changed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(run)
    assert stale(run) == {}
    browse_features(run, quiet=True)
    with pytest.raises(SettingsDiffer, match="contexts 4, not 5"):
        browse_features(run, contexts=5, quiet=True)
    (run.path / "browse" / files.PAGE).unlink()
    browse_features(run, quiet=True)
    assert everything(run) == before
    browse_features(run, force=True, quiet=True)
    assert everything(run) == before, "the same seed gives the same bytes"
    fit_baselines(run, kinds="neurons", force=True, quiet=True)
    assert set(stale(run)) == {"interpret", "browse"}
    with pytest.raises(StageStale, match="sparsecode interpret --force"):
        browse_features(run, quiet=True)


def test_dictionaries_by_pattern_and_of_another_library(run: Run, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(24, D, generator=generator))
    save_dictionary(Dictionary(atoms.clone(), torch.zeros(24), atoms, activation=TopK(4)), tmp_path / "sae", "saelens")
    browse_features(run, dictionaries=f"n16*,pca,{tmp_path / 'sae'}", force=True, quiet=True, **SMALL)
    home = run.path / "browse"
    about = files.read(home, "run")["dictionaries"]
    assert [one["kind"] for one in about] == ["trained", "trained", "baseline", "other"]
    assert about[-1]["activation"] == "topk" and about[-1]["among"] == 2
    columns = files.read(home, f"{about[-1]['slug']}/list-0")["columns"]
    dataset = Dataset(next(run.activations_path.iterdir()))
    codes = Dictionary(atoms, torch.zeros(24), atoms, activation=TopK(4)).encode(dataset.read(0, 3000))
    assert sum(columns["density"]) == pytest.approx(float((codes > 0).float().mean(0).sum()), rel=0.02)
    with pytest.raises(NotRecognised, match="nothing"):
        browse_features(run, dictionaries="nothing", force=True, quiet=True)
    Dictionary(torch.eye(4), torch.zeros(4), torch.eye(4)).save(tmp_path / "narrow")
    with pytest.raises(NotExpressible, match="reads activations of 4 dimensions"):
        browse_features(run, dictionaries=str(tmp_path / "narrow"), force=True, quiet=True)


def test_measured_effects_stand_beside_and_a_missing_model_is_said(run: Run) -> None:
    browse_features(run, effects="causal", dictionaries="n16*", force=True, quiet=True, **SMALL)
    about = files.read(run.path / "browse", "run")
    assert list(about["effects"]) == ["direct", "causal"]
    record = files.read(run.path / "browse", f"{about['dictionaries'][0]['slug']}/0000")[0]
    assert list(record["e"]) == ["direct", "causal"] and [len(own) for own in record["e"]["causal"]] == [10] * 4
    shutil.rmtree(run.gpt_path)
    result = browse_features(run, dictionaries="n16*", effects="direct", force=True, quiet=True, **SMALL)
    assert result["missing"]["effects"] and files.read(run.path / "browse", "run")["no_effects"]


def test_batches_of_saedashboard(made: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folders = export_browser(made, "saedashboard", out)
    assert len(folders) == 6
    batch = json.loads((folders[1] / "batch-0.json").read_text())
    assert set(batch) == {"model_id", "layer", "sae_set", "sae_id_suffix", "features"} and batch["layer"] == 2
    keys = {
        "feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
        "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson",
        "correlated_features_indices", "correlated_features_l1", "correlated_features_pearson", "neg_str",
        "neg_values", "pos_str", "pos_values", "frac_nonzero", "freq_hist_data_bar_values",
        "freq_hist_data_bar_heights", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
        "n_prompts_total", "n_tokens_in_prompt", "dataset", "decoder_weights_dist", "activations", "vector",
    }  # fmt: skip
    own = {"bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"}
    for feature in batch["features"]:
        assert set(feature) == keys and len(feature["vector"]) == D
        for one in feature["activations"]:
            assert set(one) == own and len(one["tokens"]) == len(one["values"])
            if one["bin_min"] != -1:
                chosen = one["values"][one["qualifying_token_index"]]
                slack = 2e-3 * one["bin_max"]  # numbers of four digits
                assert one["bin_min"] - slack <= chosen <= one["bin_max"] + slack
    with pytest.raises(InvalidSetting, match="empty or not there"):
        export_browser(made, "saedashboard", out)


def test_lines_of_neuronpedia(made: Run, tmp_path: Path) -> None:
    folders = export_browser(made, "neuronpedia", tmp_path / "out")
    assert {folder.parent.name for folder in folders} == {"sparsecode-gpt"}
    ids: list[str] = []
    labels = 0
    for folder in folders:
        for name in ("release", "model", "sourceset", "source"):
            (line,) = (folder / f"{name}.jsonl").read_text().splitlines()
            assert json.loads(line)["createdAt"]
        for kind in ("features", "activations", "explanations"):
            lines = gzip.decompress((folder / kind / "batch-0.jsonl.gz").read_bytes()).decode().splitlines()
            rows = [json.loads(line, parse_constant=lambda _: pytest.fail("not finite")) for line in lines]
            assert len({tuple(row) for row in rows}) <= 1, "all keys on every line, in the same order"
            assert not any("\\u0000" in line for line in lines)
            assert all(row["layer"] == folder.name for row in rows)
            ids += [row["id"] for row in rows if "id" in row]
            labels += len(rows) if kind == "explanations" else 0
    assert len(set(ids)) == len(ids) > 100 and {len(one) for one in ids} == {25} and labels > 5


@pytest.fixture
def address(made: Run) -> Iterator[tuple[str, int]]:
    server = serve_browser(made, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host, port = server.server_address[:2]
    yield str(host), int(port)
    server.shutdown()
    thread.join()
    server.server_close()


def get(address: tuple[str, int], path: str, host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{address[1]}"})
    answer = connection.getresponse()
    return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}


def test_it_serves_the_folder_to_this_machine_alone(made: Run, address: tuple[str, int]) -> None:
    assert address[0] == "127.0.0.1"
    code, page, headers = get(address, "/")
    assert code == 200 and b'data-serve="yes"' in page and "access-control-allow-origin" not in headers
    assert get(address, "/data/run.js")[1] == (made.path / "browse/data/run.js").read_bytes()
    for path in ("/../config.json", "/%2e%2e/config.json", "/data", "/nothing.js", "/%00", "//etc/passwd"):
        assert get(address, path)[0] == 404, path
    assert get(address, "/", host="evil.example")[0] == 403
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("POST", "/", body=b"x")
    assert connection.getresponse().status == 501


def test_a_text_is_tried(made: Run, address: tuple[str, int]) -> None:
    name = files.read(made.path / "browse", "run")["dictionaries"][0]["name"]
    code, data, _ = get(address, f"/try?d={name}&text=the%20quick%20brown")
    found = json.loads(data)
    assert code == 200 and "".join(one["text"] for one in found) == "the quick brown"
    for one in found:
        values = [value for _, _, value in one["features"]]
        assert values == sorted(values, reverse=True) and len(values) <= 5
        assert {key for key, _, _ in one["features"]} <= {name}
    assert json.loads(get(address, "/try?d=*&text=")[1]) == []


def test_the_command_says_what_was_written(run: Run, tmp_path: Path) -> None:
    call = ["browse", "--run", str(run.path), "--export", "saedashboard", str(tmp_path / "out")]
    shown = CliRunner().invoke(main, call)
    assert shown.exit_code == 0, shown.output
    assert str(tmp_path / "out") in shown.output
    found = json.loads(CliRunner().invoke(main, ["browse", "--run", str(run.path), "--json", "--quiet"]).stdout)
    assert found["page"] == "browse/index.html" and found["features"] == sum([16, 16, 32, 32, D, 2 * D])


def test_it_needs_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="sparsecode compare"):
        browse_features(tmp_path)
