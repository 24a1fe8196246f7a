"""What all kinds share: their parameters, and the form in which each says what its codes and its loss are.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary. With y = (x - b) W_enc^T +
b_enc, codes z of y, the residual r = z W_dec + b - x, the error c |r|^2 and q = 2 c r W_dec^T, derivatives by y are

    Relu        z = y where y > 0                                                       q + lambda / B there
    PAnneal     z = y where y > 0                                                       q + lambda p z^(p - 1) / B there
    TopK        z = y where it is positive and one of the k largest of its row          q there
    BatchTopK   z = y where it is positive and one of the k B largest of the batch      q there
    JumpRelu    z = y where y > theta                                                   q there, and theta has its own
    Gated       z = relu(e^rho (y - b_enc) + b_mag) where y > 0                         see `Gated`

Atoms have norm 1, so penalties do not multiply by it. A NaN is kept by every kind, so that it shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """One dictionary's parameters.

    Attributes:
        W_enc, b_enc, W_dec: [F, D], [F] and [F, D].
        b_dec: [D], if it has one.
        theta: [F], thresholds of JumpRelu, never below 0.
        b_mag, rho: [F], bias and logarithm of the gain of what a feature of Gated gives.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor | None = None
    theta: Tensor | None = None
    b_mag: Tensor | None = None
    rho: Tensor | None = None

    def own(self, name: str) -> Tensor:
        """A parameter that the kind cannot do without."""
        value: Tensor | None = getattr(self, name)
        assert value is not None, name
        return value


class Kind:
    """How codes come from pre-activations, and what the loss has beside the error."""

    def codes(self, y: Tensor, weights: Weights) -> Tensor:
        """Codes [B, F] of pre-activations [B, F]; zero where there is none."""
        raise NotImplementedError

    def penalty(self, y: Tensor, z: Tensor, weights: Weights) -> Tensor:
        """The terms of the loss beside errors."""
        del z, weights
        return y.new_zeros(())

    def second(self, y: Tensor) -> Tensor | None:
        """Codes [B, F] of a second reconstruction, whose error counts but moves neither W_dec nor b_dec; or None."""
        del y
        return None

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Derivatives of the loss by (x - b) W_enc^T [B, F], and by those vectors [F] that need a word.

        Args:
            y: [B, F] pre-activations.
            z: [B, F] their codes.
            q: [B, F] derivatives of the error by them.
            weights: the dictionary's.
            second: [B, F] derivatives of the second error by its codes, where there is one.

        Returns:
            The vectors are by name; b_enc is among them unless it is the sum of the first over rows.
        """
        raise NotImplementedError


class Products:
    """The matrix products of a pass, in the operands' own type; an engine may have others."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x [B, D], weight [F, D] and bias [F] -> x weight^T + bias [B, F]."""
        return torch.nn.functional.linear(x, weight, bias)

    def of(self, a: Tensor, b: Tensor) -> Tensor:
        """a [m, n] and b [n, p] -> a b [m, p]."""
        return a @ b


EXACT = Products()
