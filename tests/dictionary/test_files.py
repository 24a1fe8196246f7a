"""Formats 1 and 2 of a dictionary's files: old files stay readable, and old readers refuse what they would misread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparsecode.dictionary import (
    AbsTopK,
    Activation,
    BatchTopK,
    Dictionary,
    Gated,
    GroupMax,
    JumpRelu,
    Relu,
    TopK,
    TopKLinear,
)
from sparsecode.dictionary.activations import ACTIVATIONS
from sparsecode.errors import DictionaryInvalid

OLD = Path(__file__).parents[1] / "fixtures/dictionary-v1"
N, D = 6, 4
FORMAT_1_KEYS = {
    "format", "sparsecode_version", "dict_size", "activation_dim", "activation", "normalization",
}  # fmt: skip
EYE = torch.eye(N, D) + 0.5


def make(**settings: Any) -> Dictionary:
    return Dictionary(EYE, torch.zeros(N), EYE, **settings)


NEW: dict[str, dict[str, Any]] = {
    "jumprelu": {"activation": JumpRelu(torch.rand(N))},
    "batchtopk": {"activation": BatchTopK(torch.ones(N), 2.5)},
    "topk": {"activation": TopK(2, torch.rand(N))},
    "topk_linear": {"activation": TopKLinear(2)},
    "abstopk": {"activation": AbsTopK(2)},
    "groupmax": {"activation": GroupMax(3)},
    "gated": {"activation": Gated(torch.rand(N), torch.rand(N))},
    "no subtraction": {"b_dec": torch.ones(D), "apply_b_dec_to_input": False},
    "layer norm": {"input_norm": "layer_norm"},
    "skip": {"W_skip": torch.rand(D, D)},
    "transcoder": {"transcoder": True, "apply_b_dec_to_input": False, "b_dec": torch.ones(D)},
}


def test_a_file_of_format_1_still_reads_and_does_the_same() -> None:
    found = Dictionary.load(OLD / "n7_l1-0.01_s2")
    # Products of torch: another processor sums in another order, and rounds otherwise.
    expected = load_file(OLD / "expected.safetensors")
    torch.testing.assert_close(found.encode(expected["x"]), expected["codes"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.decode(expected["codes"]), expected["output"], rtol=1e-5, atol=1e-6)
    assert found.meta["metrics"]["rows"] == 64


def test_a_dictionary_that_format_1_can_say_is_written_byte_for_byte_as_before(tmp_path: Path) -> None:
    old = OLD / "n7_l1-0.01_s2.json"
    Dictionary.load(old).save(tmp_path / "again")
    assert (tmp_path / "again.safetensors").read_bytes() == old.with_suffix(".safetensors").read_bytes()
    before, after = json.loads(old.read_text()), json.loads((tmp_path / "again.json").read_text())
    assert before | {"sparsecode_version": None} == after | {"sparsecode_version": None}
    assert list(before) == list(after)


@pytest.mark.parametrize("name", NEW)
def test_what_format_1_would_misread_is_format_2_and_comes_back(tmp_path: Path, name: str) -> None:
    original = make(**NEW[name])
    original.save(tmp_path / "d")
    about = json.loads((tmp_path / "d.json").read_text())
    assert about["format"] == 2
    assert about.keys() > FORMAT_1_KEYS, "names of format 1 stay"
    found = Dictionary.load(tmp_path / "d")
    for key, value in vars(original).items():
        read = getattr(found, key)
        assert torch.equal(read, value) if isinstance(value, torch.Tensor) else read == value, key
    x = torch.randn(9, D)
    assert torch.equal(found.reconstruct(x), original.reconstruct(x))
    assert torch.equal(original.to("cpu").reconstruct(x), original.reconstruct(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": None}, "activation 'topk' needs k"),
        ({"k": "2"}, "'k' is '2'"),
        ({"k": 2.5}, "k is 2.5, not a whole number"),
        ({"apply_b_dec_to_input": 1}, "'apply_b_dec_to_input' is 1"),
        ({"input_norm": "batch"}, "input_norm 'batch' is unknown"),
        ({"transcoder": None}, "'transcoder' is None"),
        ({"activation": "relu"}, "activation 'relu' has no use for k"),
        ({"output_dim": 5}, "do not belong together"),
    ],
)
def test_a_description_of_format_2_that_is_wrong_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    make(activation=TopK(2)).save(tmp_path / "d")
    path = tmp_path / "d.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DictionaryInvalid, match=message):
        Dictionary.load(tmp_path / "d")


def test_a_transcoder_does_not_subtract_what_belongs_to_its_output() -> None:
    with pytest.raises(DictionaryInvalid, match="cannot subtract b_dec"):
        make(transcoder=True, b_dec=torch.ones(D))


def test_every_activation_is_tried_here() -> None:
    tried: list[Activation] = [settings.get("activation", Relu()) for settings in NEW.values()]
    assert {activation.name for activation in tried} == set(ACTIVATIONS)
    for mine in tried:
        assert [mine == other for other in tried] == [mine.name == other.name for other in tried]


def test_what_is_no_activation_is_named() -> None:
    with pytest.raises(DictionaryInvalid, match=r"activation .topk. is none of .*: Relu, JumpRelu, "):
        make(activation="topk")


def test_the_nonlinearities_by_hand() -> None:
    pre = torch.tensor([[3.0, -4.0, 1.0, 2.0, -1.0, 0.5]])
    expected: list[tuple[Activation, list[float]]] = [
        (Relu(), [3, 0, 1, 2, 0, 0.5]),
        (TopK(2), [3, 0, 0, 2, 0, 0]),
        (TopK(5), [3, 0, 1, 2, 0, 0.5]),
        (TopK(1, torch.tensor([1.0, 1, 10, 1, 1, 1])), [0, 0, 1, 0, 0, 0]),
        (TopKLinear(5), [3, 0, 1, 2, -1, 0.5]),
        (AbsTopK(2), [3, -4, 0, 0, 0, 0]),
        (GroupMax(3), [3, 0, 0, 2, 0, 0.5]),
        (JumpRelu(torch.tensor([3.0, -9, 0.5, 1.9, -2, 0.5])), [0, 0, 1, 2, 0, 0]),
    ]
    for activation, codes in expected:
        assert activation.encode(pre - 1, torch.ones(N)).tolist() == [codes], activation
    gated = Gated(torch.zeros(N), torch.tensor([-2.0, 9, 9, 0, 9, 0]))
    assert gated.encode(pre, torch.zeros(N)).tolist() == [[1, 0, 10, 2, 0, 0.5]]
    assert gated.encode(pre, torch.full((N,), -2.5)).tolist() == [[1, 0, 0, 0, 0, 0]]
