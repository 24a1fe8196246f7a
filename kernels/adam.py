"""Adam over a packed sweep with the atoms' two constraints, one launch: read gradients and moments once, write once.

For each parameter w with gradient g, as torch.optim.Adam (Kingma and Ba 2015, algorithm 1):

    atoms only, with PROJECT:  g <- g - (g . w) w
    m <- m + (1 - b1)(g - m)          v <- b2 v + (1 - b2) g g
    w <- w - rate_k m / (sqrt(v) / root + eps)          rate_k = lr_k lr_scale / (1 - b1^t), root = sqrt(1 - b2^t)
    atoms only:  w <- w / |w|

then the operands' copies of the weights, in 16 bit, for the next step's products.

Shape letters: D activation dimension, N features of all dictionaries, K dictionaries.
"""

import triton
import triton.language as tl

from sparsecode.kernels.tables import FeatureTiles, Segments, padded, tiles_in


@triton.jit
def _adam(w, g, m, v, rate, root, B1M: tl.constexpr, B2: tl.constexpr, B2M: tl.constexpr, EPS: tl.constexpr):
    m += B1M * (g - m)
    v = B2 * v + B2M * g * g
    w -= rate * tl.div_rn(m, tl.div_rn(tl.sqrt_rn(v), root) + EPS)
    return w, m, v


@triton.jit
def adam_kernel(
    w_enc_ptr,  # [N, D], and so on for the next twelve, [N] for the bias
    m_enc_ptr,
    v_enc_ptr,
    d_enc_ptr,
    b_enc_ptr,
    m_bias_ptr,
    v_bias_ptr,
    d_bias_ptr,
    w_dec_ptr,
    m_dec_ptr,
    v_dec_ptr,
    d_dec_ptr,
    enc_operand_ptr,
    dec_operand_ptr,
    offsets_ptr,  # [K + 1]
    tile_dictionary_ptr,
    tile_first_ptr,
    rate_ptr,  # [K]
    root,
    D,
    B1M: tl.constexpr,  # 1 - b1, rounded once from the exact value
    B2: tl.constexpr,
    B2M: tl.constexpr,
    EPS: tl.constexpr,
    BF: tl.constexpr,
    BD: tl.constexpr,
    TIED: tl.constexpr,
    PROJECT: tl.constexpr,
    COPY: tl.constexpr,  # write the operands' copies
):
    """One tile of features: atoms, encoder rows and biases; see the module."""
    tile = tl.program_id(0)
    k = tl.load(tile_dictionary_ptr + tile)
    features = tl.load(tile_first_ptr + tile) + tl.arange(0, BF)
    columns = tl.arange(0, BD)
    owned = features < tl.load(offsets_ptr + k + 1)
    mask = owned[:, None] & (columns < D)[None, :]
    at = features[:, None].to(tl.int64) * D + columns[None, :]
    rate = tl.load(rate_ptr + k)

    w = tl.load(w_dec_ptr + at, mask=mask, other=0.0)
    g = tl.load(d_dec_ptr + at, mask=mask, other=0.0)
    if TIED:
        g += tl.load(d_enc_ptr + at, mask=mask, other=0.0)
    if PROJECT:
        g -= tl.sum(g * w, 1)[:, None] * w
    m = tl.load(m_dec_ptr + at, mask=mask, other=0.0)
    v = tl.load(v_dec_ptr + at, mask=mask, other=0.0)
    w, m, v = _adam(w, g, m, v, rate, root, B1M, B2, B2M, EPS)
    norm = tl.sqrt_rn(tl.sum(w * w, 1))
    w = tl.div_rn(w, tl.broadcast_to(tl.where(owned, norm, 1.0)[:, None], (BF, BD)))
    tl.store(w_dec_ptr + at, w, mask=mask)
    tl.store(m_dec_ptr + at, m, mask=mask)
    tl.store(v_dec_ptr + at, v, mask=mask)
    if COPY:
        tl.store(dec_operand_ptr + at, w.to(dec_operand_ptr.dtype.element_ty), mask=mask)

    if not TIED:
        w = tl.load(w_enc_ptr + at, mask=mask, other=0.0)
        g = tl.load(d_enc_ptr + at, mask=mask, other=0.0)
        m = tl.load(m_enc_ptr + at, mask=mask, other=0.0)
        v = tl.load(v_enc_ptr + at, mask=mask, other=0.0)
        w, m, v = _adam(w, g, m, v, rate, root, B1M, B2, B2M, EPS)
        tl.store(w_enc_ptr + at, w, mask=mask)
        tl.store(m_enc_ptr + at, m, mask=mask)
        tl.store(v_enc_ptr + at, v, mask=mask)
        if COPY:
            tl.store(enc_operand_ptr + at, w.to(enc_operand_ptr.dtype.element_ty), mask=mask)

    b = tl.load(b_enc_ptr + features, mask=owned, other=0.0)
    g = tl.load(d_bias_ptr + features, mask=owned, other=0.0)
    m = tl.load(m_bias_ptr + features, mask=owned, other=0.0)
    v = tl.load(v_bias_ptr + features, mask=owned, other=0.0)
    b, m, v = _adam(b, g, m, v, rate, root, B1M, B2, B2M, EPS)
    tl.store(b_enc_ptr + features, b, mask=owned)
    tl.store(m_bias_ptr + features, m, mask=owned)
    tl.store(v_bias_ptr + features, v, mask=owned)


@triton.jit
def adam_rows_kernel(
    w_ptr,  # [K, D], and the next three
    m_ptr,
    v_ptr,
    g_ptr,
    rate_ptr,  # [K]
    root,
    D,
    B1M: tl.constexpr,
    B2: tl.constexpr,
    B2M: tl.constexpr,
    EPS: tl.constexpr,
    BD: tl.constexpr,
):
    """One block of one row: Adam alone."""
    k = tl.program_id(0)
    columns = tl.program_id(1) * BD + tl.arange(0, BD)
    mask = columns < D
    at = k * D + columns
    rate = tl.load(rate_ptr + k)
    w = tl.load(w_ptr + at, mask=mask, other=0.0)
    g = tl.load(g_ptr + at, mask=mask, other=0.0)
    m = tl.load(m_ptr + at, mask=mask, other=0.0)
    v = tl.load(v_ptr + at, mask=mask, other=0.0)
    w, m, v = _adam(w, g, m, v, rate, root, B1M, B2, B2M, EPS)
    tl.store(w_ptr + at, w, mask=mask)
    tl.store(m_ptr + at, m, mask=mask)
    tl.store(v_ptr + at, v, mask=mask)


def adam_step(
    weights,
    moments,
    gradients,
    operands,
    rates,
    segments: Segments,
    tiles: FeatureTiles,
    *,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
    project: bool,
):
    """Updates encoder, bias and atoms in place.

    Args:
        weights: (W_enc [N, D], b_enc [N], W_dec [N, D]) float32; where tied, W_enc is W_dec itself.
        moments: ((m, v), (m, v), (m, v)) in the same order; where tied, the first pair is not touched.
        gradients: (dW_enc, db_enc, dW_dec).
        operands: (W_enc, W_dec) copies in the operands' type; None where the products read the weights themselves.
        rates: [K] float32, lr_k lr_scale / (1 - b1^t).
        root: sqrt(1 - b2^t).
        project: remove the gradient along each atom first.
    """
    w_enc, b_enc, w_dec = weights
    (m_enc, v_enc), (m_bias, v_bias), (m_dec, v_dec) = moments
    d_enc, d_bias, d_dec = gradients
    enc_operand, dec_operand = operands if operands is not None else (w_enc, w_dec)
    D = w_dec.shape[1]
    adam_kernel[(len(tiles),)](
        w_enc,
        m_enc,
        v_enc,
        d_enc,
        b_enc,
        m_bias,
        v_bias,
        d_bias,
        w_dec,
        m_dec,
        v_dec,
        d_dec,
        enc_operand,
        dec_operand,
        segments.offsets,
        tiles.dictionary,
        tiles.first,
        rates,
        root,
        D,
        B1M=1 - beta1,
        B2=beta2,
        B2M=1 - beta2,
        EPS=eps,
        BF=tiles.height,
        BD=padded(D),
        TIED=w_enc is w_dec,
        PROJECT=project,
        COPY=operands is not None,
        num_warps=4,
    )


def adam_rows(weight, moments, gradient, rates, *, root: float, beta1: float, beta2: float, eps: float):
    """Updates a tensor [K, D] in place, one rate per row: the pre-bias."""
    K, D = weight.shape
    block = min(1024, padded(D))
    adam_rows_kernel[(K, tiles_in(D, block))](
        weight,
        *moments,
        gradient,
        rates,
        root,
        D,
        B1M=1 - beta1,
        B2=beta2,
        B2M=1 - beta2,
        EPS=eps,
        BD=block,
        num_warps=4,
    )
