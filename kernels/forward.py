"""Forward pass of a packed sweep: encode, ReLU, decode and residual in one kernel; the codes never reach memory.

For dictionary k and a tile of rows, over tiles of its features:

    z = relu(x W_enc^T + bias)          x_hat = z W_dec + p          r = x_hat - x
    partial sums per batch tile: |r|^2, sum z

The number of z > 0 is the sum of the firings that the backward pass counts anyway; counted here it would take a quarter
of the loop's instructions.

The pre-bias p is folded: bias = b_enc - W_enc p, so that the loop knows nothing of it (see prebias.py).

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, T batch tiles.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import Segments, padded, tiles_in

SUMS = 2  # squared error, L1


@triton.jit
def forward_kernel(
    x_ptr,  # [B, D], operands' type
    target_ptr,  # [B, D], the same rows unrounded: what the reconstruction is held against
    w_enc_ptr,  # [N, D]
    bias_ptr,  # [N]
    w_dec_ptr,  # [N, D]
    pre_ptr,  # [K, D]
    offsets_ptr,  # [K + 1]
    order_ptr,  # [K]
    residual_ptr,  # [K, B, D]
    sums_ptr,  # [T, 2, K]
    columns_ptr,  # [T, K, D]: r summed over the tile's rows, for the gradient of the pre-bias
    B,
    D,
    T,
    K,
    BB: tl.constexpr,  # rows of a batch tile
    BF: tl.constexpr,  # features of a tile
    BD: tl.constexpr,  # D padded to a power of two
    ACC: tl.constexpr,  # type of accumulators
    HAS_PRE: tl.constexpr,
    EVEN_D: tl.constexpr,  # D == BD: the mask over columns can go
    STORE_RESIDUAL: tl.constexpr,
):
    """One dictionary, one tile of the batch, over all its features; see the module."""
    pid = tl.program_id(0)
    k = tl.load(order_ptr + pid // T)
    tile = pid % T
    rows = tile * BB + tl.arange(0, BB)
    columns = tl.arange(0, BD)
    in_batch = rows < B
    in_width = columns < D
    x_mask = in_batch[:, None] if EVEN_D else in_batch[:, None] & in_width[None, :]
    x_offset = rows[:, None].to(tl.int64) * D + columns[None, :]
    x = tl.load(x_ptr + x_offset, mask=x_mask, other=0.0)

    start = tl.load(offsets_ptr + k)
    stop = tl.load(offsets_ptr + k + 1)
    x_hat = tl.zeros((BB, BD), dtype=ACC)
    l1 = tl.zeros((BB,), dtype=ACC)
    for first in tl.range(start, stop, BF):
        features = first + tl.arange(0, BF)
        owned = features < stop
        w_mask = owned[:, None] if EVEN_D else owned[:, None] & in_width[None, :]
        w_offset = features[:, None].to(tl.int64) * D + columns[None, :]
        w_enc = tl.load(w_enc_ptr + w_offset, mask=w_mask, other=0.0)
        bias = tl.load(bias_ptr + features, mask=owned, other=0.0)
        y = tl.dot(x, tl.trans(w_enc), input_precision="ieee", out_dtype=ACC) + bias[None, :]
        # `maximum` alone would turn NaN into 0 on the device and hide a dictionary that diverged.
        z = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
        l1 += tl.sum(z, 1)
        w_dec = tl.load(w_dec_ptr + w_offset, mask=w_mask, other=0.0)
        x_hat = tl.dot(z.to(w_dec.dtype), w_dec, x_hat, input_precision="ieee", out_dtype=ACC)

    target = tl.load(target_ptr + x_offset, mask=x_mask, other=0.0)
    if HAS_PRE:
        x_hat += tl.load(pre_ptr + k * D + columns, mask=in_width, other=0.0)[None, :]
    r = tl.where(x_mask, x_hat - target, 0.0)
    if STORE_RESIDUAL:
        base = residual_ptr + k.to(tl.int64) * B * D
        tl.store(base + x_offset, r.to(residual_ptr.dtype.element_ty), mask=x_mask)
    if HAS_PRE:
        at = columns_ptr + (tile.to(tl.int64) * K + k) * D + columns
        tl.store(at, tl.sum(r, 0), mask=in_width)
    sums = sums_ptr + tile * 2 * K + k
    # Rows past the end of the batch had x = 0 and therefore codes relu(bias): they do not count.
    tl.store(sums, tl.sum(tl.sum(r * r, 1), 0))
    tl.store(sums + K, tl.sum(tl.where(in_batch, l1, 0.0), 0))


def forward(x, target, w_enc, bias, w_dec, pre, segments: Segments, tile: Tile, *, residual, sums, columns=None):
    """Launches the forward pass over every dictionary at once.

    Args:
        x: [B, D], operands' type (float16, bfloat16 or float32; float64 under the interpreter).
        target: [B, D], the same rows in the accumulators' type.
        w_enc, w_dec: [N, D], operands' type.
        bias: [N], accumulators' type; with a pre-bias the folded one.
        pre: [K, D] pre-bias in the accumulators' type, or None.
        residual: [K, B, D], written, operands' type; None where only the sums are wanted.
        sums: [T, 2, K], written, with T = tiles of `tile.batch` rows; to be added up over T (reduce.py).
        columns: [T, K, D], written where there is a pre-bias.
    """
    B, D = x.shape
    T = tiles_in(B, tile.batch)
    accumulator = tl.float64 if x.dtype == torch.float64 else tl.float32
    unused = sums  # a pointer that the kernel is compiled not to touch
    forward_kernel[(T * len(segments.chosen),)](
        x,
        target,
        w_enc,
        bias,
        w_dec,
        pre if pre is not None else unused,
        segments.offsets,
        segments.order,
        residual if residual is not None else x,
        sums,
        columns if pre is not None else unused,
        B,
        D,
        T,
        len(segments),
        BB=tile.batch,
        BF=tile.features,
        BD=padded(D),
        ACC=accumulator,
        HAS_PRE=pre is not None,
        EVEN_D=padded(D) == D,
        STORE_RESIDUAL=residual is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
