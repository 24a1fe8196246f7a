"""`convert`, `info` and `compare` with dictionaries of every library, in their own format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from sparsecode.cli import main
from sparsecode.interop import TARGETS, find_model, load_dictionary
from sparsecode.sweep import Dictionary

FIXTURES = Path(__file__).parents[1] / "fixtures/interop"
SAELENS, LEARNING = FIXTURES / "saelens-standard", FIXTURES / "dictionary_learning-AutoEncoder"
SPARSIFY, OPENAI = FIXTURES / "sparsify-topk", FIXTURES / "openai-topk/autoencoder.pt"
LLAMASCOPIUM = FIXTURES / "llamascopium-jumprelu"


def call(*args: object) -> Result:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def own(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(16, 8, generator=generator))
    meta = {"l1": 0.01, "seed": 3, "hook_point": "blocks.2.mlp.hook_post", "metrics": {"fvu": 0.25}}
    density = {"density": torch.rand(16, generator=generator)}
    Dictionary(atoms, torch.zeros(16), atoms, scale=0.2, meta=meta, features=density).save(tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("to", TARGETS)
def test_a_dictionary_goes_out_and_comes_back_with_all_that_was_known_of_it(own: Path, tmp_path: Path, to: str) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    result = call("convert", own, out, "--to", to)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{out}: sparsecode -> {to}, relu, 16 features of 8 dimensions; largest difference")
    assert ("the normalisation of the data is in the weights now" in result.stdout) == (to != "sparsecode")
    assert call("convert", out, back, "--to", "sparsecode", "--quiet").stdout == ""
    before, after = Dictionary.load(own), Dictionary.load(back)
    assert after.meta == before.meta
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(after.encode(x), before.encode(x), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(after.reconstruct(x), before.reconstruct(x), rtol=1e-6, atol=1e-5)
    if to == "saelens":
        assert torch.allclose(after.features["density"], before.features["density"], atol=1e-6)


def test_json_says_what_was_done(own: Path, tmp_path: Path) -> None:
    shown = json.loads(call("convert", own, tmp_path / "o", "--to", "sparsify", "--json").stdout)
    (one,) = shown["converted"]
    assert (one["from"], one["to"], one["activation"], one["dict_size"]) == ("sparsecode", "sparsify", "relu", 16)
    assert one["difference"] < 1e-5
    assert "relu is written as topk of 16, which does the same" in one["notes"]
    assert shown["refused"] == []


def test_a_folder_of_several_keeps_their_names_and_what_cannot_be_said_is_refused(tmp_path: Path) -> None:
    result = call("convert", FIXTURES, tmp_path / "all", "--to", "dictionary_learning", "--json")
    assert result.exit_code == 3
    shown = json.loads(result.stdout)
    assert len(shown["converted"]) == 30
    assert len(shown["refused"]) == 16
    assert "16 of 46 dictionaries left out for the reasons above; the others are done" in result.stderr
    assert result.stderr.count("left out: ") == 16
    assert "dictionary_learning has no transcoders" in result.stderr
    assert (tmp_path / "all/saelens-topk/ae.pt").is_file()
    assert not (tmp_path / "all/sparsify-transcoder").exists()


def test_nothing_is_written_over_unasked(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("convert", own, out, "--to", "saelens").exit_code == 0
    before = (out / "sae_weights.safetensors").read_bytes()
    again = call("convert", SAELENS, out, "--to", "saelens")
    assert again.exit_code == 2
    assert again.stderr == f"sparsecode: {out}: is there already; --force writes over it\n"
    assert (out / "sae_weights.safetensors").read_bytes() == before
    assert call("convert", SAELENS, out, "--to", "saelens", "--force").exit_code == 0
    assert "the same place" in call("convert", out, out, "--to", "saelens", "--force").stderr
    assert "is there already" in call("convert", SAELENS, own, "--to", "sparsecode").stderr
    (tmp_path / "file").touch()
    assert "is a file" in call("convert", SAELENS, tmp_path / "file", "--to", "saelens", "--force").stderr


def test_what_cannot_be_converted_is_one_line(tmp_path: Path) -> None:
    assert call("convert", tmp_path / "none", tmp_path / "o", "--to", "saelens").exit_code == 3
    told = call("convert", OPENAI.parent, tmp_path / "o", "--to", "saelens").stderr
    assert told.endswith("name a .pt file in it: autoencoder.pt\n")
    refused = call("convert", FIXTURES / "saelens-gated", tmp_path / "o", "--to", "sparsify")
    assert refused.exit_code == 3
    assert refused.stderr == (
        f"sparsecode: {FIXTURES / 'saelens-gated'}: sparsify has topk and groupmax only, not gated\n"
    )
    assert not (tmp_path / "o").exists()
    assert call("convert", SAELENS, tmp_path / "o", "--to", "openai").exit_code == 2
    model = call("convert", SAELENS, tmp_path / "o", "--to", "hf")
    assert model.exit_code == 3
    assert "no model that sparsecode, Hugging Face or nanoGPT wrote" in model.stderr


@pytest.mark.parametrize(
    ("path", "library", "activation"),
    [
        (SAELENS, "saelens", "relu"),
        (LEARNING, "dictionary_learning", "relu"),
        (SPARSIFY, "sparsify", "topk"),
        (OPENAI, "openai", "topk"),
        (LLAMASCOPIUM, "llamascopium", "jumprelu"),
    ],
    ids=lambda value: str(value),
)
def test_info_shows_dictionaries_of_other_libraries(path: Path, library: str, activation: str) -> None:
    shown = json.loads(call("info", path, "--json").stdout)
    assert (shown["kind"], shown["library"], shown["activation"]) == ("dictionary", library, activation)
    assert (shown["dict_size"], shown["activation_dim"], shown["output_dim"]) == (16, 8, 8)
    assert shown["tensors"]["W_enc"] == [16, 8]
    assert shown["bytes"] > 0
    lines = call("info", path).stdout
    assert f"  library: {library}\n" in lines
    assert "  activation_dim: 8\n" in lines


def test_compare_takes_any_of_them_at_once(own: Path) -> None:
    paths = [own, SAELENS, LEARNING, SPARSIFY, OPENAI, LLAMASCOPIUM]
    result = call("compare", *paths, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    names = [entry["name"] for entry in json.loads(result.stdout)["dictionaries"]]
    assert names == ["own", "saelens-standard", "dictionary_learning-AutoEncoder", "sparsify-topk", "autoencoder",
                     "llamascopium-jumprelu"]  # fmt: skip


def test_compare_says_what_it_cannot_do_before_it_begins(own: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[Path | str], str]] = [
        ([tmp_path / "nosuch"], "there is no"),
        ([own], "has nothing to be compared with"),
        ([own, own, "--out", tmp_path / "none/x.csv"], "not a folder that can be written to"),
        ([own, SAELENS, "--threshold", "2"], "--threshold must be below 1, not 2"),
        ([own, SAELENS, "--bins", "0"], "--bins must be"),
    ]
    for arguments, message in cases:
        result = call("compare", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_copy_in_another_format_has_the_same_atoms(own: Path, tmp_path: Path) -> None:
    call("convert", own, tmp_path / "sae", "--to", "saelens")
    shown = json.loads(call("compare", own, tmp_path / "sae/cfg.json", "--json", "--quiet").stdout)
    mmcs = torch.tensor(shown["mmcs"]["all"])
    assert mmcs.min() > 1 - 1e-6
    assert "a dictionary was given twice" in call("compare", own, tmp_path).stderr
    whole = call("compare", tmp_path, "--json", "--quiet")
    assert [entry["name"] for entry in json.loads(whole.stdout)["dictionaries"]] == ["own", "sae"]


def test_a_dictionary_of_another_library_is_called_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/trainer_0").symlink_to(LEARNING)
    result = call("compare", tmp_path / "a/trainer_0/ae.pt", LEARNING.parent / "dictionary_learning-AutoEncoderNew")
    assert "trainer_0" in result.stdout


def test_a_planted_file_ends_in_one_line_and_nothing_runs(tmp_path: Path) -> None:
    # As in interop/test_state_dict, through the command line: the file's own unpickler would create `mark`.
    mark = tmp_path / "mark"
    script = (
        "import pathlib, pickle, sys, zipfile\n"
        "class P:\n    def __reduce__(self):\n        return pathlib.Path.touch, (pathlib.Path(sys.argv[2]),)\n"
        "with zipfile.ZipFile(sys.argv[1], 'w') as z:\n    z.writestr('archive/data.pkl', pickle.dumps({'a': P()}))\n"
        "    z.writestr('archive/version', '3')\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "ae.pt", mark], check=True)
    for args in (
        ("info", tmp_path),
        ("convert", tmp_path, tmp_path / "o", "--to", "saelens"),
        ("compare", tmp_path, LEARNING),
    ):
        result = call(*args)
        assert result.exit_code == 3
        assert result.stderr.count("\n") == 1
        assert "not a file of tensors alone" in result.stderr
    assert not mark.exists()


def test_load_dictionary_is_the_same_from_python(own: Path) -> None:
    x = torch.randn(4, 8)
    assert torch.equal(load_dictionary(own).encode(x), Dictionary.load(own).encode(x))
    assert torch.equal(load_dictionary(f"{own}.json").encode(x), Dictionary.load(own).encode(x))


@pytest.mark.parametrize(
    ("config", "tensor", "kind"),
    [
        ({"format": 1, "d_model": 4, "n_layer": 1}, "wte.weight", "gpt"),
        ({"model_type": "gpt2", "n_layer": 1}, "transformer.wte.weight", "hf"),
        ({"model_args": {"n_layer": 1}}, "_orig_mod.transformer.wte.weight", "nanogpt"),
        ({"stages": {}}, "W_enc", None),
        ({"sae_type": "sae", "d_model": 8}, "W_E", None),
    ],
)
def test_models_are_told_from_dictionaries(
    tmp_path: Path, config: dict[str, object], tensor: str, kind: str | None
) -> None:
    name = "sae_weights" if tensor == "W_E" else "model"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert find_model(tmp_path) is None
    save_file({tensor: torch.ones(2)}, tmp_path / f"{name}.safetensors")
    assert find_model(tmp_path) == kind
    if kind == "gpt":
        (tmp_path / "run").mkdir()
        (tmp_path / "run/gpt").symlink_to(tmp_path)
        assert find_model(tmp_path / "run") == kind
        assert "no dictionary of any of these" in call("convert", tmp_path, tmp_path / "o", "--to", "saelens").stderr
        assert "is there already" in call("convert", tmp_path, tmp_path / "run", "--to", "hf").stderr
    if kind == "hf":
        refused = call("convert", tmp_path, tmp_path / "o", "--to", "hf")
        assert refused.exit_code == 3
        assert "a hf model cannot become hf; possible: sparsecode" in refused.stderr
    if kind == "nanogpt":
        assert find_model(tmp_path / "model.safetensors") == kind


def test_a_run_gives_its_dictionaries_to_libraries_of_dictionaries(own: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "gpt").mkdir(parents=True)
    (run / "gpt/config.json").write_text('{"d_model": 4}')
    save_file({"wte.weight": torch.ones(2)}, run / "gpt/model.safetensors")
    (run / "config.json").write_text('{"stages": {}}')
    (run / "comparison.json").write_text("{}")
    save_file({"a.cosine": torch.ones(2)}, run / "comparison.safetensors")
    Dictionary.load(own).save(run / "dictionaries/n16")
    assert find_model(run) == "gpt"
    for to, name in (("saelens", "n16/cfg.json"), ("sparsecode", "n16.json")):
        assert call("convert", run, tmp_path / to, "--to", to).exit_code == 0
        assert (tmp_path / to / "dictionaries" / name).is_file()


def test_no_fixture_is_taken_for_a_model() -> None:
    assert not [folder for folder in FIXTURES.iterdir() if find_model(folder) is not None]
