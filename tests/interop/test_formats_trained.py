"""Dictionaries of every kind, trained here, encode and decode the same once written for another library and read back.

`make interop` lets the libraries themselves load and run them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kind_sweeps import TRAINED, trained
from sparsecode.dictionary import BatchTopK, Dictionary
from sparsecode.errors import NotExpressible
from sparsecode.interop import TARGETS, load_dictionary, save_dictionary

# What a kind is called after reading back, where that is another name.
READ_BACK = {
    **{(name, "saelens"): "jumprelu" for name in ("batchtopk", "batchtopk-2.5", "matryoshka")},
    ("batchtopk-2.5", "dictionary_learning"): "jumprelu",
    **{(name, "sparsify"): "topk" for name in ("relu", "panneal")},
}
REFUSED = {("sparsify", kind) for kind in TRAINED} - {("sparsify", kind) for kind in ("relu", "topk", "panneal")}


@pytest.fixture(scope="module")
def dictionaries() -> dict[str, Dictionary]:
    return trained()


@pytest.mark.parametrize("normalize", ["none", "rms", "center", "none-pre-bias", "rms-pre-bias", "center-pre-bias"])
@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("to", TARGETS)
def test_a_trained_one_comes_back(
    dictionaries: dict[str, Dictionary], kind: str, normalize: str, to: str, tmp_path: Path
) -> None:
    original = dictionaries[f"{kind}-{normalize}"]
    if (to, kind) in REFUSED:
        with pytest.raises(NotExpressible):
            save_dictionary(original, tmp_path / "copy", to)
        return
    save_dictionary(original, tmp_path / "copy", to)
    copy = load_dictionary(tmp_path / "copy")
    x = 2 * torch.randn(256, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    codes = original.encode(x)
    assert 0.05 < float((codes > 0).float().mean()) < 0.95
    torch.testing.assert_close(copy.encode(x), codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(copy.reconstruct(x), original.reconstruct(x), rtol=0, atol=1e-5)
    assert copy.activation.name == READ_BACK.get((kind, to), original.activation.name)
    assert copy.meta == original.meta


def test_thresholds_and_groups_are_in_the_files(dictionaries: dict[str, Dictionary], tmp_path: Path) -> None:
    original = dictionaries["matryoshka-none"]
    save_dictionary(original, tmp_path, "dictionary_learning")
    copy = load_dictionary(tmp_path)
    assert isinstance(original.activation, BatchTopK)
    assert float(original.activation.threshold[0]) > 0
    assert copy.activation == original.activation
    assert copy.meta["group_sizes"] == [1, 2, 4, 9]
