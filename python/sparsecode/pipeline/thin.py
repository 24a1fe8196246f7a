"""Finished stages that were trained too little for a verdict, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.science.claims.trained import counted, dictionaries, gpt


def thin(stage: str, result: Mapping[str, Any]) -> list[str]:
    """What of a finished stage is below the bounds, and what to do, one line each.

    Args:
        stage: its name.
        result: what it recorded.
    """
    if stage == "train-gpt":
        why = gpt(result)
        return [f"{why}; give it more --minutes, or more text"] if why else []
    if stage == "train-dicts":
        rows = result.get("metrics") or {}
        return [f"{line}; give them more --minutes" for line in counted(dictionaries(rows), len(rows))]
    return [str(line) for line in result.get("thin") or []]
