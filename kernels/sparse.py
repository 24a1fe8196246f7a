"""A training step from lists of active codes: the CPU engine's rows and features phases (lists.py makes the lists).

    rows      z = relu(x . w_enc_f + bias_f) of the row's features f      x_hat = sum z w_dec_f + p      r = x_hat - x
    features  z again, dz = r . w_dec_f + lam, of the feature's rows; gradients as in backward.py, in registers

Codes are computed where they are needed and never stored: once a row's features, or a feature's rows, are in registers,
a code costs one product of D numbers. Which codes are active is what the masks say, in both phases.

A warp works on a few list entries at a time and gathers their rows; many warps per processor hide the waiting. Sums run
in the order of the lists: the same bits every run.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, T batch tiles.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.tables import FeatureTiles, Segments, padded, tiles_in

ROWS = 16  # rows of a program: partial sums of the loss are few, programs still many
ENTRIES = 8  # of a list, at a time


@triton.jit
def rows_kernel(
    x_ptr,  # [B, D], operands' type
    target_ptr,  # [B, D], the same rows unrounded
    w_enc_ptr,  # [N, D]
    bias_ptr,  # [N]
    w_dec_ptr,  # [N, D]
    pre_ptr,  # [K, D]
    order_ptr,  # dictionaries that take part
    base_ptr,  # [K + 1] int64
    counts_ptr,  # [K, B] int32
    ends_ptr,  # [K, B] int64
    list_ptr,  # int32: features
    residual_ptr,  # [K, B, D]
    sums_ptr,  # [T, 2, K]
    columns_ptr,  # [T, K, D]: r summed over the tile's rows, for the gradient of the pre-bias
    B,
    D,
    T,
    K,
    BR: tl.constexpr,  # rows of a program
    C: tl.constexpr,  # entries at a time
    BD: tl.constexpr,
    ACC: tl.constexpr,
    HAS_PRE: tl.constexpr,
):
    """Residuals and loss of a few rows and one dictionary."""
    pid = tl.program_id(0)
    k = tl.load(order_ptr + pid // T)
    tile = pid % T
    columns = tl.arange(0, BD)
    in_width = columns < D
    group = k.to(tl.int64) * B
    shift = tl.load(base_ptr + k) - tl.load(ends_ptr + group - 1, mask=group > 0, other=0)
    pre = tl.zeros((BD,), dtype=ACC)
    if HAS_PRE:
        pre = tl.load(pre_ptr + k * D + columns, mask=in_width, other=0.0)
    error = tl.zeros((BD,), dtype=ACC)
    total = tl.zeros((BD,), dtype=ACC)
    l1 = tl.zeros((C,), dtype=ACC)
    for index in tl.range(0, tl.minimum(BR, B - tile * BR)):
        row = tile * BR + index
        at = row.to(tl.int64) * D + columns
        x = tl.load(x_ptr + at, mask=in_width, other=0.0).to(ACC)
        stop = shift + tl.load(ends_ptr + group + row)
        start = stop - tl.load(counts_ptr + group + row)
        x_hat = pre
        for first in tl.range(start, stop, C):
            entries = first + tl.arange(0, C)
            live = entries < stop
            features = tl.load(list_ptr + entries, mask=live, other=0)
            mask = live[:, None] & in_width[None, :]
            offset = features[:, None].to(tl.int64) * D + columns[None, :]
            w_enc = tl.load(w_enc_ptr + offset, mask=mask, other=0.0).to(ACC)
            w_dec = tl.load(w_dec_ptr + offset, mask=mask, other=0.0).to(ACC)
            y = tl.sum(w_enc * x[None, :], 1) + tl.load(bias_ptr + features, mask=live, other=0.0)
            # The product on tensor cores was above 0; this one may be below by a rounding.
            z = tl.where(live, tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
            l1 += z
            x_hat += tl.sum(z[:, None] * w_dec, 0)
        target = tl.load(target_ptr + at, mask=in_width, other=0.0)
        r = tl.where(in_width, x_hat - target, 0.0)
        tl.store(residual_ptr + group * D + at, r.to(residual_ptr.dtype.element_ty), mask=in_width)
        error += r * r
        total += r
    sums = sums_ptr + tile * 2 * K + k
    tl.store(sums, tl.sum(error, 0))
    tl.store(sums + K, tl.sum(l1, 0))
    if HAS_PRE:
        tl.store(columns_ptr + (tile.to(tl.int64) * K + k) * D + columns, total, mask=in_width)


@triton.jit
def features_kernel(
    x_ptr,  # [B, D]
    residual_ptr,  # [K, B, D]
    w_enc_ptr,  # [N, D]
    bias_ptr,  # [N]
    w_dec_ptr,  # [N, D]
    pre_ptr,  # [K, D]
    offsets_ptr,  # [K + 1]
    tile_dictionary_ptr,  # one per feature that takes part
    tile_first_ptr,
    scale_ptr,  # [K, 2]: scale, lam
    base_ptr,  # [K + 1] int64
    counts_ptr,  # [N] int32
    ends_ptr,  # [N] int64
    list_ptr,  # int32: rows
    d_enc_ptr,  # [N, D]
    d_bias_ptr,  # [N]
    d_dec_ptr,  # [N, D]
    fired_ptr,  # [N] int64
    B,
    D,
    C: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
    HAS_PRE: tl.constexpr,
):
    """All gradients of one feature."""
    tile = tl.program_id(0)
    k = tl.load(tile_dictionary_ptr + tile)
    feature = tl.load(tile_first_ptr + tile)
    columns = tl.arange(0, BD)
    in_width = columns < D
    own = feature.to(tl.int64) * D + columns
    w_enc = tl.load(w_enc_ptr + own, mask=in_width, other=0.0).to(ACC)
    w_dec = tl.load(w_dec_ptr + own, mask=in_width, other=0.0).to(ACC)
    bias = tl.load(bias_ptr + feature)
    scale = tl.load(scale_ptr + 2 * k)
    lam = tl.load(scale_ptr + 2 * k + 1)
    group = tl.load(offsets_ptr + k)
    shift = tl.load(base_ptr + k) - tl.load(ends_ptr + group - 1, mask=group > 0, other=0)
    stop = shift + tl.load(ends_ptr + feature)
    start = stop - tl.load(counts_ptr + feature)
    residual_ptr += k.to(tl.int64) * B * D
    d_enc = tl.zeros((BD,), dtype=ACC)
    d_dec = tl.zeros((BD,), dtype=ACC)
    d_bias = tl.zeros((C,), dtype=ACC)
    fired = tl.zeros((C,), dtype=tl.int32)
    for first in tl.range(start, stop, C):
        entries = first + tl.arange(0, C)
        live = entries < stop
        rows = tl.load(list_ptr + entries, mask=live, other=0)
        mask = live[:, None] & in_width[None, :]
        offset = rows[:, None].to(tl.int64) * D + columns[None, :]
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(ACC)
        r = tl.load(residual_ptr + offset, mask=mask, other=0.0).to(ACC)
        y = tl.sum(x * w_enc[None, :], 1) + bias
        z = tl.where(live, tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)
        dz = tl.where(live, tl.sum(r * w_dec[None, :], 1) + lam, 0.0)
        d_dec += tl.sum(z[:, None] * r, 0)
        d_enc += tl.sum(dz[:, None] * x, 0)
        d_bias += dz
        fired += (live & (y == y)).to(tl.int32)  # a NaN is in the list, but did not fire
    bias_gradient = tl.sum(d_bias, 0)
    if HAS_PRE:
        d_enc -= bias_gradient * tl.load(pre_ptr + k * D + columns, mask=in_width, other=0.0)
    tl.store(d_enc_ptr + own, d_enc * scale, mask=in_width)
    tl.store(d_dec_ptr + own, d_dec * scale, mask=in_width)
    tl.store(d_bias_ptr + feature, bias_gradient * scale)
    tl.store(fired_ptr + feature, tl.sum(fired, 0).to(tl.int64))


def entries(D: int) -> int:
    """List entries at a time: two gathered rows each, of which a warp's registers hold 1,024 numbers."""
    return max(1, min(ENTRIES, 1024 // padded(D)))


def rows_phase(
    x, target, w_enc, bias, w_dec, pre, segments: Segments, base, counts, ends, lists, *, residual, sums, columns=None
):
    """Launches the rows phase of the dictionaries that take part.

    Args:
        x, target, w_enc, bias, w_dec, pre, residual, columns: as in `forward.forward`.
        base, counts, ends, lists: of `lists.fill`, by rows.
        sums: [T, 2, K], written, with T = tiles of ROWS rows.
    """
    B, D = x.shape
    T = tiles_in(B, ROWS)
    rows_kernel[(T * len(segments.chosen),)](
        x,
        target,
        w_enc,
        bias,
        w_dec,
        pre if pre is not None else bias,
        segments.order,
        base,
        counts,
        ends,
        lists,
        residual,
        sums,
        columns if columns is not None else sums,
        B,
        D,
        T,
        len(segments),
        BR=ROWS,
        C=entries(D),
        BD=padded(D),
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        HAS_PRE=pre is not None,
        num_warps=1,
    )


def features_phase(
    x,
    residual,
    w_enc,
    bias,
    w_dec,
    pre,
    segments: Segments,
    tiles: FeatureTiles,
    scales,
    base,
    counts,
    ends,
    lists,
    *,
    d_enc,
    d_bias,
    d_dec,
    fired,
):
    """Launches the features phase of the dictionaries that take part.

    Args:
        x, residual, w_enc, bias, w_dec, pre, scales: as in `backward.backward`.
        tiles: of height 1.
        base, counts, ends, lists: of `lists.fill`, by features.
        d_enc, d_bias, d_dec: [N, D], [N], [N, D], written.
        fired: [N] int64, written.
    """
    B, D = x.shape
    features_kernel[(len(tiles),)](
        x,
        residual,
        w_enc,
        bias,
        w_dec,
        pre if pre is not None else bias,
        segments.offsets,
        tiles.dictionary,
        tiles.first,
        scales,
        base,
        counts,
        ends,
        lists,
        d_enc,
        d_bias,
        d_dec,
        fired,
        B,
        D,
        C=entries(D),
        BD=padded(D),
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        HAS_PRE=pre is not None,
        num_warps=1,
    )
