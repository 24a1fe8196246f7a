"""The GPU step for codes that are mostly zero: a dense encode that leaves bits, then work on active codes only.

    cast x | [fold] | masks | count, prefix (rows, features) | how many? | fill (rows, features) | rows | reduce sums
    | features [| pre-bias] | Adam

The encode runs for every dictionary. The host then reads how many codes of each are active, the one time that it waits
for the device in a step, and gives each dictionary its way: those within their share of the lists go on here, denser
ones (early in training, small L1 coefficients, a dictionary full of NaN) to the dense step. The choice depends on the
batch and the weights of that dictionary alone, so that a resumed run takes the same way, and a dictionary that diverges
does not move the others.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsecode.kernels import lists, reduce, sparse
from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import WORD, Segments, tiles_in
from sparsecode.sweep.engines.gpu.fused import GpuStep, KernelStep
from sparsecode.sweep.engines.protocol import StepStats


class SparseStep(KernelStep):
    """Gradients from lists of active codes; see the module.

    Args:
        dense: another way for the same sweep and precision: evaluates, and takes dictionaries whose codes are dense.
        tile: of the kernel that finds active codes.
        density: largest share of active codes with which a dictionary goes through the lists.

    Attributes:
        taken: dictionaries that went through the lists in the last batch.
    """

    def __init__(self, dense: GpuStep, precision: str, tile: Tile, density: float) -> None:
        super().__init__(dense.sweep, precision, (WORD, 1), dense)
        self.dense, self.tile, self.density = dense, tile, density
        self.fired = self._new(dense.sweep.total, dtype=torch.int64)
        self.taken: tuple[int, ...] = ()
        self._blocks = self.segments.feature_tiles(WORD)

    def scale_l1(self, factor: float) -> None:
        """See `GpuStep.scale_l1`."""
        super().scale_l1(factor)
        self.dense.scale_l1(factor)

    def gradients(self, x: Tensor, only: tuple[int, ...] | None = None) -> StepStats:
        """See `GpuStep.gradients`."""
        wanted = tuple(range(len(self.sweep))) if only is None else only
        target, x = x, x.to(self.operand_dtype)
        bias = self._prepare(x)
        self.taken = tuple(k for k in self._sparse_enough(x, bias) if k in wanted)
        rest = tuple(k for k in wanted if k not in self.taken)
        if not rest:
            return StepStats(x.shape[0], *self._from_lists(x, target, bias, self.taken))
        stats = self.dense.gradients(target, rest)
        self.fired.copy_(self.dense.firings())
        if not self.taken:
            return stats
        # After the dense step, whose buffers for these dictionaries hold nothing yet.
        own = torch.zeros(len(self.sweep), dtype=torch.bool)
        own[list(self.taken)] = True
        own = own.to(self.device, non_blocking=True)
        found = self._from_lists(x, target, bias, self.taken)
        dense = (stats.sse, stats.l1, stats.l0)
        return StepStats(x.shape[0], *(torch.where(own, a, b) for a, b in zip(found, dense, strict=True)))

    def gradients_of_selected(
        self, x: Tensor, selected: Sequence[int], codes_of: Callable[[int], Tensor]
    ) -> tuple[tuple[int, ...], StepStats]:
        """Gradients of dictionaries whose active codes are chosen by others, and whose loss is the error alone.

        Args:
            x: [B, D].
            selected: the dictionaries.
            codes_of: codes [B, F] of each, of which those that are not zero are active; called once.

        Returns:
            The dictionaries that have few enough, and the stats of these; nothing was done for the others.
        """
        target, x = x, x.to(self.operand_dtype)
        bias, segments = self._prepare(x), self.segments.only(selected)
        words = segments.words.tolist()
        for k in selected:
            active = codes_of(k) != 0
            self.by_row[:, words[k] : words[k + 1]] = _packed(active)
            self.by_feature[:, self.sweep.rows(k)] = _packed(active.T).T
        taken = tuple(k for k in self._counted(x.shape[0], segments) if k in selected)
        if not taken:
            return taken, StepStats.zeros(len(self.sweep), self.device)
        return taken, StepStats(x.shape[0], *self._from_lists(x, target, bias, taken))

    def evaluate(self, x: Tensor) -> StepStats:
        """See `GpuStep.evaluate`."""
        stats = self.dense.evaluate(x)
        self.fired.copy_(self.dense.firings())
        return stats

    def firings(self) -> Tensor:
        """See `GpuStep.firings`."""
        return self.fired

    def _allocate_for(self, rows: int) -> None:
        K, (N, D) = len(self.sweep), self.sweep.W_dec.shape
        T = tiles_in(rows, sparse.ROWS)
        integers = torch.int32
        self.by_row = self._new(rows, self.segments.word_total, dtype=integers)
        self.by_feature = self._new(tiles_in(rows, WORD), N, dtype=integers)
        self.row_counts = self._new(K, rows, dtype=integers)
        self.feature_counts = self._new(N, dtype=integers)
        self.capacity = [max(1, int(self.density * rows * size)) for size in self.sweep.sizes]
        regions = [0, *itertools.accumulate(self.capacity)]
        self.base = torch.tensor(regions, dtype=torch.int64, device=self.device)
        self.row_list = self._new(regions[-1], dtype=integers)
        self.feature_list = self._new(regions[-1], dtype=integers)
        self.residual = self._new(K, rows, D, dtype=self.operand_dtype)
        self.sums = self._new(T, 2, K)
        self._new_columns(T)

    def _sparse_enough(self, x: Tensor, bias: Tensor) -> tuple[int, ...]:
        """Finds the active codes of all dictionaries; returns those that have few enough."""
        everyone, rows = self.segments, x.shape[0]
        lists.find_active(
            x, self.operands.enc, bias, everyone, self.tile, by_row=self.by_row, by_feature=self.by_feature
        )
        return self._counted(rows, everyone)

    def _counted(self, rows: int, segments: Segments) -> tuple[int, ...]:
        """Counts the bits of the dictionaries of `segments`; returns those of all that have few enough."""
        tiles = self._blocks if segments is self.segments else segments.feature_tiles(WORD)
        lists.count(self.by_row, segments, rows, counts=self.row_counts)
        lists.count(self.by_feature, segments, rows, counts=self.feature_counts, tiles=tiles)
        # Sums of integers: exact in any order, so that torch may take its own.
        self.row_ends = self.row_counts.view(-1).cumsum(0)
        self.feature_ends = self.feature_counts.cumsum(0)
        ends = self.row_ends.view(len(self.sweep), rows)[:, -1].tolist()
        active = [end - start for start, end in itertools.pairwise([0, *ends])]
        return tuple(k for k, capacity in enumerate(self.capacity) if active[k] <= capacity)

    def _from_lists(self, x: Tensor, target: Tensor, bias: Tensor, taken: tuple[int, ...]) -> Tensor:
        """Gradients and firings of the dictionaries `taken`; returns sse, l1, l0 [3, K] float64."""
        sweep, rows, scales = self.sweep, x.shape[0], self._scales_for(x.shape[0])
        segments, (blocks, features) = self._chosen(taken)
        by_row = (self.row_counts, self.row_ends, self.base)
        by_feature = (self.feature_counts, self.feature_ends, self.base)
        lists.fill(self.by_row, segments, rows, *by_row, out=self.row_list)
        lists.fill(self.by_feature, segments, rows, *by_feature, out=self.feature_list, tiles=blocks)
        weights = (self.operands.enc, bias, self.operands.dec, sweep.b_dec, segments)
        sparse.rows_phase(
            x,
            target,
            *weights,
            self.base,
            self.row_counts,
            self.row_ends,
            self.row_list,
            residual=self.residual,
            sums=self.sums,
            columns=self.columns,
        )
        sparse.features_phase(
            x,
            self.residual,
            *weights,
            features,
            scales,
            self.base,
            self.feature_counts,
            self.feature_ends,
            self.feature_list,
            d_enc=self.d_enc,
            d_bias=self.d_bias,
            d_dec=self.d_dec,
            fired=self.fired,
        )
        self._finish_pre_bias(scales, segments)
        totals = torch.empty(3, len(sweep), dtype=torch.float64, device=self.device)
        reduce.reduce_parts(self.sums, totals[:2])
        reduce.reduce_segments(self.fired.view(1, -1), totals[2], self.segments)
        return totals


def _packed(active: Tensor) -> Tensor:
    """[m, n] bool -> [m, n / 32 rounded up] int32: bit j % 32 of word j // 32 is column j."""
    bits = torch.tensor([*(1 << bit for bit in range(WORD - 1)), -(1 << (WORD - 1))], device=active.device)
    wide = torch.nn.functional.pad(active, (0, -active.shape[1] % WORD))
    return (wide.view(len(active), -1, WORD) * bits).sum(2).to(torch.int32)
