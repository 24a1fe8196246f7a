"""Loss and gradients of one dictionary of any kind on a batch.

With nested groups (Matryoshka, Bussmann et al., arXiv 2503.17547) features [0, m_1), [0, m_2), ... [0, F) each
reconstruct x alone, and the error is the mean of theirs; the derivative by a feature's code is then that of the sum of
the errors of all groups it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sparsecode.errors import InvalidArgument
from sparsecode.sweep.kinds.auxk import AuxK
from sparsecode.sweep.kinds.kind import EXACT, Kind, Products, Weights


@dataclass(frozen=True, eq=False)
class Pass:
    """What a batch gives.

    Attributes:
        loss: a number.
        gradients: by the names of the parameters that there are, before any projection.
        y, z: [B, F] pre-activations and codes.
        r: [B, D] reconstruction by all features less the data.
    """

    loss: Tensor
    gradients: dict[str, Tensor]
    y: Tensor
    z: Tensor
    r: Tensor


@torch.no_grad()
def forward_and_back(
    kind: Kind,
    weights: Weights,
    x: Tensor,
    divisor: float,
    groups: Sequence[int] = (),
    aux: AuxK | None = None,
    dead: Tensor | None = None,
    products: Products = EXACT,
) -> Pass:
    """Codes, loss and gradients of one dictionary on a batch.

    Args:
        kind: of the dictionary.
        weights: its parameters.
        x: [B, D].
        divisor: what the summed squared error is divided by; see `Sweep.error_divisor`.
        groups: the ends m_1 < m_2 < ... < F of nested groups of features; none: one of all.
        aux: the loss of dead features, if any; of the residual of all features.
        dead: [F] bool, which are; needed with `aux`.
        products: how matrices are multiplied.

    Raises:
        InvalidArgument: groups that do not ascend to F, or `aux` without `dead`.
    """
    F = len(weights.b_enc)
    ends = tuple(groups) or (F,)
    if ends[-1] != F or any(low >= high for low, high in pairwise((0, *ends))):
        raise InvalidArgument(f"groups that end at {list(ends)} do not ascend to the {F} features")
    if aux is not None and dead is None:
        raise InvalidArgument("the loss of dead features needs to be told which are dead")
    x, y = encoded(weights, x, products)
    z = kind.codes(y, weights)
    error, q, d_dec, dr, r = _error(weights, x, z, divisor, ends, products)
    loss, by_second = error + kind.penalty(y, z, weights), None
    second = kind.second(y)
    if second is not None:
        error, by_second, *_ = _error(weights, x, second, divisor, ends, products)
        loss = loss + error
    dy, own = kind.backward(y, z, q, weights, by_second)
    db_enc = own.pop("b_enc", dy.sum(0))
    if aux is not None and dead is not None:
        more, dy_aux, d_dec_aux = aux.backward(y, r, weights.W_dec, dead, products)
        loss, dy, d_dec, db_enc = loss + more, dy + dy_aux, d_dec + d_dec_aux, db_enc + dy_aux.sum(0)
    found = {"W_enc": products.of(dy.T, x), "b_enc": db_enc, "W_dec": d_dec} | own
    if weights.b_dec is not None:
        found["b_dec"] = dr.sum(0) - dy.sum(0) @ weights.W_enc
    return Pass(loss, found, y, z, r)


def encoded(weights: Weights, x: Tensor, products: Products = EXACT) -> tuple[Tensor, Tensor]:
    """Rows [B, D] less the pre-bias, and their pre-activations [B, F]."""
    x = x if weights.b_dec is None else x - weights.b_dec
    return x, products.linear(x, weights.W_enc, weights.b_enc)


def _error(
    weights: Weights, x: Tensor, z: Tensor, divisor: float, ends: Sequence[int], products: Products
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The error of codes z [B, F], its derivatives by z, W_dec and the reconstruction, and the residual [B, D] of all.

    With groups the derivative by the reconstruction is that of all groups' errors, as b_dec takes it.
    """
    parts = [slice(*bounds) for bounds in pairwise((0, *ends))]
    r, residuals = -x, []
    for part in parts:
        r = r + products.of(z[:, part], weights.W_dec[part])
        residuals.append(r)
    error, dr = x.new_zeros(()), torch.zeros_like(x)
    q, d_dec = torch.empty_like(z), torch.empty_like(weights.W_dec)
    for part, own in zip(reversed(parts), reversed(residuals), strict=True):
        error = error + own.square().sum() / (divisor * len(parts))
        dr = dr + own * (2 / (divisor * len(parts)))
        q[:, part], d_dec[part] = products.of(dr, weights.W_dec[part].T), products.of(z[:, part].T, dr)
    return error, q, d_dec, dr, r
