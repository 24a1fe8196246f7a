"""Backward pass of a packed sweep: every gradient of a tile of features in registers, over the rows of the batch.

One program owns its features, so there are no atomics and the bits are the same every run. With r from the forward
pass, and scale = 2 c, lam = (l1 / B) / scale where the loss is c |r|^2 + l1 sum(z) / B:

    z = relu(W_enc x^T + bias)          dz = (W_dec r^T + lam) where z > 0
    dW_dec = scale z r                  dW_enc = scale (dz x - sum(dz) p)          db_enc = scale sum(dz)

z is computed again, transposed, so that it feeds its second product from registers. The scale is applied once at the
end: products of float16 operands then neither overflow nor vanish. dx is never needed: the gradient of the pre-bias is
sum(dx_hat) - db_enc W_enc (prebias.py).

With few features the batch is cut into S parts; each writes its own partial gradients, added in order by reduce.py.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, S splits.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import FeatureTiles, Segments, padded, tiles_in

DECODER, ENCODER = 1, 2  # PARTS: bits of what a launch computes; 0 counts firings only


@triton.jit
def backward_kernel(
    x_ptr,  # [B, D]
    residual_ptr,  # [K, B, D]
    w_enc_ptr,  # [N, D]
    bias_ptr,  # [N]
    w_dec_ptr,  # [N, D]
    pre_ptr,  # [K, D]
    offsets_ptr,  # [K + 1]
    tile_dictionary_ptr,  # one per feature tile
    tile_first_ptr,
    scale_ptr,  # [K, 2]: scale, lam
    d_enc_ptr,  # [S, N, D]
    d_bias_ptr,  # [S, N]
    d_dec_ptr,  # [S, N, D]
    fired_ptr,  # [S, N] int32
    B,
    D,
    split_rows,  # rows of the batch per split, a multiple of BB
    split_stride,  # elements from one split's gradients to the next
    fired_stride,
    BB: tl.constexpr,
    BF: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
    HAS_PRE: tl.constexpr,
    EVEN_D: tl.constexpr,
    EVEN_B: tl.constexpr,  # every batch tile is full
    PARTS: tl.constexpr,  # 1 decoder and firings, 2 encoder, 3 all, 0 firings
):
    """Gradients of one tile of features over one part of the batch; see the module."""
    tile = tl.program_id(0)
    split = tl.program_id(1)
    k = tl.load(tile_dictionary_ptr + tile)
    first = tl.load(tile_first_ptr + tile)
    stop = tl.load(offsets_ptr + k + 1)
    features = first + tl.arange(0, BF)
    columns = tl.arange(0, BD)
    owned = features < stop
    in_width = columns < D
    w_mask = owned[:, None] if EVEN_D else owned[:, None] & in_width[None, :]
    w_offset = features[:, None].to(tl.int64) * D + columns[None, :]
    w_enc = tl.load(w_enc_ptr + w_offset, mask=w_mask, other=0.0)
    bias = tl.load(bias_ptr + features, mask=owned, other=0.0)
    residual_ptr += k.to(tl.int64) * B * D
    out = split.to(tl.int64) * split_stride

    if PARTS >= 2:
        w_dec = tl.load(w_dec_ptr + w_offset, mask=w_mask, other=0.0)
        lam = tl.load(scale_ptr + 2 * k + 1)
        d_enc = tl.zeros((BF, BD), dtype=ACC)
        d_bias = tl.zeros((BF,), dtype=ACC)
    if PARTS % 2 == 1:
        d_dec = tl.zeros((BF, BD), dtype=ACC)
    if PARTS != 2:
        fired = tl.zeros((BF,), dtype=ACC)

    begin = split * split_rows
    for row in tl.range(begin, tl.minimum(begin + split_rows, B), BB):
        rows = row + tl.arange(0, BB)
        in_batch = rows < B
        x_offset = rows[:, None].to(tl.int64) * D + columns[None, :]
        if EVEN_B and EVEN_D:
            x = tl.load(x_ptr + x_offset)
        else:
            x_mask = in_batch[:, None] if EVEN_D else in_batch[:, None] & in_width[None, :]
            x = tl.load(x_ptr + x_offset, mask=x_mask, other=0.0)
        if PARTS != 0:
            if EVEN_B and EVEN_D:
                r = tl.load(residual_ptr + x_offset)
            else:
                r = tl.load(residual_ptr + x_offset, mask=x_mask, other=0.0)
        y = tl.dot(w_enc, tl.trans(x), input_precision="ieee", out_dtype=ACC) + bias[:, None]
        # As `off`, not as `y > 0`, so that a NaN passes, as through torch's ReLU. At exactly 0 the gradient is 0.
        off = y <= 0
        if not EVEN_B:
            off = off | (rows >= B)[None, :]
        if PARTS % 2 == 1:
            z = tl.where(off, 0.0, y)
            d_dec = tl.dot(z.to(r.dtype), r, d_dec, input_precision="ieee", out_dtype=ACC)
        if PARTS >= 2:
            dz = tl.dot(w_dec, tl.trans(r), input_precision="ieee", out_dtype=ACC) + lam
            dz = tl.where(off, 0.0, dz)
            d_enc = tl.dot(dz.to(x.dtype), x, d_enc, input_precision="ieee", out_dtype=ACC)
            d_bias += tl.sum(dz, 1)
        if PARTS != 2:
            active = y > 0
            if not EVEN_B:
                active = active & in_batch[None, :]
            fired += tl.sum(tl.where(active, 1.0, 0.0).to(ACC), 1)

    if PARTS >= 1:
        scale = tl.load(scale_ptr + 2 * k)
    if PARTS >= 2:
        if HAS_PRE:
            pre = tl.load(pre_ptr + k * D + columns, mask=in_width, other=0.0)
            d_enc -= d_bias[:, None] * pre[None, :]
        tl.store(d_enc_ptr + out + w_offset, d_enc * scale, mask=w_mask)
        tl.store(d_bias_ptr + out + features, d_bias * scale, mask=owned)
    if PARTS % 2 == 1:
        tl.store(d_dec_ptr + out + w_offset, d_dec * scale, mask=w_mask)
    if PARTS != 2:
        at = fired_ptr + split.to(tl.int64) * fired_stride + features
        tl.store(at, fired.to(tl.int32), mask=owned)


def backward(
    x,
    residual,
    w_enc,
    bias,
    w_dec,
    pre,
    segments: Segments,
    tiles: FeatureTiles,
    scales,
    tile: Tile,
    *,
    parts: int,
    d_enc=None,
    d_bias=None,
    d_dec=None,
    fired=None,
    splits: int = 1,
    split_stride: int = 0,
):
    """Launches the backward pass over every dictionary at once.

    Args:
        x, w_enc, bias, w_dec, pre: as in `forward`.
        residual: [K, B, D] that `forward` wrote; None for `parts` 0.
        tiles: feature tiles of height `tile.features`.
        scales: [K, 2], scale and lam of each dictionary, accumulators' type; None for `parts` 0.
        parts: DECODER (dW_dec and firings), ENCODER (dW_enc, db_enc), both, or 0 (firings only).
        d_enc, d_bias, d_dec: where the first split's gradients go, [N, D], [N], [N, D]; the others follow at
            multiples of `split_stride` elements.
        fired: [S, N] int32, rows of the split on which the feature was active.
        splits: S, parts of the batch.
    """
    B, D = x.shape
    split_rows = tiles_in(tiles_in(B, tile.batch), splits) * tile.batch
    accumulator = tl.float64 if x.dtype == torch.float64 else tl.float32
    backward_kernel[(len(tiles), splits)](
        x,
        residual if residual is not None else x,
        w_enc,
        bias,
        w_dec,
        pre if pre is not None else bias,
        segments.offsets,
        tiles.dictionary,
        tiles.first,
        scales if scales is not None else bias,
        d_enc if d_enc is not None else bias,
        d_bias if d_bias is not None else bias,
        d_dec if d_dec is not None else bias,
        fired if fired is not None else tiles.first,
        B,
        D,
        split_rows,
        split_stride,
        segments.total,
        BB=tile.batch,
        BF=tile.features,
        BD=padded(D),
        ACC=accumulator,
        HAS_PRE=pre is not None,
        EVEN_D=padded(D) == D,
        EVEN_B=B % tile.batch == 0,
        PARTS=parts,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
