"""Other kinds than ReLU + L1 on a GPU: one dictionary at a time, by matrix products of the engine's precision.

Pre-activations, reconstructions and gradients are products; between them lie the kind's own operations, which are those
of the reference. Of kinds that keep the k largest, and have no more to their loss than the error, the selection becomes
bits, and what follows goes through the lists of active codes where `SparseStep` is there and they are few enough.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, N features of all.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sparsecode.sweep.engines.by_kind import both_ways, used
from sparsecode.sweep.engines.gpu.fused import GpuStep
from sparsecode.sweep.engines.gpu.gemm import product
from sparsecode.sweep.engines.gpu.lists import SparseStep
from sparsecode.sweep.engines.protocol import StepStats
from sparsecode.sweep.engines.reference import adam
from sparsecode.sweep.kinds.kind import Products
from sparsecode.sweep.kinds.loss import encoded

OWN_BUFFERS = ("W_enc", "b_enc", "W_dec", "b_dec")  # gradients that `GpuStep` has places for


class RoundedProducts(Products):
    """Products of operands that are rounded to `dtype`, with float32 sums.

    Each operand is first multiplied by the power of two that brings its largest value near 1, and the product is
    divided by it: a batch's derivatives are so small that float16 would lose them.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Products.linear`."""
        return self.of(x, weight.T) + bias

    def of(self, a: Tensor, b: Tensor) -> Tensor:
        """See `Products.of`."""
        if self.dtype == a.dtype:
            return a @ b
        (a, up), (b, more) = self._scaled(a), self._scaled(b)
        return torch.ldexp(product(a, b, torch.float32), up + more)

    def _scaled(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The values in the narrower type, and the exponent of the power of two that they were divided by."""
        largest = values.abs().amax() if values.numel() else values.new_zeros(())
        exponent = torch.where(largest.isfinite(), torch.frexp(largest).exponent, 0)
        return torch.ldexp(values, -exponent).to(self.dtype), exponent


class KindStep(GpuStep):
    """Gradients of a sweep of any kinds; see the module.

    Args:
        plain: the way of the sweep's ReLU + L1 dictionaries, for the same sweep and precision.

    Attributes:
        listed: dictionaries of other kinds that went through the lists in the last batch.
    """

    def __init__(self, plain: GpuStep, precision: str) -> None:
        super().__init__(plain.sweep, precision, plain)
        self.plain = plain
        self.lists = plain if isinstance(plain, SparseStep) else None
        self.products = RoundedProducts(self.operand_dtype)
        self.fired = self._new(plain.sweep.total, dtype=torch.int64)
        self.own = {name: torch.zeros_like(value) for name, value in plain.sweep.own.items()}
        self.listed: tuple[int, ...] = ()
        kinds = plain.sweep.kinds
        self._plain = tuple(k for k, kind in enumerate(kinds) if kind.plain)
        self._others = tuple(k for k, kind in enumerate(kinds) if not kind.plain)
        self._selecting = tuple(k for k in self._others if kinds[k].selects)
        self._kept: dict[int, Tensor] = {}  # the codes of each that are not zero, in one row

    def scale_l1(self, factor: float) -> None:
        """See `GpuStep.scale_l1`."""
        super().scale_l1(factor)
        self.plain.scale_l1(factor)

    def gradients(self, x: Tensor, only: tuple[int, ...] | None = None) -> StepStats:
        """See `GpuStep.gradients`."""
        assert only is None, "the sweep is whole here"
        sums = self._sums_of_plain(self.plain.gradients(x, self._plain) if self._plain else None)
        self._kept, self.listed = {}, ()
        if self.lists and self._selecting:
            self.listed, stats = self.lists.gradients_of_selected(x, self._selecting, partial(self._selected, x=x))
            for k in self.listed:
                sums[k] = torch.stack([stats.sse[k], stats.l1[k], stats.l0[k]])
                rows = self.sweep.rows(k)
                self.fired[rows] = self.lists.firings()[rows]
        for k in self._others:
            if k not in self.listed:
                sums[k] = self._by_products(k, x)
        return StepStats(x.shape[0], *torch.stack(sums, dim=1))

    def evaluate(self, x: Tensor) -> StepStats:
        """See `GpuStep.evaluate`."""
        sums = self._sums_of_plain(self.plain.evaluate(x) if self._plain else None)
        for k in self._others:
            sums[k] = self._totals(k, *used(self.sweep, k, x, self.products))
        return StepStats(x.shape[0], *torch.stack(sums, dim=1))

    def firings(self) -> Tensor:
        """See `GpuStep.firings`."""
        return self.fired

    def named_gradients(self) -> dict[str, Tensor]:
        """See `GpuStep.named_gradients`."""
        return super().named_gradients() | {name: value.clone() for name, value in self.own.items()}

    def follow(self, rows: int) -> None:
        """See `GpuStep.follow`."""
        sweep = self.sweep
        for k in self._others:
            own = sweep.rows(k)
            sweep.state.count(k, own, self.fired[own], rows)
            sweep.state.follow(k, sweep.step - 1, self._kept[k])

    def update(self, lr_scale: float) -> None:
        """See `GpuStep.update`; thresholds, biases and gains of kinds besides."""
        super().update(lr_scale)
        sweep = self.sweep
        for name, gradient in self.own.items():
            for k in self._others:
                if (at := sweep.place(name, k)) is not None:
                    m, v = (moment[at] for moment in sweep.moments[name])
                    adam(sweep.own[name][at], gradient[at], m, v, sweep.step, sweep.lr[k] * lr_scale)
        if "theta" in sweep.own:
            sweep.own["theta"].clamp_(min=0)

    def _operand_copies(self) -> tuple[Tensor, Tensor] | None:
        return self.plain._operand_copies()

    def _sums_of_plain(self, stats: StepStats | None) -> list[Tensor]:
        """Squared error, L1 and L0 [3] of each dictionary, of the plain ones so far; their firings are taken over."""
        if stats is None:
            return [torch.zeros(3, dtype=torch.float64, device=self.device)] * len(self.sweep)
        self.fired.copy_(self.plain.firings())
        return list(torch.stack([stats.sse, stats.l1, stats.l0]).unbind(1))

    def _selected(self, k: int, x: Tensor) -> Tensor:
        """Codes [B, F] of a dictionary."""
        weights = self.sweep.weights(k)
        z = self.sweep.kind(k, self.sweep.step).codes(encoded(weights, x, self.products)[1], weights)
        self._kept[k] = z[z != 0]
        return z

    def _by_products(self, k: int, x: Tensor) -> Tensor:
        """Gradients of a dictionary, and its squared error, L1 and L0 [3]."""
        sweep, rows = self.sweep, self.sweep.rows(k)
        found = both_ways(sweep, k, x, sweep.step, self.l1_factor, self.products)
        gradients = found.gradients
        for name, buffer in (("W_enc", self.d_enc), ("b_enc", self.d_bias), ("W_dec", self.d_dec)):
            buffer[rows] = gradients[name]
        if self.d_pre is not None:
            self.d_pre[k] = gradients["b_dec"]
        for name in gradients.keys() - set(OWN_BUFFERS):
            self.own[name][sweep.place(name, k)] = gradients[name]
        self._kept[k] = found.z[found.z != 0]
        return self._totals(k, found.z, found.r)

    def _totals(self, k: int, z: Tensor, r: Tensor) -> Tensor:
        fired = self.fired[self.sweep.rows(k)] = (z > 0).sum(0)
        sums = [values.sum(1).sum(dtype=torch.float64) for values in (r.square(), z)]
        return torch.stack([*sums, fired.sum().double()])
