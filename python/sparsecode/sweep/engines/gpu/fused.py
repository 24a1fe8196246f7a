"""One training step of a sweep on a GPU: its buffers, and the chain of kernel launches that fills them.

    cast x | [fold] | forward | backward | reduce sums, firings [, partial gradients] [| pre-bias] | Adam

`GpuStep` holds what every way of computing gradients shares: gradients and the optimiser; `KernelStep`, what those do
that run kernels of this project. `FusedStep` computes them with the fused Triton kernels; `gemm.GemmStep`, for wide
activations, with five matrix products; `lists.SparseStep` from lists of active codes, with one of the others for
dictionaries whose codes are dense.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, S splits of
the batch, T batch tiles.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sparsecode.kernels import adam, backward, forward, prebias, reduce
from sparsecode.kernels.configs import FusedTiles, adam_tile
from sparsecode.kernels.tables import FeatureTiles, Segments, batch_splits, tiles_in
from sparsecode.sweep.engines.protocol import StepStats
from sparsecode.sweep.sweep import BETA1, BETA2, EPS, Sweep

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def allocate(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised buffer; tests replace it by one that is filled with NaN and surrounded by red zones."""
    return torch.empty(*shape, dtype=dtype, device=device)


class GpuStep(ABC):
    """Gradients and optimiser of one sweep.

    Args:
        sweep: float32; its tensors are changed in place.
        precision: of the matrix products' operands: float16, bfloat16 or float32. Accumulators, gradients, weights
            and moments are float32 always.
        share: another way for the same sweep, whose gradients' buffers this one is to write to.
    """

    def __init__(self, sweep: Sweep, precision: str, share: GpuStep | None = None) -> None:
        self.sweep = sweep
        self.device = sweep.device
        self.operand_dtype = PRECISIONS[precision]
        self.segments = Segments.of(sweep.offsets, sweep.device)
        N, D = sweep.W_dec.shape
        self.flat: Tensor = share.flat if share else self._new(N * (2 * D + 1))
        self.d_enc, self.d_dec, self.d_bias = self._views(self.flat)
        self.d_pre: Tensor | None = None
        if sweep.b_dec is not None:
            self.d_pre = share.d_pre if share else self._new(len(sweep), D)
        self._tiles = self.segments.feature_tiles(adam_tile(D))
        self.l1_factor = 1.0
        self._scales: tuple[object, Tensor] = (None, self._new(0))
        self._rates = self._new(len(sweep))
        self._lr: tuple[list[float], Tensor] = ([], self._rates)

    def scale_l1(self, factor: float) -> None:
        """Gradients to come are those of the sweep's L1 coefficients times `factor`."""
        self.l1_factor = factor

    @abstractmethod
    def gradients(self, x: Tensor, only: tuple[int, ...] | None = None) -> StepStats:
        """Fills `d_enc`, `d_bias`, `d_dec` and `d_pre` with the loss's gradients and returns the stats of the batch.

        Args:
            only: dictionaries to work on. Gradients, stats and firings of the others are undefined then; the numbers
                of these do not depend on who else is among them.
        """

    @abstractmethod
    def evaluate(self, x: Tensor) -> StepStats:
        """Stats of a batch, without gradients."""

    @abstractmethod
    def firings(self) -> Tensor:
        """[N] int64, on how many rows of the last batch each feature was active."""

    def count_fired(self) -> None:
        """Adds the firings of the last batch to `sweep.fired`."""
        self.sweep.fired += self.firings()

    def follow(self, rows: int) -> None:  # noqa: B027, which wants it abstract
        """Takes the state of kinds over a batch of so many rows; `sweep.step` must already count this step."""

    def named_gradients(self) -> dict[str, Tensor]:
        """Copies of the gradients, named and shaped as `sweep.parameters()`."""
        if self.sweep.loss.tied:
            found = {"b_enc": self.d_bias.clone(), "W_dec": self.d_dec + self.d_enc}
        else:
            found = {"W_enc": self.d_enc.clone(), "b_enc": self.d_bias.clone(), "W_dec": self.d_dec.clone()}
        if self.d_pre is not None:
            found["b_dec"] = self.d_pre.clone()
        return found

    def update(self, lr_scale: float) -> None:
        """Adam and renormalisation with the gradients at hand; `sweep.step` must already count this step."""
        sweep, t = self.sweep, self.sweep.step
        if self._lr[0] != sweep.lr:
            self._lr = (list(sweep.lr), torch.tensor(sweep.lr, dtype=torch.float32, device=self.device))
        torch.mul(self._lr[1], lr_scale / (1 - BETA1**t), out=self._rates)
        root = math.sqrt(1 - BETA2**t)
        constants = {"root": root, "beta1": BETA1, "beta2": BETA2, "eps": EPS}
        moments = sweep.moments
        adam.adam_step(
            (sweep.W_enc, sweep.b_enc, sweep.W_dec),
            (moments["W_dec" if sweep.loss.tied else "W_enc"], moments["b_enc"], moments["W_dec"]),
            (self.d_enc, self.d_bias, self.d_dec),
            self._operand_copies(),
            self._rates,
            self.segments,
            self._tiles,
            project=sweep.loss.project_gradient,
            **constants,
        )
        if sweep.b_dec is not None:
            adam.adam_rows(sweep.b_dec, moments["b_dec"], self.d_pre, self._rates, **constants)

    def _operand_copies(self) -> tuple[Tensor, Tensor] | None:
        """The operands that Adam is to write beside the weights."""
        return None

    def _new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return allocate(*shape, dtype=dtype, device=self.device)

    def _views(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(dW_enc [N, D], dW_dec [N, D], db_enc [N]) within one buffer, so that one launch can add up partials."""
        N, D = self.sweep.W_dec.shape
        return flat[: N * D].view(N, D), flat[N * D : 2 * N * D].view(N, D), flat[2 * N * D :]

    def _scale_values(self, rows: int) -> list[tuple[float, float]]:
        """Per dictionary: scale of the gradients, and what it leaves of the L1 term (see kernels/backward.py)."""
        scale = 2 / self.sweep.error_divisor(rows)
        return [(scale, self.sweep.penalty(k) * self.l1_factor / (rows * scale)) for k in range(len(self.sweep))]

    def _scales_for(self, rows: int) -> Tensor:
        """These scales [K, 2] on the device."""
        key = (rows, self.l1_factor, *self.sweep.l1)
        if self._scales[0] != key:
            self._scales = (key, torch.tensor(self._scale_values(rows), dtype=torch.float32, device=self.device))
        return self._scales[1]


class Operands:
    """The weights as the products read them: themselves in float32, else 16-bit copies that Adam writes beside them.

    Attributes:
        enc, dec: [N, D]; one tensor where tied.
    """

    def __init__(self, sweep: Sweep, dtype: torch.dtype) -> None:
        self.sweep = sweep
        self.enc, self.dec = sweep.W_enc, sweep.W_dec
        self.copied = dtype != torch.float32
        if self.copied:
            self.dec = allocate(*sweep.W_dec.shape, dtype=dtype, device=sweep.device)
            self.enc = self.dec if sweep.loss.tied else allocate(*sweep.W_enc.shape, dtype=dtype, device=sweep.device)
        self._versions: tuple[object, ...] = ()

    def refresh(self) -> None:
        """Copies again where torch wrote to the weights since the last call (a loaded state): kernels leave no trace
        in torch's counters of versions, and what they write they copy themselves.
        """
        weights = (self.sweep.W_enc, self.sweep.W_dec)
        versions = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if self.copied and versions != self._versions:
            self.dec.copy_(self.sweep.W_dec)
            if self.enc is not self.dec:
                self.enc.copy_(self.sweep.W_enc)
        self._versions = versions

    def pair(self) -> tuple[Tensor, Tensor] | None:
        """What Adam is to write beside the weights."""
        return (self.enc, self.dec) if self.copied else None


class KernelStep(GpuStep):
    """Gradients by Triton kernels, which read operands of their precision and want the pre-bias within the bias.

    Args:
        heights: of the tiles of features that its kernels work on.
    """

    def __init__(self, sweep: Sweep, precision: str, heights: tuple[int, ...], share: GpuStep | None = None) -> None:
        super().__init__(sweep, precision, share)
        self.operands: Operands = (
            share.operands if isinstance(share, KernelStep) else Operands(sweep, self.operand_dtype)
        )
        self.folded = self._new(sweep.total) if sweep.b_dec is not None else None
        self.columns: Tensor | None = None  # [T, K, D], sums over the rows of a tile, where there is a pre-bias
        self._heights, self._rows = heights, 0
        self._subset: tuple[tuple[int, ...] | None, Segments, list[FeatureTiles]] = (None, self.segments, [])

    @abstractmethod
    def _allocate_for(self, rows: int) -> None:
        """Makes the buffers for a batch of that many rows."""

    def _new_columns(self, tiles: int) -> None:
        if self.sweep.b_dec is not None:
            K, D = self.sweep.b_dec.shape
            self.columns, self.column_sums = self._new(tiles, K, D), self._new(K, D)

    def _operand_copies(self) -> tuple[Tensor, Tensor] | None:
        return self.operands.pair()

    def _chosen(self, only: tuple[int, ...] | None) -> tuple[Segments, list[FeatureTiles]]:
        """Tables of these dictionaries, None for all, and their features in tiles of each of the heights."""
        only = self.segments.chosen if only is None else only
        if self._subset[0] != only:  # seldom another one than in the step before
            segments = self.segments.only(only)
            self._subset = (only, segments, [segments.feature_tiles(height) for height in self._heights])
        return self._subset[1:]

    def _prepare(self, x: Tensor) -> Tensor:
        """Buffers for this batch size, operands that fit the weights; returns the bias of the kernels."""
        sweep = self.sweep
        if x.shape[0] != self._rows:
            self._allocate_for(x.shape[0])
            self._rows = x.shape[0]
        self.operands.refresh()
        if self.folded is None:
            return sweep.b_enc
        prebias.fold(self.operands.enc, sweep.b_enc, sweep.b_dec, self.segments, self._tiles, folded=self.folded)
        return self.folded

    def _finish_pre_bias(self, scales: Tensor, segments: Segments) -> None:
        """Fills `d_pre`, where there is a pre-bias, once `columns` and `d_bias` are there."""
        if self.columns is not None:
            reduce.reduce_parts(self.columns, self.column_sums)
            prebias.prebias_gradient(
                self.column_sums, self.d_bias, self.sweep.W_enc, scales, segments, d_pre=self.d_pre
            )


class FusedStep(KernelStep):
    """Gradients by the fused kernels: codes never reach memory.

    Args:
        tiles: shapes of the kernels' tiles for this device and width.
        processors: multiprocessors of the device; decides into how many parts a small sweep's batch is cut.
    """

    def __init__(self, sweep: Sweep, precision: str, tiles: FusedTiles, processors: int) -> None:
        super().__init__(sweep, precision, (tiles.backward.features,))
        self.tiles = tiles
        self.processors = processors
        self.feature_tiles = self.segments.feature_tiles(tiles.backward.features)

    def gradients(self, x: Tensor, only: tuple[int, ...] | None = None) -> StepStats:
        """See `GpuStep.gradients`."""
        bias = self._prepare(x)
        target, x = x, x.to(self.operand_dtype)
        sweep, scales = self.sweep, self._scales_for(x.shape[0])
        segments, (feature_tiles,) = self._chosen(only)
        self._run_forward(x, target, bias, self.residual, segments)
        out = self.partial if self.splits > 1 else self.flat.view(1, -1)
        d_enc, d_dec, d_bias = self._views(out[0])
        for parts in self.tiles.parts:
            backward.backward(
                x,
                self.residual,
                self.operands.enc,
                bias,
                self.operands.dec,
                sweep.b_dec,
                segments,
                feature_tiles,
                scales,
                self.tiles.backward,
                parts=parts,
                d_enc=d_enc,
                d_bias=d_bias,
                d_dec=d_dec,
                fired=self.fired,
                splits=self.splits,
                split_stride=out.shape[1],
            )
        if self.splits > 1:
            reduce.reduce_parts(self.partial, self.flat)
        self._finish_pre_bias(scales, segments)
        return self._stats(x.shape[0])

    def evaluate(self, x: Tensor) -> StepStats:
        """See `GpuStep.evaluate`."""
        bias = self._prepare(x)
        target, x = x, x.to(self.operand_dtype)
        self._run_forward(x, target, bias, None, self.segments)
        backward.backward(
            x,
            None,
            self.operands.enc,
            bias,
            self.operands.dec,
            None,
            self.segments,
            self.feature_tiles,
            None,
            self.tiles.counting,
            parts=0,
            fired=self.fired,
            splits=self.splits,
        )
        return self._stats(x.shape[0])

    def firings(self) -> Tensor:
        """See `GpuStep.firings`."""
        total = torch.empty_like(self.sweep.fired)
        reduce.reduce_parts(self.fired, total)
        return total

    def count_fired(self) -> None:
        """See `GpuStep.count_fired`."""
        reduce.reduce_parts(self.fired, self.sweep.fired, accumulate=True)

    def _allocate_for(self, rows: int) -> None:
        K, (N, D) = len(self.sweep), self.sweep.W_dec.shape
        T = tiles_in(rows, self.tiles.forward.batch)
        tiles = sum(tiles_in(size, self.feature_tiles.height) for size in self.sweep.together)
        self.splits = batch_splits(tiles, tiles_in(rows, self.tiles.backward.batch), self.processors)
        self.residual = self._new(K, rows, D, dtype=self.operand_dtype)
        self.sums = self._new(T, forward.SUMS, K)
        self.fired = self._new(self.splits, N, dtype=torch.int32)
        if self.splits > 1:
            self.partial = self._new(self.splits, self.flat.numel())
        self._new_columns(T)

    def _run_forward(
        self, x: Tensor, target: Tensor, bias: Tensor, residual: Tensor | None, segments: Segments
    ) -> None:
        forward.forward(
            x,
            target,
            self.operands.enc,
            bias,
            self.operands.dec,
            self.sweep.b_dec,
            segments,
            self.tiles.forward,
            residual=residual,
            sums=self.sums,
            columns=self.columns,
        )

    def _stats(self, rows: int) -> StepStats:
        totals = torch.empty(forward.SUMS + 1, len(self.sweep), dtype=torch.float64, device=self.device)
        reduce.reduce_parts(self.sums, totals[: forward.SUMS])
        reduce.reduce_segments(self.fired, totals[forward.SUMS], self.segments)
        return StepStats(rows, *totals)
