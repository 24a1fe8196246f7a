"""Sums over a leading dimension, always in the same order: what takes the place of atomics.

    out[i] = (out[i] if ACCUMULATE else 0) + parts[0, i] + parts[1, i] + ... + parts[S - 1, i]

    out[k] = sum over parts and over the columns of dictionary k

The first is used for partial gradients (S splits), the loss sums (T batch tiles), the columns of the residual and the
firings; the second for L0, the firings of a dictionary.

Shape letters: N features of all dictionaries, K dictionaries, S parts, M numbers of a part.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.tables import Segments, tiles_in

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


@triton.jit
def segments_kernel(
    parts_ptr,  # [S, N]
    offsets_ptr,  # [K + 1]
    out_ptr,  # [K]
    S,
    N,
    BF: tl.constexpr,
):
    """Adds all parts of all features of one dictionary."""
    k = tl.program_id(0)
    start = tl.load(offsets_ptr + k)
    stop = tl.load(offsets_ptr + k + 1)
    total = tl.zeros((BF,), dtype=tl.int64)
    for first in tl.range(start, stop, BF):
        features = first + tl.arange(0, BF)
        at = parts_ptr + features
        for _ in tl.range(0, S):
            total += tl.load(at, mask=features < stop, other=0)
            at += N
    tl.store(out_ptr + k, tl.sum(total, 0).to(out_ptr.dtype.element_ty))


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


def reduce_segments(parts, out, segments: Segments):
    """Adds `parts` [S, N] int32 over S and over each dictionary's features into `out` [K]."""
    segments_kernel[(len(segments),)](
        parts, segments.offsets, out, parts.shape[0], parts.shape[1], BF=1024, num_warps=4
    )
