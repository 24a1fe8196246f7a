"""Dictionaries made by other libraries encode and decode here as there, to 1e-5.

The files are made by tests/peers/make_fixtures.py in environments of the libraries; `make interop` makes fresh ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparsecode.errors import NotExpressible
from sparsecode.interop import TARGETS, find_dictionaries, find_format, load_dictionary, save_dictionary
from sparsecode.sweep import Dictionary

FIXTURES = Path(__file__).parents[1] / "fixtures/interop"
CASES = sorted(folder for folder in FIXTURES.iterdir() if folder.is_dir())
LIBRARIES = ("saelens", "dictionary_learning", "sparsify", "openai", "llamascopium")
TOLERANCE = 1e-5


def path_of(case: Path) -> Path:
    """The path a user would name: the folder, or the single file for openai."""
    return next(case.glob("autoencoder.pt"), case)


def largest_difference(dictionary: Dictionary, case: Path) -> float:
    """Largest difference of codes and output from what the library computed."""
    expected = load_file(case / "expected.safetensors")
    codes = dictionary.encode(expected["x"])
    output = dictionary.decode(expected["codes"], expected["x"])
    whole = dictionary.reconstruct(expected["x"])
    return max(
        float((codes - expected["codes"]).abs().max()),
        float((output - expected["output"]).abs().max()),
        float((whole - expected["output"]).abs().max()),
    )


def test_every_library_is_here() -> None:
    counts = {library: sum(case.name.startswith(library) for case in CASES) for library in LIBRARIES}
    assert counts == {"saelens": 23, "dictionary_learning": 9, "sparsify": 6, "openai": 3, "llamascopium": 8}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_encodes_and_decodes_as_its_library_does(case: Path) -> None:
    found = find_format(path_of(case))
    assert found is not None
    assert case.name.startswith(found.format)
    assert largest_difference(load_dictionary(path_of(case)), case) < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("to", TARGETS)
def test_it_is_the_same_in_every_format_that_can_say_it(case: Path, to: str, tmp_path: Path) -> None:
    original = load_dictionary(path_of(case))
    copy = tmp_path / "copy"
    expressible = to in EXPRESSIBLE[case.name]
    if not expressible:
        with pytest.raises(NotExpressible):
            save_dictionary(original, copy, to)
        assert not list(tmp_path.iterdir()), "a refusal leaves nothing behind"
        return
    save_dictionary(original, copy, to)
    x = load_file(case / "expected.safetensors")["x"]
    again = load_dictionary(copy)
    torch.testing.assert_close(again.encode(x), original.encode(x), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(again.reconstruct(x), original.reconstruct(x), rtol=0, atol=TOLERANCE)
    assert again.meta.get("hook_point") == original.meta.get("hook_point")
    if to == "sparsecode":
        for name in ("W_enc", "b_enc", "W_dec"):
            assert torch.equal(getattr(again, name), getattr(original, name))


ALL = frozenset(TARGETS)
OWN, SAELENS = frozenset({"sparsecode"}), frozenset({"sparsecode", "saelens"})
# What can be said where: what is missing is refused by name.
EXPRESSIBLE = {
    "dictionary_learning-AutoEncoder": ALL,
    "dictionary_learning-AutoEncoder-long-atoms": ALL,
    "dictionary_learning-AutoEncoderNew": ALL,
    "dictionary_learning-AutoEncoderTopK": ALL,
    "dictionary_learning-BatchTopKSAE": ALL - {"sparsify"},
    "dictionary_learning-BatchTopKSAE-no-threshold": ALL - {"sparsify"},
    "dictionary_learning-GatedAutoEncoder": ALL - {"sparsify"},
    "dictionary_learning-JumpReluAutoEncoder": ALL - {"sparsify"},
    "dictionary_learning-MatryoshkaBatchTopKSAE": ALL - {"sparsify"},
    "llamascopium-jumprelu": ALL - {"sparsify"},
    "llamascopium-jumprelu-plain": ALL - {"sparsify"},
    "llamascopium-relu": ALL,
    "llamascopium-relu-dataset-wise": ALL,
    "llamascopium-relu-no-bias": ALL,
    "llamascopium-relu-token-wise": SAELENS,
    "llamascopium-topk": OWN,
    "llamascopium-transcoder": SAELENS,
    "openai-relu": ALL,
    "openai-topk": SAELENS,
    "openai-topk-identity": OWN,
    "saelens-abstopk": SAELENS,
    "saelens-batchtopk-inference": ALL - {"sparsify"},
    "saelens-bfloat16": ALL,
    "saelens-constant-norm": SAELENS,
    "saelens-expected-average": ALL,
    "saelens-gated": ALL - {"sparsify"},
    "saelens-jumprelu": ALL - {"sparsify"},
    "saelens-jumprelu-no-subtraction": ALL - {"sparsify"},
    "saelens-jumprelu-skip-transcoder": SAELENS,
    "saelens-jumprelu-transcoder": SAELENS,
    "saelens-layer-norm": SAELENS,
    "saelens-matryoshka-inference": ALL - {"sparsify"},
    "saelens-old-log-threshold": ALL - {"sparsify"},
    "saelens-old-standard": ALL,
    "saelens-old-topk": ALL,
    "saelens-seed-style": ALL,
    "saelens-skip-transcoder": SAELENS | {"sparsify"},
    "saelens-standard": ALL,
    "saelens-topk": ALL,
    "saelens-topk-layer-norm": SAELENS,
    "saelens-topk-rescaled": ALL,
    "saelens-transcoder": SAELENS,
    "saelens-transcoder-layer-norm": SAELENS,
    "sparsify-groupmax": frozenset({"sparsecode", "sparsify"}),
    "sparsify-num-latents-0": ALL,
    "sparsify-skip": frozenset({"sparsecode", "sparsify"}),
    "sparsify-skip-transcoder": frozenset({"sparsecode", "sparsify"}),
    "sparsify-topk": ALL,
    "sparsify-transcoder": frozenset({"sparsecode", "sparsify"}),
}


def test_the_library_of_a_fixture_is_pinned() -> None:
    pinned = {
        line.strip()
        for file in (FIXTURES.parents[1] / "peers").glob("requirements-*.txt")
        for line in file.read_text().splitlines()
        if "==" in line
    }
    for library, distribution in (
        ("saelens", "sae-lens"), ("dictionary_learning", "dictionary-learning"), ("sparsify", "eai-sparsify"),
    ):  # fmt: skip
        made = json.loads((FIXTURES / f"{library}.json").read_text())
        assert f"{distribution}=={made[distribution]}" in pinned


def test_all_of_a_folder_are_found() -> None:
    names = {found.name for found in find_dictionaries(FIXTURES)}
    assert {case.name for case in CASES if not case.name.startswith("openai")} == names
