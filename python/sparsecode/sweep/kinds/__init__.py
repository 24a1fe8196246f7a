"""Kinds of dictionaries in plain torch with gradients by hand; `text` reads how people write them.

The reference engine trains them through `loss`; it is the truth that other engines are held to.
"""

from sparsecode.sweep.kinds.auxk import AuxK
from sparsecode.sweep.kinds.gated import Gated
from sparsecode.sweep.kinds.jumprelu import JumpRelu
from sparsecode.sweep.kinds.kind import Kind, Weights
from sparsecode.sweep.kinds.loss import Pass, forward_and_back
from sparsecode.sweep.kinds.panneal import Annealed, Annealing, PAnneal
from sparsecode.sweep.kinds.relu import Relu
from sparsecode.sweep.kinds.spec import KindSpec, as_kind, entries
from sparsecode.sweep.kinds.text import kinds_of, parse_kinds
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
    "Pass",
    "Relu",
    "TopK",
    "Weights",
    "as_kind",
    "entries",
    "forward_and_back",
    "kinds_of",
    "largest",
    "next_threshold",
    "parse_kinds",
]
