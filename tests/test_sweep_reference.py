"""The reference engine against autograd and torch.optim.Adam in float64: it is the truth for every other engine.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.errors import InvalidArgument
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine

SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias)
    for mse, l1_scale, tied, pre_bias in product(("mean", "sum"), ("plain", "per-size"), (False, True), (False, True))
]
SIZES, L1, SEEDS = [1, 7, 16], [0.3, 0.02, 0.5], [0, 0, 3]
D = 10


def make(loss: LossSettings, dtype: torch.dtype = torch.float64, lr: float = 1e-2) -> Sweep:
    """A small sweep with nothing at zero: biases and unequal encoder and decoder."""
    sweep = Sweep(D, SIZES, L1, SEEDS, lr=[lr, 2 * lr, 3 * lr], loss=loss, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    sweep.b_enc += 0.1 * torch.randn(sweep.total, generator=generator)
    if not loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.total, D, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


def batch(rows: int = 33, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def losses(sweep: Sweep, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """The loss of every dictionary [K], written from its definition."""
    found = []
    for k, size in enumerate(sweep.sizes):
        own = sweep.rows(k)
        W_dec = parameters["W_dec"][own]
        W_enc = parameters.get("W_enc", parameters["W_dec"])[own]
        b_dec = parameters["b_dec"][k] if "b_dec" in parameters else torch.zeros(D, dtype=x.dtype)
        z = torch.relu(torch.nn.functional.linear(x - b_dec, W_enc, parameters["b_enc"][own]))
        error = (z @ W_dec + b_dec - x) ** 2
        error = error.mean() if sweep.loss.mse == "mean" else error.sum(1).mean()
        l1 = sweep.l1[k] / size if sweep.loss.l1_scale == "per-size" else sweep.l1[k]
        found.append(error + l1 * z.abs().sum(1).mean())
    return torch.stack(found)


def autograd(sweep: Sweep, x: Tensor) -> dict[str, Tensor]:
    leaves = {name: value.clone().requires_grad_() for name, value in sweep.parameters().items()}
    losses(sweep, leaves, x).sum().backward()  # type: ignore[no-untyped-call]
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_gradients_are_those_of_autograd(loss: LossSettings) -> None:
    sweep, x = make(loss), batch()
    expected = autograd(sweep, x)
    stats, found = ReferenceEngine().gradients(sweep, x)
    assert found.keys() == expected.keys() == sweep.parameters().keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-14)
    assert stats.rows == 33


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    width=st.integers(1, 9),
    rows=st.integers(1, 9),
    loss=st.sampled_from(SWITCHES),
    seed=st.integers(0, 1000),
)
def test_gradients_at_any_shape(sizes: list[int], width: int, rows: int, loss: LossSettings, seed: int) -> None:
    sweep = Sweep(width, sizes, [0.1] * len(sizes), range(len(sizes)), loss=loss, dtype=torch.float64)
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    global D
    before, D = D, width
    try:
        expected = autograd(sweep, x)
    finally:
        D = before
    for name, gradient in ReferenceEngine().gradients(sweep, x)[1].items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-13)
