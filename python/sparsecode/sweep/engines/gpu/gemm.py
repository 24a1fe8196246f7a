"""The hand-written step for wide activations: five matrix products by the vendor's library, one dictionary at a time.

Above D = 256 the fused kernels run out of registers and lose to plain products. Three columns more save passes over
the [B, F] codes: with x' = [x, 1, 1, 0...], W_enc' = [W_enc, bias, 0...], W_dec' = [W_dec, 1, 1, 0...] and
r' = [r, lam, 0...]

    z = relu(x' W_enc'^T)      [x_hat, sum z] = z W_dec'      dz = (r' W_dec'^T) where z > 0      [dW_enc, db] = dz^T x'

so that bias, L1 value, L1 gradient and the bias's gradient come with the products. bias and lam are split into two
columns, high and low part, because 16-bit operands would round them. Dictionaries that several processes share are
multiplied segment by segment (`sweep.split`).

Shape letters: B rows of a batch, D activation dimension, F features of a chunk, K dictionaries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecode.sweep.engines.gpu.fused import GpuStep
from sparsecode.sweep.engines.protocol import StepStats
from sparsecode.sweep.sweep import Sweep

EXTRA = 2  # columns added, at least
ALIGNED = 8  # columns in all are a multiple of it: 16-bit rows start at multiples of 16 bytes
CODE_BYTES = 256 << 20  # most memory for the codes of a chunk: large products, yet little beside the weights


class GemmStep(GpuStep):
    """Gradients by matrix products; see the module.

    Args:
        chunk_bytes: most memory that a chunk's codes take.
    """

    def __init__(self, sweep: Sweep, precision: str, *, chunk_bytes: int = CODE_BYTES) -> None:
        super().__init__(sweep, precision)
        N, D = sweep.W_dec.shape
        self.chunk_bytes = chunk_bytes
        self.enc = torch.zeros(N, _columns(D), dtype=self.operand_dtype, device=self.device)
        self.dec = torch.zeros(N, _columns(D), dtype=self.operand_dtype, device=self.device)
        self.dec[:, D : D + 2] = 1
        self.fired = torch.zeros(N, dtype=torch.int64, device=self.device)

    def gradients(self, x: Tensor, only: tuple[int, ...] | None = None) -> StepStats:
        """See `GpuStep.gradients`."""
        sweep, (B, D) = self.sweep, x.shape
        wide = self._prepare(x)
        sums = [torch.zeros(3, dtype=torch.float64, device=self.device)] * len(sweep)
        for k, (scale, lam) in enumerate(self._scale_values(B)):
            if only is not None and k not in only:
                continue
            r, l1, l0, codes = self._forward(k, x, wide, keep=True)
            sums[k] = torch.stack([r.square().sum(dtype=torch.float64), l1, l0])
            r_wide = _widen(r, self.operand_dtype)
            _split_into(r_wide[:, D : D + 2], torch.full((B,), lam, device=self.device))
            for rows, kept in codes:
                z = kept if kept is not None else self._encode(wide, rows)
                dz = product(r_wide, self.dec[rows].T, self.operand_dtype).masked_fill_(z <= 0, 0)
                torch.mul(product(z.T, r_wide[:, :D], torch.float32), scale, out=self.d_dec[rows])
                d_enc = product(dz.T, wide, torch.float32)
                torch.mul(d_enc[:, :D], scale, out=self.d_enc[rows])
                torch.mul(d_enc[:, D], scale, out=self.d_bias[rows])
            if sweep.b_dec is not None and self.d_pre is not None:
                own = sweep.rows(k)
                self.d_enc[own] -= self.d_bias[own, None] * sweep.b_dec[k]
                through = self._total([(self.d_bias[at] @ sweep.W_enc[at])[:, None] for at in self._segments(k)])
                self.d_pre[k] = scale * r.sum(0) - through[:, 0]
        return StepStats(B, *torch.stack(sums, dim=1))

    def evaluate(self, x: Tensor) -> StepStats:
        """See `GpuStep.evaluate`."""
        wide = self._prepare(x)
        sums = []
        for k in range(len(self.sweep)):
            r, l1, l0, _ = self._forward(k, x, wide, keep=False)
            sums.append(torch.stack([r.square().sum(dtype=torch.float64), l1, l0]))
        return StepStats(x.shape[0], *torch.stack(sums, dim=1))

    def firings(self) -> Tensor:
        """See `GpuStep.firings`."""
        return self.fired

    def _prepare(self, x: Tensor) -> Tensor:
        """Writes the operands anew and returns x' [B, D + 2 and more]."""
        sweep, D = self.sweep, x.shape[1]
        self.enc[:, :D] = sweep.W_enc
        self.dec[:, :D] = sweep.W_dec
        bias = sweep.b_enc
        if sweep.b_dec is not None:
            # With the operands' W_enc, as kernels/prebias.py: z is then that of the rounded weights at x - p exactly.
            folds = [self.enc[at, :D].float() @ sweep.b_dec[k] for k in range(len(sweep)) for at in self._segments(k)]
            bias = bias - torch.cat(folds)
        _split_into(self.enc[:, D : D + 2], bias)
        wide = _widen(x, self.operand_dtype)
        wide[:, D : D + 2] = 1
        return wide

    def _encode(self, wide: Tensor, rows: slice) -> Tensor:
        return product(wide, self.enc[rows].T, self.operand_dtype).relu_()

    def _forward(
        self, k: int, x: Tensor, wide: Tensor, *, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor, list[tuple[slice, Tensor | None]]]:
        """(r [B, D] float32, L1, L0, chunks with their codes); codes are kept where one chunk is all there is."""
        B, D = x.shape
        height = max(1, self.chunk_bytes // (B * self.operand_dtype.itemsize))
        kept: list[tuple[slice, Tensor | None]] = []
        parts = []
        for own in self._segments(k):
            decoded = torch.zeros(B, _columns(D), device=self.device)
            active = torch.zeros(B, device=self.device)
            chunks = [slice(at, min(at + height, own.stop)) for at in range(own.start, own.stop, height)]
            for rows in chunks:
                z = self._encode(wide, rows)
                decoded += product(z, self.dec[rows], torch.float32)
                self.fired[rows] = (z > 0).sum(0)
                active += (z > 0).sum(1)
                kept.append((rows, z if keep and len(chunks) == 1 else None))
            decoded[:, D + 1] = active  # a column that says the same as the one before
            parts.append(decoded[:, : D + 2])
        whole = self._total(parts)
        r = whole[:, :D] - x
        if self.sweep.b_dec is not None:
            r += self.sweep.b_dec[k]
        return r, whole[:, D].sum(dtype=torch.float64), whole[:, D + 1].sum(dtype=torch.float64), kept

    def _segments(self, k: int) -> list[slice]:
        """The rows of dictionary k, in the segments that it is cut into."""
        own, split = self.sweep.rows(k), self.sweep.split
        if split is None:
            return [own]
        return [slice(own.start + at.start, own.start + at.stop) for _, at in split.pieces(self.sweep.sizes[k])]

    def _total(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if self.sweep.split is None else self.sweep.split.total(parts)


def _columns(D: int) -> int:
    return -(-(D + EXTRA) // ALIGNED) * ALIGNED


def _widen(values: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, D] -> [B, columns] in another type, zeros in the new columns."""
    wide = torch.zeros(values.shape[0], _columns(values.shape[1]), dtype=dtype, device=values.device)
    wide[:, : values.shape[1]] = values
    return wide


def _split_into(columns: Tensor, values: Tensor) -> None:
    """Writes values [N] as the sum of two columns [N, 2] of a narrower type."""
    columns[:, 0] = values
    columns[:, 1] = values - columns[:, 0].to(values.dtype)


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b with float32 accumulators; 16-bit operands on the CPU, where libraries differ, are multiplied exactly."""
    if a.dtype == dtype:
        return a @ b if a.is_cuda or a.dtype == torch.float32 else (a.float() @ b.float()).to(dtype)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=dtype)
    return a.float() @ b.float()
