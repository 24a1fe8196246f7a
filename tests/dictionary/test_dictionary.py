"""A dictionary's arithmetic on raw activations, its pair of files, and every way the files can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsecode.errors import DictionaryInvalid, InvalidArgument, ZeroAtom
from sparsecode.sweep import Dictionary, LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine

N, D = 7, 4


def make(*, center: bool = True, pre_bias: bool = True) -> Dictionary:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Dictionary(
        values(N, D),
        values(N),
        values(N, D),
        values(D) if pre_bias else None,
        mean=values(D) if center else None,
        scale=0.1,
        meta={"l1": 1e-3, "seed": 2, "hook_point": "blocks.2.mlp.hook_post", "metrics": {"fvu": 0.1}},
        features={"density": torch.rand(N, generator=generator)},
    )


def test_encode_and_decode_follow_their_formulas_on_raw_activations() -> None:
    d = make()
    assert d.mean is not None
    assert d.b_dec is not None
    x = torch.randn(2, 3, D)
    z = torch.relu(((x - d.mean) / 0.1 - d.b_dec) @ d.W_enc.T + d.b_enc)
    torch.testing.assert_close(d.encode(x), z)
    torch.testing.assert_close(d.decode(z), (z @ d.W_dec + d.b_dec) * 0.1 + d.mean)
    assert d.encode(x.half()).dtype == torch.float32
    assert (d.dict_size, d.activation_dim) == (N, D)


def test_a_dictionary_of_a_sweep_does_what_the_engine_does() -> None:
    sweep, engine = (
        Sweep(D, [3, N], [0.1, 0.01], [0, 0], loss=LossSettings(pre_bias=True, tied=True)),
        ReferenceEngine(),
    )
    raw, mean, scale = torch.randn(100, D) * 3 + 1, torch.ones(D), 3.0
    for _ in range(5):
        engine.step(sweep, (raw - mean) / scale, 1.0)
    dictionary = sweep.dictionary(1, mean=mean, scale=scale)
    stats = engine.evaluate(sweep, (raw - mean) / scale)
    error = (dictionary.decode(dictionary.encode(raw)) - raw).double().square().sum() / scale**2
    torch.testing.assert_close(error, stats.sse[1], rtol=1e-5, atol=0)
    assert int((dictionary.encode(raw) > 0).sum()) == int(stats.l0[1])
    assert dictionary.meta["loss"]["tied"] is True
    sweep.W_dec.zero_()
    assert dictionary.W_dec.any()


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_a_saved_pair_comes_back_bit_for_bit(tmp_path: Path, center: bool, pre_bias: bool, suffix: str) -> None:
    original = make(center=center, pre_bias=pre_bias)
    original.save(tmp_path / "n7_l1-0.001_s2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n7_l1-0.001_s2.json", "n7_l1-0.001_s2.safetensors"]
    found = Dictionary.load(tmp_path / f"n7_l1-0.001_s2{suffix}")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "mean"):
        mine, theirs = getattr(original, name), getattr(found, name)
        assert mine is None if theirs is None else torch.equal(mine, theirs)
    assert torch.equal(found.features["density"], original.features["density"])
    assert (found.scale, found.meta) == (original.scale, original.meta)
    found.save(tmp_path / "again")
    for ending in (".json", ".safetensors"):
        assert (tmp_path / f"again{ending}").read_bytes() == (tmp_path / f"n7_l1-0.001_s2{ending}").read_bytes()


def test_other_programs_find_what_the_format_promises(tmp_path: Path) -> None:
    make().save(tmp_path / "d")
    about = json.loads((tmp_path / "d.json").read_text())
    assert (about["format"], about["dict_size"], about["activation_dim"], about["l1"]) == (1, N, D, 1e-3)
    assert about["normalization"]["kind"] == "center"
    assert len(about["normalization"]["mean"]) == D
    assert load_file(tmp_path / "d.safetensors").keys() == {"W_enc", "b_enc", "W_dec", "b_dec", "features.density"}
    assert make(center=False).normalization == {"kind": "rms", "mean": None, "scale": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dict_size": 8}, "do not belong together"),
        ({"activation_dim": None}, "do not belong together"),
        ({"format": 3}, "update sparsecode"),
        ({"format": None}, "not the description"),
        ({"normalization": None}, "'normalization' needs"),
        ({"normalization": {"mean": ["a"], "scale": 1}}, "'normalization' needs"),
        ({"normalization": {"mean": [1.0], "scale": 1}}, "mean has shape"),
        ({"normalization": {"mean": None, "scale": 0}}, "not a positive number"),
        ({"activation": "softplus"}, "activation 'softplus' is unknown"),
    ],
)
def test_a_description_that_is_wrong_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    make().save(tmp_path / "d")
    path = tmp_path / "d.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DictionaryInvalid, match=message):
        Dictionary.load(tmp_path / "d")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\x00"])
def test_a_description_that_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    make().save(tmp_path / "d")
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DictionaryInvalid, match=r"d\.json"):
        Dictionary.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("W_dec", torch.ones(N), "W_dec has shape"),
        ("W_enc", torch.ones(N, D + 1), "W_enc has shape"),
        ("b_enc", torch.ones(N + 1), "b_enc has shape"),
        ("b_dec", torch.ones(1), "b_dec has shape"),
        ("b_enc", torch.full((N,), float("nan")), "b_enc holds NaN"),
        ("features.density", torch.ones(2), "features.density has shape"),
        ("W_dec", None, "no tensor W_dec"),
    ],
)
def test_weights_that_are_wrong_are_named(tmp_path: Path, name: str, value: torch.Tensor | None, message: str) -> None:
    make().save(tmp_path / "d")
    tensors = load_file(tmp_path / "d.safetensors")
    del tensors[name]
    save_file(tensors | ({name: value} if value is not None else {}), tmp_path / "d.safetensors")
    with pytest.raises(DictionaryInvalid, match=message):
        Dictionary.load(tmp_path / "d")


def test_a_zero_atom_is_named(tmp_path: Path) -> None:
    weights = torch.ones(N, D)
    weights[3] = 0
    with pytest.raises(ZeroAtom, match="atom 3"):
        Dictionary(torch.ones(N, D), torch.zeros(N), weights)


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DictionaryInvalid, match="no such file"):
        Dictionary.load(tmp_path / "d")
    make().save(tmp_path / "d")
    weights = tmp_path / "d.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(DictionaryInvalid, match="not a safetensors file"):
        Dictionary.load(tmp_path / "d")
    weights.unlink()
    with pytest.raises(DictionaryInvalid, match="missing"):
        Dictionary.load(tmp_path / "d")


def test_activations_and_codes_of_another_width_are_named() -> None:
    with pytest.raises(InvalidArgument, match="the last must be 4"):
        make().encode(torch.zeros(2, 5))
    with pytest.raises(InvalidArgument, match="the last must be 7"):
        make().decode(torch.zeros(2, 5))
