"""sparsecode: find the features of a transformer that come back.

Every stage of the pipeline is one call, and `replicate` is all of them:

    import sparsecode
    sparsecode.train_gpt("my-run", minutes=3)
    sparsecode.harvest_activations("my-run", layer=2)
    sparsecode.train_dicts("my-run", sizes="64-4096")
    sparsecode.compare_dicts("my-run")
    sparsecode.check_claims("my-run")
    sparsecode.write_report("my-run")

Names are imported when they are first used, so that `import sparsecode` takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsecode import errors
from sparsecode.errors import SparsecodeError

if TYPE_CHECKING:
    from sparsecode.compare import compare_dicts
    from sparsecode.gpt import train_gpt
    from sparsecode.harvest import harvest_activations
    from sparsecode.interop import load_dictionary
    from sparsecode.pipeline import replicate
    from sparsecode.report import toy, write_report
    from sparsecode.run import Run
    from sparsecode.science import check_claims, fit_baselines, toy_models
    from sparsecode.store import ActivationStream, Dataset
    from sparsecode.sweep import Dictionary, train_dicts

_HOME = {
    "Run": "run",
    "train_gpt": "gpt",
    "harvest_activations": "harvest",
    "Dataset": "store",
    "ActivationStream": "store",
    "Dictionary": "sweep",
    "load_dictionary": "interop",
    "train_dicts": "sweep",
    "compare_dicts": "compare",
    "check_claims": "science",
    "fit_baselines": "science",
    "toy_models": "science",
    "toy": "report",
    "write_report": "report",
    "replicate": "pipeline",
}

__all__ = [
    "ActivationStream",
    "Dataset",
    "Dictionary",
    "Run",
    "SparsecodeError",
    "check_claims",
    "compare_dicts",
    "errors",
    "fit_baselines",
    "harvest_activations",
    "load_dictionary",
    "replicate",
    "toy",
    "toy_models",
    "train_dicts",
    "train_gpt",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sparsecode")
    if name in _HOME:
        return getattr(importlib.import_module(f"sparsecode.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sparsecode' has no attribute {name!r}")
