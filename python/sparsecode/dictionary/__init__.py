"""One dictionary: its weights, its nonlinearity, and its pair of files.

Names are imported when they are first used: the command line looks for files without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsecode.dictionary.activations import (
        AbsTopK,
        Activation,
        BatchTopK,
        Gated,
        GroupMax,
        JumpRelu,
        Relu,
        TopK,
        TopKLinear,
    )
    from sparsecode.dictionary.dictionary import Dictionary

__all__ = [
    "AbsTopK",
    "Activation",
    "BatchTopK",
    "Dictionary",
    "Gated",
    "GroupMax",
    "JumpRelu",
    "Relu",
    "TopK",
    "TopKLinear",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sparsecode.dictionary' has no attribute {name!r}")
    home = "dictionary" if name == "Dictionary" else "activations"
    return getattr(importlib.import_module(f"sparsecode.dictionary.{home}"), name)
