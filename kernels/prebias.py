"""The pre-bias, folded out of the training kernels' loops.

With a pre-bias p the encoder reads x - p and the decoder adds p. Since W_enc (x - p) + b_enc = W_enc x + (b_enc -
W_enc p), the loops run on x with the folded bias, and the gradient is

    dp = sum over rows of dx_hat  -  db_enc W_enc

Shape letters: D activation dimension, N features of all dictionaries, K dictionaries.
"""

import triton
import triton.language as tl

from sparsecode.kernels.tables import FeatureTiles, Segments, padded, tiles_in


@triton.jit
def fold_kernel(
    w_enc_ptr,  # [N, D], operands' type: what the loops multiply by
    b_enc_ptr,  # [N]
    pre_ptr,  # [K, D]
    offsets_ptr,  # [K + 1]
    tile_dictionary_ptr,
    tile_first_ptr,
    folded_ptr,  # [N]
    D,
    BF: tl.constexpr,
    BD: tl.constexpr,
):
    """The folded bias of one tile of features."""
    tile = tl.program_id(0)
    k = tl.load(tile_dictionary_ptr + tile)
    features = tl.load(tile_first_ptr + tile) + tl.arange(0, BF)
    columns = tl.arange(0, BD)
    owned = features < tl.load(offsets_ptr + k + 1)
    in_width = columns < D
    at = features[:, None].to(tl.int64) * D + columns[None, :]
    pre = tl.load(pre_ptr + k * D + columns, mask=in_width, other=0.0)
    w_enc = tl.load(w_enc_ptr + at, mask=owned[:, None] & in_width[None, :], other=0.0)
    bias = tl.load(b_enc_ptr + features, mask=owned, other=0.0)
    folded = bias - tl.sum(w_enc.to(pre.dtype) * pre[None, :], 1)
    tl.store(folded_ptr + features, folded, mask=owned)


@triton.jit
def prebias_gradient_kernel(
    columns_ptr,  # [K, D]: r summed over the batch
    d_bias_ptr,  # [N]
    w_enc_ptr,  # [N, D]
    scale_ptr,  # [K, 2]: scale, lam
    offsets_ptr,  # [K + 1]
    order_ptr,  # dictionaries that take part
    d_pre_ptr,  # [K, D]
    D,
    BF: tl.constexpr,
    BC: tl.constexpr,  # columns per program
):
    """One block of columns of one dictionary's pre-bias gradient."""
    k = tl.load(order_ptr + tl.program_id(0))
    columns = tl.program_id(1) * BC + tl.arange(0, BC)
    in_width = columns < D
    start = tl.load(offsets_ptr + k)
    stop = tl.load(offsets_ptr + k + 1)
    at = k * D + columns
    total = tl.load(columns_ptr + at, mask=in_width, other=0.0) * tl.load(scale_ptr + 2 * k)
    for first in tl.range(start, stop, BF):
        features = first + tl.arange(0, BF)
        owned = features < stop
        mask = owned[:, None] & in_width[None, :]
        w_enc = tl.load(w_enc_ptr + features[:, None].to(tl.int64) * D + columns[None, :], mask=mask, other=0.0)
        d_bias = tl.load(d_bias_ptr + features, mask=owned, other=0.0)
        total -= tl.sum(d_bias[:, None] * w_enc.to(total.dtype), 0)
    tl.store(d_pre_ptr + at, total, mask=in_width)


def fold(w_enc, b_enc, pre, segments: Segments, tiles: FeatureTiles, *, folded):
    """Writes b_enc - W_enc p into `folded` [N]."""
    D = w_enc.shape[1]
    fold_kernel[(len(tiles),)](
        w_enc,
        b_enc,
        pre,
        segments.offsets,
        tiles.dictionary,
        tiles.first,
        folded,
        D,
        BF=tiles.height,
        BD=padded(D),
        num_warps=4,
    )


def prebias_gradient(columns, d_bias, w_enc, scales, segments: Segments, *, d_pre):
    """Writes the gradient of the pre-bias into `d_pre` [K, D]; `columns` [K, D] is r summed over the batch."""
    D = w_enc.shape[1]
    prebias_gradient_kernel[(len(segments.chosen), tiles_in(D, 32))](
        columns, d_bias, w_enc, scales, segments.offsets, segments.order, d_pre, D, BF=64, BC=32, num_warps=4
    )
