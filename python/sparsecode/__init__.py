"""sparsecode: find the features of a transformer that come back.

Dictionaries of your own activations, compared with one another:

    import sparsecode as sc
    dictionaries = sc.fit(x, sizes=[64, 256, 1024], l1=[1e-2, 2e-2], seeds=2)
    comparison = sc.compare(dictionaries)
    sc.evaluate(dictionaries[0], x)

The whole experiment in a run folder, which can be killed and goes on. Every stage of the pipeline is one call, and
`replicate` is all of them:

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
    from sparsecode.comparison import Comparison, compare
    from sparsecode.dictionary import Dictionary
    from sparsecode.interop import load_dictionary
    from sparsecode.pipeline.baselines import fit_baselines
    from sparsecode.pipeline.browse import browse_features
    from sparsecode.pipeline.claims import check_claims
    from sparsecode.pipeline.compare import compare_dicts
    from sparsecode.pipeline.harvest import harvest_activations
    from sparsecode.pipeline.interpret import interpret_directions
    from sparsecode.pipeline.replicate import replicate
    from sparsecode.pipeline.report import write_report
    from sparsecode.pipeline.run import Run
    from sparsecode.pipeline.toy import toy, toy_models
    from sparsecode.pipeline.train_dicts import train_dicts
    from sparsecode.pipeline.train_gpt import train_gpt
    from sparsecode.store import ActivationStream, Dataset
    from sparsecode.sweep import Reconstruction, evaluate, fit

# By module.
_NAMES = {
    "comparison": ("Comparison", "compare"),
    "dictionary": ("Dictionary",),
    "interop": ("load_dictionary",),
    "pipeline.baselines": ("fit_baselines",),
    "pipeline.browse": ("browse_features",),
    "pipeline.claims": ("check_claims",),
    "pipeline.compare": ("compare_dicts",),
    "pipeline.harvest": ("harvest_activations",),
    "pipeline.interpret": ("interpret_directions",),
    "pipeline.replicate": ("replicate",),
    "pipeline.report": ("write_report",),
    "pipeline.run": ("Run",),
    "pipeline.toy": ("toy", "toy_models"),
    "pipeline.train_dicts": ("train_dicts",),
    "pipeline.train_gpt": ("train_gpt",),
    "store": ("ActivationStream", "Dataset"),
    "sweep": ("Reconstruction", "evaluate", "fit"),
}

__all__ = [
    "ActivationStream",
    "Comparison",
    "Dataset",
    "Dictionary",
    "Reconstruction",
    "Run",
    "SparsecodeError",
    "browse_features",
    "check_claims",
    "compare",
    "compare_dicts",
    "errors",
    "evaluate",
    "fit",
    "fit_baselines",
    "harvest_activations",
    "interpret_directions",
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
        from sparsecode.version import version

        return version()
    for home, names in _NAMES.items():
        if name in names:
            return getattr(importlib.import_module(f"sparsecode.{home}"), name)
    raise AttributeError(f"module 'sparsecode' has no attribute {name!r}")
