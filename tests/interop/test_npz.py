"""`.npz` files run no code, and claim no more than they have."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from published import parts, write_npz
from sparsecode.errors import DictionaryInvalid, PickleRefused
from sparsecode.interop import load_dictionary


def test_an_npz_file_cannot_run_code_and_cannot_claim_what_it_has_not(tmp_path: Path) -> None:
    def altered(name: str, content: bytes) -> Path:
        folder = write_npz(tmp_path / name)
        with zipfile.ZipFile(folder / "params.npz", "a") as archive:
            archive.writestr("more.npy", content)
        return folder

    def array(value: Any, **changes: Any) -> bytes:
        held = io.BytesIO()
        np.lib.format.write_array(held, value, **changes)
        return held.getvalue()

    code = altered("code", array(np.array([print], dtype=object), allow_pickle=True))
    with pytest.raises(PickleRefused, match="more: holds Python objects"):
        load_dictionary(code)
    claims = array(np.zeros(10)).replace(b"(10,)", b"(9999999999,)".ljust(5))
    with pytest.raises(DictionaryInvalid, match=r"params\.npz"):
        load_dictionary(altered("claims", claims))
    with pytest.raises(DictionaryInvalid, match=r"more: is of type"):
        load_dictionary(altered("text", array(np.array(["a"]))))
    with pytest.raises(DictionaryInvalid, match=r"cut short, or not a \.npz file"):
        load_dictionary(altered("short", b"\x93NUMPY\x01\x00\xff"))
    whole = (write_npz(tmp_path / "whole") / "params.npz").read_bytes()
    (tmp_path / "whole/params.npz").write_bytes(whole[:-30])
    with pytest.raises(DictionaryInvalid, match="cut short"):
        load_dictionary(tmp_path / "whole")
    with pytest.raises(DictionaryInvalid, match="no tensor threshold"):
        load_dictionary(
            write_npz(tmp_path / "few", {name: parts()[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")})
        )


def test_a_packed_npz_file_in_half_precision_is_read(tmp_path: Path) -> None:
    half: dict[str, Any] = {name: value.half().numpy() for name, value in parts().items()}
    np.savez_compressed(tmp_path / "params.npz", **half)
    assert torch.equal(load_dictionary(tmp_path).W_dec, torch.from_numpy(half["W_dec"]).float())
