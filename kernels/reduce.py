"""Sums over a leading dimension, always in the same order: what takes the place of atomics.

    out[i] = (out[i] if ACCUMULATE else 0) + parts[0, i] + parts[1, i] + ... + parts[S - 1, i]

Used for partial gradients (S splits), the loss sums (T batch tiles), the columns of the residual and the firings.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.tables import tiles_in

_ACCUMULATORS = {torch.float64: tl.float64, torch.float32: tl.float32, torch.int64: tl.int64}


@triton.jit
def reduce_kernel(
    parts_ptr,  # [S, M]
    out_ptr,  # [M]
    S,
    M,
    BS: tl.constexpr,  # parts added at a time
    BM: tl.constexpr,
    ACC: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """Adds all parts of one block of numbers, in order."""
    columns = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    inside = columns < M
    total = tl.zeros((BM,), dtype=ACC)
    for first in tl.range(0, S, BS):
        parts = first + tl.arange(0, BS)
        mask = (parts < S)[:, None] & inside[None, :]
        at = parts_ptr + parts[:, None].to(tl.int64) * M + columns[None, :]
        total += tl.sum(tl.load(at, mask=mask, other=0).to(ACC), 0)
    if ACCUMULATE:
        total += tl.load(out_ptr + columns, mask=inside, other=0)
    tl.store(out_ptr + columns, total.to(out_ptr.dtype.element_ty), mask=inside)


def reduce_parts(parts, out, *, accumulate: bool = False):
    """Adds `parts` [S, ...] over S into `out` [...], in `out`'s type."""
    S, M = parts.shape[0], out.numel()
    # Many parts of few numbers: 16 loads in flight per number. Few parts of many numbers: long coalesced rows.
    block, height = (32, 16) if S > 16 else (1024, triton.next_power_of_2(S))
    reduce_kernel[(tiles_in(M, block),)](
        parts,
        out,
        S,
        M,
        BS=height,
        BM=block,
        ACC=_ACCUMULATORS[out.dtype],
        ACCUMULATE=accumulate,
        num_warps=4,
    )
