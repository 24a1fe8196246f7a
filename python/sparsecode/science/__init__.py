"""Science: the claims of the seed experiment, tested on data, each with a verdict that can come out either way.

Names are imported when they are first used: commands that need no statistics read the rules (`verdicts`, `trained`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsecode.science.baselines_stage import fit_baselines, load_baselines
    from sparsecode.science.stage import CLAIMS, check_claims, load_claims
    from sparsecode.science.toy_stage import load_toy, toy_models

_HOME = {
    "CLAIMS": "stage",
    "check_claims": "stage",
    "fit_baselines": "baselines_stage",
    "load_baselines": "baselines_stage",
    "load_claims": "stage",
    "load_toy": "toy_stage",
    "toy_models": "toy_stage",
}

__all__ = ["CLAIMS", "check_claims", "fit_baselines", "load_baselines", "load_claims", "load_toy", "toy_models"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sparsecode.science.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sparsecode.science' has no attribute {name!r}")
