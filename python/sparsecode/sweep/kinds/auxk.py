"""The loss of dead features, which any kind may have beside its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode.sweep.kinds.kind import EXACT, Products
from sparsecode.sweep.kinds.topk import largest


@dataclass(frozen=True)
class AuxK:
    """The loss that lets dead features explain what the others leave (Gao et al., arXiv 2406.04093, appendix A.2).

    With e = -r, which counts as a constant, and e_hat the decoding without b_dec of the `k` largest codes of dead
    features in each row: alpha |e_hat - e|^2 / |e - mean e|^2, sums over the batch. It reaches dead features alone.

    Attributes:
        alpha: its weight.
        k: codes per row; None: half of D. Never more than there are dead features.
    """

    alpha: float = 1 / 32
    k: int | None = None

    def backward(
        self, y: Tensor, r: Tensor, W_dec: Tensor, dead: Tensor, products: Products = EXACT
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and its derivatives by y [B, F] and W_dec [F, D].

        All are zero where no feature is dead, or where e varies by no more than rounding, as with one row.

        Args:
            y: [B, F] pre-activations.
            r: [B, D] residual.
            W_dec: [F, D].
            dead: [F] bool.
            products: how matrices are multiplied.
        """
        dy, d_dec = torch.zeros_like(y), torch.zeros_like(W_dec)
        variation = (r - r.mean(0)).square().sum()
        # Rows that are all alike differ by rounding, and dividing by that would give gradients without bound.
        if not bool(dead.any()) or not bool(variation > torch.finfo(r.dtype).eps * r.square().sum()):
            return y.new_zeros(()), dy, d_dec
        z = largest(y[:, dead], self.k or max(1, W_dec.shape[1] // 2))
        gap = products.of(z, W_dec[dead]) + r
        scale = 2 * self.alpha / variation
        d_dec[dead] = scale * products.of(z.T, gap)
        dy[:, dead] = torch.where(z != 0, scale * products.of(gap, W_dec[dead].T), 0)
        return self.alpha * gap.square().sum() / variation, dy, d_dec
