"""Whose key goes where, and what is said of a forecast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.asking import Asking, told
from sparsecode.pipeline.config import InterpretConfig


def key(url: str, **settings: Any) -> str:
    config = InterpretConfig().changed(endpoint=url, llm="small", **settings)
    with (asking := Asking.of(config, Path("calls.jsonl"))).client:
        return asking.endpoint.key


def test_a_key_goes_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-0123456789")
    monkeypatch.setenv("MINE", "sk-mine-0123456789\n")
    assert key("https://api.openai.com/v1") == "sk-openai-0123456789"
    for other in ("http://api.openai.com/v1", "https://api.openai.com.example.org/v1", "http://localhost:8000/v1",
                  "https://example.org/api.openai.com/v1"):  # fmt: skip
        assert key(other) == ""
        assert key(other, key_env="MINE") == "sk-mine-0123456789"
    assert key("https://api.openai.com/v1", key_env="MINE") == "sk-mine-0123456789"
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InvalidSetting, match="OPENAI_API_KEY is to hold the key"):
        key("https://api.openai.com/v1")


def test_a_forecast_in_words() -> None:
    found: dict[str, Any] = {
        "host": "h", "llm": "m", "calls": 2640, "kept": 0,
        "tokens": {"expected": [2_200_000, 100_000], "most": [9e6, 3e6]}, "usd": {"expected": 0.39, "most": 3.15},
    }  # fmt: skip
    assert told(found) == (
        "interpret: 2,640 calls to m at h: about 2.2M tokens in and 100k out ($0.3900), at most 9M tokens in "
        "and 3M out ($3.15); excerpts of the text and explanations are sent there"
    )
    assert "(price unknown)" in told(found | {"usd": None}) and "h, 7 answers are kept:" in told(found | {"kept": 7})
