"""Kinds of dictionaries beside ReLU + L1, in plain torch with gradients by hand; `spec` reads how people write them.

No engine trains them yet; this is the truth that engines will be held to.
"""

from sparsecode.sweep.kinds.auxk import AuxK
from sparsecode.sweep.kinds.gated import Gated
from sparsecode.sweep.kinds.jumprelu import JumpRelu
from sparsecode.sweep.kinds.kind import Kind, Weights
from sparsecode.sweep.kinds.loss import gradients
from sparsecode.sweep.kinds.panneal import Annealed, Annealing, PAnneal
from sparsecode.sweep.kinds.relu import Relu
from sparsecode.sweep.kinds.spec import KindSpec, entries, parse_kinds
from sparsecode.sweep.kinds.topk import BatchTopK, TopK, largest, next_threshold

__all__ = [
    "Annealed",
    "Annealing",
    "AuxK",
    "BatchTopK",
    "Gated",
    "JumpRelu",
    "Kind",
    "KindSpec",
    "PAnneal",
    "Relu",
    "TopK",
    "Weights",
    "entries",
    "gradients",
    "largest",
    "next_threshold",
    "parse_kinds",
]
