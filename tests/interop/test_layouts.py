"""Small files in which published dictionaries say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecode.errors import DictionaryInvalid
from sparsecode.interop.layouts import read_yaml


def test_as_much_of_yaml_is_read_as_such_configurations_need(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(
        b'\xef\xbb\xbf# Transcoders\nname: "a # b" # c\nempty:\nplain: x: y\nlist:\n  - "hf://a/b"\n- \'c\'\n'
        b"nested:\n  inner: 3\nlast: 7 # d\n"
    )
    assert read_yaml(file) == {"name": "a # b", "empty": "", "plain": "x: y", "list": ["hf://a/b", "c"], "nested": "",
                               "last": "7"}  # fmt: skip
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DictionaryInvalid, match="not a readable YAML"):
        read_yaml(file)
