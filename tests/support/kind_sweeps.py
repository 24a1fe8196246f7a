"""Sweeps that hold every kind of dictionary.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, K dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.batches import statistics
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import KindSpec, parse_kinds
from sparsecode.sweep.normalization import KINDS as NORMALIZATIONS
from sparsecode.sweep.normalization import Normalization

AUX = "aux=0.3 aux_k=2 dead_after=100"
TEXTS = [
    "relu l1=0.3", "relu l1=0.3 groups=1/4,3/4", "topk k=3", f"topk k=3 {AUX}", "batchtopk k=2.5",
    f"batchtopk k=3 {AUX}", "matryoshka k=3", f"matryoshka k=3 groups=1/2,1/2 {AUX}", "jumprelu l0=4 window=0.5",
    "jumprelu strength=0.2 window=0.5 groups=1/4,3/4 pre_activation=0.1",
    "jumprelu strength=0.2 window=0.5 penalty=tanh to_input=yes", "jumprelu l0=3 window=0.5 penalty=quadratic",
    "gated l1=0.3", "gated l1=0.3 groups=1/4,3/4", "panneal l1=0.3 changes=2 anneal_start=0", "relu l1=0.1",
]  # fmt: skip
KINDS = [kind for text in TEXTS for kind in parse_kinds(text)]
TRAINED = {
    "relu": "relu l1=0.02", "topk": "topk k=3", "batchtopk": "batchtopk k=3", "batchtopk-2.5": "batchtopk k=2.5",
    "matryoshka": "matryoshka k=3", "jumprelu": "jumprelu l0=3 window=0.5", "gated": "gated l1=0.02",
    "panneal": "panneal l1=0.02 changes=2 anneal_start=0",
}  # fmt: skip
SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias)
    for (mse, l1_scale), tied, pre_bias in product(
        (("mean", "plain"), ("sum", "per-size")), (False, True), (False, True)
    )
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_kinds(
    loss: LossSettings,
    kinds: Sequence[KindSpec] = KINDS,
    dtype: torch.dtype = torch.float64,
    *,
    width: int = 10,
    sizes: Sequence[int] | None = None,
) -> Sweep:
    """Nothing is at zero, thresholds are where pre-activations are, and every third feature is dead."""
    K = len(kinds)
    sizes = sizes or [24] * K
    sweep = Sweep(width, sizes, kinds, range(K), lr=1e-2, loss=loss, dtype=dtype)
    for k in range(K):
        for seed, (name, value) in enumerate(sweep.parameters().items()):
            at = sweep.place(name, k)
            if name != "W_dec" and at is not None:
                value[at] += (0.2 * normal(*value[at].shape, seed=seed)).to(dtype)
        if sweep.state.since is not None:
            sweep.state.since[sweep.rows(k)] = torch.where(torch.arange(sizes[k]) % 3 == 0, 100, 0)
    if "theta" in sweep.own:
        sweep.own["theta"].abs_()
    return sweep


def trained(seed: int = 0, *, width: int = 8, size: int = 16, steps: int = 30) -> dict[str, Dictionary]:
    """A trained dictionary of every kind under every normalisation, with and without a pre-bias, by name."""
    kinds = [kind for text in TRAINED.values() for kind in parse_kinds(text)]
    raw = (2 * normal(512, width, seed=seed) + 0.5).float()
    found = {}
    for normalize, pre_bias in product(NORMALIZATIONS, (False, True)):
        normalization = Normalization.of(statistics(raw), normalize)
        rows, engine = normalization.apply(raw), ReferenceEngine()
        sweep = Sweep(
            width, [size] * len(kinds), kinds, [seed] * len(kinds), lr=1e-2, loss=LossSettings(pre_bias=pre_bias)
        )
        begin(sweep, Start("atoms"), rows)
        sweep.state.plan(steps)
        for _ in range(steps):
            engine.step(sweep, rows, 1.0)
        for k, name in enumerate(TRAINED):
            told = f"{name}-{normalize}{'-pre-bias' if pre_bias else ''}"
            found[told] = sweep.dictionary(k, mean=normalization.mean, scale=normalization.scale)
    return found
