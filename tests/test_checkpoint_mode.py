"""Files of a run have the permissions of the user's umask, whichever library wrote them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from sparsecode.checkpoint import load_tensors, save_tensors, write_json


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        save_tensors(tmp_path / "x.safetensors", {"x": torch.ones(2)})
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {mode}
    assert load_tensors(tmp_path / "x.safetensors")[0]["x"].tolist() == [1, 1]
