"""Faults in other libraries' files, and what their formats cannot express: each error names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsecode.dictionary import Dictionary, Gated, TopK
from sparsecode.errors import (
    DictionaryInvalid,
    InvalidArgument,
    InvalidSetting,
    NotExpressible,
    NotRecognised,
    ZeroAtom,
)
from sparsecode.interop import find_format, load_dictionary, save_dictionary
from sparsecode.interop.fold import folded
from sparsecode.interop.state_dict import read_state_dict, write_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures/interop"
D, N = 8, 16


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    """A fixture's folder, to be changed."""

    def of(name: str) -> Path:
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return of


def change_json(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(path: Path, changes: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(path) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("saelens-standard", {"architecture": "new"}, r"cfg\.json: architecture 'new' is unknown"),
        ("saelens-standard", {"dtype": "int7"}, "dtype 'int7' is none of float32"),
        ("saelens-standard", {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input is 'yes', not bool"),
        ("saelens-standard", {"normalize_activations": "whiten"}, "input_norm 'whiten' is unknown"),
        ("saelens-standard", {"normalize_activations": []}, r"normalize_activations is \[\], not str"),
        ("saelens-old-standard", {"normalize_activations": {}}, r"normalize_activations is \{\}, not str"),
        ("saelens-topk", {"k": None}, "k is None, not int"),
        ("saelens-topk", {"k": 17}, "k is 17, not a whole number from 1 to 16"),
        ("saelens-topk", {"k": 0}, "k is 0, not a whole number"),
        ("saelens-standard", {"architecture": "gated"}, "no tensor b_gate"),
        ("saelens-jumprelu", {"architecture": "standard"}, "holds threshold, which this format is not known to have"),
        ("sparsify-topk", {"num_latents": 15}, "says 15 latents of 8 dimensions, but the weights are"),
        ("sparsify-num-latents-0", {"expansion_factor": 10**12}, "latents of 8 dimensions"),
        ("sparsify-topk", {"activation": "softmax"}, "activation 'softmax' is unknown"),
        ("sparsify-topk", {"skip_connection": True}, "no tensor W_skip"),
        ("sparsify-skip", {"skip_connection": False}, "holds W_skip"),
        ("sparsify-groupmax", {"k": 5}, "16 features do not make 5 groups"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    copy: Callable[[str], Path], name: str, changes: dict[str, Any], message: str
) -> None:
    folder = copy(name)
    change_json(folder / "cfg.json", changes)
    with pytest.raises(DictionaryInvalid, match=message) as raised:
        load_dictionary(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dict_class": ["AutoEncoderTopK"]}, r"dict_class \['AutoEncoderTopK'\] is unknown"),
        ({"dict_class": "MyDict"}, "dict_class 'MyDict' is unknown; known: AutoEncoder"),
        ({"k": 4}, "k is 4, but 3 in the weights"),
        ({"dict_class": "AutoEncoder"}, "no tensor bias"),
    ],
)
def test_a_trainer_that_does_not_fit_is_named(
    copy: Callable[[str], Path], changes: dict[str, Any], message: str
) -> None:
    folder = copy("dictionary_learning-AutoEncoderTopK")
    config = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", {"trainer": config["trainer"] | changes})
    with pytest.raises(DictionaryInvalid, match=message):
        load_dictionary(folder)


def test_twins_need_their_configuration_and_others_do_not(copy: Callable[[str], Path]) -> None:
    folder = copy("dictionary_learning-AutoEncoderTopK")
    (folder / "config.json").unlink()
    with pytest.raises(DictionaryInvalid, match="the same in AutoEncoderTopK and BatchTopKSAE; put its config"):
        load_dictionary(folder)
    for name in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        folder = copy(f"dictionary_learning-{name}")
        known = load_dictionary(folder)
        (folder / "config.json").unlink()
        x = load_file(folder / "expected.safetensors")["x"]
        assert torch.equal(load_dictionary(folder).encode(x), known.encode(x))


def test_a_checkpoint_in_a_folder_of_its_own_finds_the_configuration(copy: Callable[[str], Path]) -> None:
    folder = copy("dictionary_learning-BatchTopKSAE")
    (folder / "checkpoints").mkdir()
    (folder / "ae.pt").rename(folder / "checkpoints/ae_100.pt")
    assert load_dictionary(folder / "checkpoints/ae_100.pt").activation.name == "batchtopk"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W_dec": torch.ones(N, D + 1)}, "W_enc has shape|b_dec has shape"),
        ({"b_enc": torch.full((N,), float("nan"))}, "b_enc holds NaN"),
        ({"b_enc": torch.ones(N, dtype=torch.int32)}, r"b_enc is torch.int32 \[16\]"),
        ({"W_enc": torch.ones(D)}, r"W_enc is torch.float32 \[8\], not 2-dimensional"),
        ({"extra": torch.ones(1)}, "holds extra, which"),
        ({"b_dec": None}, "no tensor b_dec"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    copy: Callable[[str], Path], changes: dict[str, torch.Tensor | None], message: str
) -> None:
    folder = copy("saelens-standard")
    change_tensors(folder / "sae_weights.safetensors", changes)
    with pytest.raises(DictionaryInvalid, match=message) as raised:
        load_dictionary(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("saelens-topk-rescaled", {"W_dec": torch.ones(N - 1, D)}),
        ("saelens-topk-rescaled", {"b_enc": torch.ones(N + 1)}),
        ("llamascopium-jumprelu", {"activation_function.log_jumprelu_threshold": torch.ones(N - 1)}),
    ],
)
def test_weights_that_do_not_fit_are_named_before_they_are_combined(
    copy: Callable[[str], Path], name: str, changes: dict[str, torch.Tensor | None]
) -> None:
    folder = copy(name)
    change_tensors(folder / "sae_weights.safetensors", changes)
    with pytest.raises(DictionaryInvalid, match="different numbers of features") as raised:
        load_dictionary(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2.5])
def test_a_k_that_is_no_whole_number_is_named(copy: Callable[[str], Path], bad: float) -> None:
    file = copy("dictionary_learning-AutoEncoderTopK") / "ae.pt"
    write_state_dict(file, read_state_dict(file) | {"k": torch.tensor(bad)})
    with pytest.raises(DictionaryInvalid, match=rf"ae\.pt: k is {bad}, not a number of features"):
        load_dictionary(file)


def test_a_k_in_words_is_named() -> None:
    with pytest.raises(DictionaryInvalid, match="k is '3', not a number of features"):
        Dictionary(torch.ones(N, D), torch.zeros(N), torch.ones(N, D), activation=TopK("3"))  # type: ignore[arg-type]


def test_a_scale_that_saelens_itself_no_longer_reads_is_refused_and_ones_are_not(copy: Callable[[str], Path]) -> None:
    folder = copy("saelens-standard")
    change_tensors(folder / "sae_weights.safetensors", {"scaling_factor": torch.ones(N)})
    load_dictionary(folder)
    change_tensors(folder / "sae_weights.safetensors", {"scaling_factor": torch.arange(float(N))})
    with pytest.raises(NotExpressible, match="has a scaling_factor"):
        load_dictionary(folder)


@pytest.mark.parametrize("architecture", ["matching_pursuit", "temporal"])
def test_architectures_that_encode_otherwise_are_refused(copy: Callable[[str], Path], architecture: str) -> None:
    folder = copy("saelens-standard")
    change_json(folder / "cfg.json", {"architecture": architecture})
    with pytest.raises(NotExpressible, match=f"a {architecture} SAE"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sae_type": "crosscoder"}, "a crosscoder encoder"),
        ({"use_glu_encoder": True}, "a gated linear encoder"),
        ({"act_fn": "batchtopk"}, "batchtopk depends on the other rows"),
        ({"norm_activation": "batch-wise"}, "norm_activation batch-wise needs more than the row"),
        ({"norm_activation": "token-wise", "hook_point_out": "elsewhere"}, "norm_activation token-wise needs more"),
    ],
)
def test_what_llamascopium_does_to_whole_batches_is_refused(
    copy: Callable[[str], Path], changes: dict[str, Any], message: str
) -> None:
    folder = copy("llamascopium-relu")
    change_json(folder / "config.json", changes)
    with pytest.raises(NotExpressible, match=message):
        load_dictionary(folder)


def test_a_norm_that_was_never_measured_is_named(copy: Callable[[str], Path]) -> None:
    folder = copy("llamascopium-relu-dataset-wise")
    name = "dataset_average_activation_norm.blocks.2.hook_resid_mid"
    for bad in (torch.tensor(0.0), torch.tensor(float("nan"))):
        change_tensors(folder / "sae_weights.safetensors", {name: bad})
        with pytest.raises(DictionaryInvalid, match="dataset-wise normalisation by"):
            load_dictionary(folder)


@pytest.mark.parametrize("bad", [0, -1, D + 1])
def test_a_width_that_is_not_the_weights_is_named(copy: Callable[[str], Path], bad: int) -> None:
    folder = copy("llamascopium-relu-dataset-wise")  # the norm is divided by its root
    change_json(folder / "config.json", {"d_model": bad})
    with pytest.raises(DictionaryInvalid, match=f"d_model is {bad}, but the weights read 8 dimensions"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation": "Identity"}, NotExpressible, "activation 'Identity' is none of ReLU and TopK"),
        ({"activation_state_dict": {"k": 3, "postact_fn": "GELU"}}, NotExpressible, "after TopK comes 'GELU'"),
        ({"activation_state_dict": {"postact_fn": "ReLU"}}, DictionaryInvalid, "has k None"),
        ({"decoder.linear.weight": torch.ones(N, D)}, NotExpressible, "are tied"),
        ({"latent_bias": torch.ones(N - 1)}, DictionaryInvalid, "b_enc has shape"),
    ],
)
def test_openai_files_that_do_something_else_are_named(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    held = read_state_dict(FIXTURES / "openai-topk/autoencoder.pt") | changes
    write_state_dict(tmp_path / "plain.pt", {"w": torch.ones(1)})  # the writer is for flat dicts of tensors
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(error, match=message):
        load_dictionary(tmp_path / "a.pt")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\x00", "3"])
def test_a_configuration_that_is_not_json_is_named(copy: Callable[[str], Path], text: str) -> None:
    folder = copy("saelens-standard")
    (folder / "cfg.json").write_text(text)
    with pytest.raises(DictionaryInvalid, match=r"cfg\.json"):
        load_dictionary(folder)


def test_a_huge_configuration_is_not_read(copy: Callable[[str], Path]) -> None:
    folder = copy("saelens-standard")
    with (folder / "cfg.json").open("r+b") as opened:
        opened.truncate(65 << 20)  # a sparse file
    with pytest.raises(DictionaryInvalid, match="larger than any configuration"):
        load_dictionary(folder)


def test_weights_cut_short_are_named(copy: Callable[[str], Path]) -> None:
    folder = copy("sparsify-topk")
    weights = folder / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(DictionaryInvalid, match="not a whole safetensors file"):
        load_dictionary(folder)


def test_what_is_no_dictionary_is_not_recognised(tmp_path: Path) -> None:
    with pytest.raises(NotRecognised, match="no such file or folder"):
        load_dictionary(tmp_path / "none")
    with pytest.raises(NotRecognised, match="no dictionary of any of these: sparsecode, SAELens"):
        load_dictionary(tmp_path)
    with pytest.raises(NotRecognised, match=r"holds 46 dictionaries; name one of them: .*, \.\.\."):
        load_dictionary(FIXTURES)
    (tmp_path / "config.json").write_text('{"stages": {}}')
    (tmp_path / "cfg.json").write_text("{}")
    assert find_format(tmp_path) is None


@pytest.mark.parametrize("name", ["", "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"])
def test_a_dictionary_may_be_named_by_any_of_its_files(name: str) -> None:
    found = find_format(FIXTURES / "saelens-standard" / name)
    assert found is not None
    assert (found.format, found.name) == ("saelens", "saelens-standard")


def test_only_known_formats_are_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot write 'openai'; formats: sparsecode, saelens"):
        save_dictionary(load_dictionary(FIXTURES / "saelens-standard"), tmp_path / "a", "openai")


def test_zero_atoms_are_damage_here_and_untrained_features_elsewhere(tmp_path: Path) -> None:
    weights = torch.eye(N, D)
    with pytest.raises(ZeroAtom):
        Dictionary(torch.ones(N, D), torch.zeros(N), weights)
    folder = Path(shutil.copytree(FIXTURES / "sparsify-transcoder", tmp_path / "fresh"))
    change_tensors(folder / "sae.safetensors", {"W_dec": torch.zeros(N, D)})  # as sparsify makes a transcoder
    fresh = load_dictionary(folder)
    fresh.save(tmp_path / "own")
    assert not Dictionary.load(tmp_path / "own").W_dec.any()


def test_decode_asks_for_the_activations_where_it_needs_them() -> None:
    for name in ("saelens-layer-norm", "saelens-skip-transcoder", "sparsify-skip", "llamascopium-relu-token-wise"):
        with pytest.raises(InvalidArgument, match=r"decode\(codes, x\)"):
            load_dictionary(FIXTURES / name).decode(torch.zeros(1, N))
    assert load_dictionary(FIXTURES / "saelens-transcoder-layer-norm").decode(torch.zeros(2, N)).shape == (2, 6)


def test_folding_keeps_what_a_dictionary_does_whatever_it_is_told_to_subtract() -> None:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x = values(32, D) + 5
    gate = {"activation": Gated(values(N), values(N))}
    for b_dec in (None, values(D)):
        for mean in (None, values(D) * 4):
            for subtracts in (True, False):
                for more in ({}, gate, {"W_skip": values(D, D)}):
                    original = Dictionary(
                        values(N, D), values(N), values(N, D), b_dec, mean, 0.5, apply_b_dec_to_input=subtracts,
                        **more,
                    )  # fmt: skip
                    for subtract in (None, True, False):
                        plain = folded(original, subtract=subtract)
                        assert plain.mean is None
                        assert plain.scale == 1
                        assert subtract is None or plain.apply_b_dec_to_input == subtract
                        torch.testing.assert_close(plain.encode(x), original.encode(x), rtol=1e-5, atol=3e-5)
                        torch.testing.assert_close(plain.reconstruct(x), original.reconstruct(x), rtol=1e-5, atol=3e-5)


def test_folding_does_not_promise_what_it_cannot() -> None:
    rows = Dictionary(torch.ones(N, D), torch.ones(N), torch.ones(N, D), scale=2, input_norm="layer_norm")
    with pytest.raises(NotExpressible, match="a mean or scale before layer_norm"):
        folded(rows)
    with pytest.raises(NotExpressible, match="a transcoder does not subtract b_dec"):
        folded(load_dictionary(FIXTURES / "sparsify-transcoder"), subtract=True)
