"""Which codes are active, as lists: of each row its features, of each feature its rows. The sparse path begins here.

    masks   y = x W_enc^T + bias on the tensor cores; one bit per code with y > 0 (or NaN), by rows and by features
    count   bits of each line of a mask: a row and dictionary, or a feature
    (prefix: ends = the running sum of the counts, by torch, over integers and therefore exact in any order)
    fill    the places of a line's bits, ascending, from end - count on

Nobody appends to a list that another program writes, so there are no atomics and the lists are the same every run.
Masks hold 1/16 of the memory of 16-bit codes, and a list is made by walking over words, of which most are empty.

Each dictionary has a region of the list; one with more active codes than its region holds is left to the dense path
(`sweep/engines/gpu/lists.py`), and `fill` stores nothing past it.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, W words of 32
features (each dictionary begins a new one), V words of 32 rows.
"""

import torch
import triton
import triton.language as tl

from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import WORD, FeatureTiles, Segments, padded, tiles_in

ROW_LINES = (8, 128)  # lines and words of a tile of `count` and `fill`; words of a row lie side by side
FEATURE_LINES = (32, 32)  # here the lines do


@triton.jit
def _first_bits(count):
    """int32 with the lowest `count` bits set; all of them from 32 on."""
    missing = tl.minimum(tl.maximum(32 - count, 0), 31).to(tl.uint32)
    return (tl.full(count.shape, 0xFFFFFFFF, dtype=tl.uint32) >> missing).to(tl.int32, bitcast=True)


@triton.jit
def _bits(words):
    """How many bits of each uint32 are set."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    words = words + (words >> 8)
    return ((words + (words >> 16)) & 0x3F).to(tl.int32)


@triton.jit
def masks_kernel(
    x_ptr,  # [B, D], operands' type
    w_enc_ptr,  # [N, D]
    bias_ptr,  # [N]
    offsets_ptr,  # [K + 1]
    order_ptr,  # dictionaries that take part
    words_ptr,  # [K + 1] first word of each dictionary
    by_row_ptr,  # [B, W] int32
    by_feature_ptr,  # [V, N] int32
    B,
    D,
    T,
    N,
    W,
    BB: tl.constexpr,  # rows of a batch tile, a multiple of 32
    BF: tl.constexpr,  # features of a tile, a multiple of 32
    BD: tl.constexpr,
    ACC: tl.constexpr,
    EVEN_D: tl.constexpr,
):
    """One tile of the batch against one dictionary; see the module."""
    pid = tl.program_id(0)
    k = tl.load(order_ptr + pid // T)
    tile = pid % T
    rows = tile * BB + tl.arange(0, BB)
    columns = tl.arange(0, BD)
    in_batch = rows < B
    in_width = columns < D
    x_mask = in_batch[:, None] if EVEN_D else in_batch[:, None] & in_width[None, :]
    x = tl.load(x_ptr + rows[:, None].to(tl.int64) * D + columns[None, :], mask=x_mask, other=0.0)
    start = tl.load(offsets_ptr + k)
    stop = tl.load(offsets_ptr + k + 1)
    word = tl.load(words_ptr + k)
    row_bit = (1 << (tl.arange(0, BB) % 32))[:, None]
    feature_bit = (1 << (tl.arange(0, BF) % 32))[None, :]
    row_words = tile * (BB // 32) + tl.arange(0, BB // 32)
    batch_bits = _first_bits(B - 32 * row_words)
    by_row_ptr += rows[:, None].to(tl.int64) * W
    by_feature_ptr += row_words[:, None].to(tl.int64) * N
    for first in tl.range(start, stop, BF):
        features = first + tl.arange(0, BF)
        owned = features < stop
        w_mask = owned[:, None] if EVEN_D else owned[:, None] & in_width[None, :]
        w_offset = features[:, None].to(tl.int64) * D + columns[None, :]
        w_enc = tl.load(w_enc_ptr + w_offset, mask=w_mask, other=0.0)
        bias = tl.load(bias_ptr + features, mask=owned, other=0.0)
        y = tl.dot(x, tl.trans(w_enc), input_precision="ieee", out_dtype=ACC) + bias[None, :]
        # As `off` in backward.py: a NaN stays in, so that it shows. At exactly 0 a code is not active.
        off = y <= 0
        # What lies past the batch or the dictionary is cut off word by word, not code by code: this loop is all bits.
        words = tl.sum(tl.reshape(tl.where(off, 0, feature_bit), (BB, BF // 32, 32)), 2)
        left = stop - first - 32 * tl.arange(0, BF // 32)
        at = word + tl.arange(0, BF // 32)
        inside = in_batch[:, None] & (left > 0)[None, :]
        tl.store(by_row_ptr + at[None, :], words & _first_bits(left)[None, :], mask=inside)
        words = tl.sum(tl.reshape(tl.where(off, 0, row_bit), (BB // 32, 32, BF)), 1)
        inside = (32 * row_words < B)[:, None] & owned[None, :]
        tl.store(by_feature_ptr + features[None, :], words & batch_bits[:, None], mask=inside)
        word += BF // 32


@triton.jit
def _lines(offsets_ptr, dictionary_ptr, first_ptr, words_ptr, B, N, W, V, T, BY_ROW: tl.constexpr, L: tl.constexpr):
    """The lines of this program.

    Returns:
        (k, line within the mask [L], line of the counts [L], which are there [L], distance of lines, of words, first
        and last word, the first line of dictionary k in the counts)
    """
    pid = tl.program_id(0)
    if BY_ROW:
        k = tl.load(dictionary_ptr + pid // T)
        lines = (pid % T) * L + tl.arange(0, L)
        group = k.to(tl.int64) * B
        found = (k, lines, group + lines, lines < B, W, 1, tl.load(words_ptr + k), tl.load(words_ptr + k + 1), group)
    else:
        k = tl.load(dictionary_ptr + pid)
        lines = tl.load(first_ptr + pid) + tl.arange(0, L)
        group = tl.load(offsets_ptr + k).to(tl.int64)
        found = (k, lines, lines.to(tl.int64), lines < tl.load(offsets_ptr + k + 1), 1, N, 0, V, group)
    return found


@triton.jit
def count_kernel(
    mask_ptr,  # [B, W] or [V, N] int32
    offsets_ptr,
    dictionary_ptr,  # of each block of T programs, or of each program
    first_ptr,
    words_ptr,
    counts_ptr,  # [K B] or [N] int32
    B,
    N,
    W,
    V,
    T,
    BY_ROW: tl.constexpr,
    L: tl.constexpr,
    BW: tl.constexpr,
):
    """Bits of each line of one tile of lines."""
    _k, lines, out, inside, line_step, word_step, begin, end, _group = _lines(
        offsets_ptr, dictionary_ptr, first_ptr, words_ptr, B, N, W, V, T, BY_ROW, L
    )
    at = mask_ptr + lines[:, None].to(tl.int64) * line_step
    total = tl.zeros((L,), dtype=tl.int32)
    for first in tl.range(begin, end, BW):
        place = first + tl.arange(0, BW)
        mask = inside[:, None] & (place < end)[None, :]
        words = tl.load(at + place[None, :].to(tl.int64) * word_step, mask=mask, other=0)
        total += tl.sum(_bits(words.to(tl.uint32, bitcast=True)), 1)
    tl.store(counts_ptr + out, total, mask=inside)


@triton.jit
def fill_kernel(
    mask_ptr,  # [B, W] or [V, N] int32
    offsets_ptr,
    dictionary_ptr,
    first_ptr,
    words_ptr,
    counts_ptr,  # [K B] or [N] int32
    ends_ptr,  # [K B] or [N] int64: running sum of the counts
    base_ptr,  # [K + 1] int64: where each dictionary's region of the list begins
    list_ptr,  # int32
    B,
    N,
    W,
    V,
    T,
    BY_ROW: tl.constexpr,
    L: tl.constexpr,
    BW: tl.constexpr,
):
    """The places of the bits of each line of one tile of lines."""
    k, lines, out, inside, line_step, word_step, begin, end, group = _lines(
        offsets_ptr, dictionary_ptr, first_ptr, words_ptr, B, N, W, V, T, BY_ROW, L
    )
    before = tl.load(ends_ptr + group - 1, mask=group > 0, other=0)
    base = tl.load(base_ptr + k)
    limit = tl.load(base_ptr + k + 1)
    at = tl.load(ends_ptr + out, mask=inside, other=0) - tl.load(counts_ptr + out, mask=inside, other=0)
    at += base - before
    number = tl.load(offsets_ptr + k) if BY_ROW else 0  # what the first bit of the first word stands for
    mask_ptr += lines[:, None].to(tl.int64) * line_step
    for first in tl.range(begin, end, BW):
        place = first + tl.arange(0, BW)
        mask = inside[:, None] & (place < end)[None, :]
        words = tl.load(mask_ptr + place[None, :].to(tl.int64) * word_step, mask=mask, other=0)
        words = words.to(tl.uint32, bitcast=True)
        bits = _bits(words)
        to = at[:, None] + tl.cumsum(bits, 1) - bits
        value = number + 32 * (place - begin)[None, :]
        # One bit of every word at a time: as many turns as the fullest word of the tile has bits, two or three.
        for _ in tl.range(0, tl.max(tl.max(bits, 1), 0)):
            some = words != 0
            below = words - some.to(tl.uint32)
            bit = _bits((words ^ (words & below)) - some.to(tl.uint32))
            tl.store(list_ptr + to, value + bit, mask=some & (to < limit))
            words = words & below
            to += 1
        at += tl.sum(bits, 1)


def find_active(x, w_enc, bias, segments: Segments, tile: Tile, *, by_row, by_feature):
    """Writes the masks of all codes.

    Args:
        x: [B, D], w_enc: [N, D], operands' type; bias: [N], accumulators' type, with a pre-bias the folded one.
        by_row: [B, W] int32, written: bit f % 32 of word f // 32 of its dictionary is feature f.
        by_feature: [V, N] int32, written: bit b % 32 of word b // 32 is row b.
    """
    B, D = x.shape
    T = tiles_in(B, tile.batch)
    masks_kernel[(T * len(segments.chosen),)](
        x,
        w_enc,
        bias,
        segments.offsets,
        segments.order,
        segments.words,
        by_row,
        by_feature,
        B,
        D,
        T,
        segments.total,
        by_row.shape[1],
        BB=tile.batch,
        BF=tile.features,
        BD=padded(D),
        ACC=tl.float64 if x.dtype == torch.float64 else tl.float32,
        EVEN_D=padded(D) == D,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def _launch(segments: Segments, tiles: FeatureTiles | None, B: int):
    """Grid, tables and constants of `count` and `fill`; by features where there are tiles."""
    L, BW = ROW_LINES if tiles is None else FEATURE_LINES
    T = tiles_in(B, L)
    grid = (T * len(segments.chosen) if tiles is None else len(tiles),)
    tables = (
        segments.offsets,
        segments.order if tiles is None else tiles.dictionary,
        segments.order if tiles is None else tiles.first,
        segments.words,
    )
    sizes = (B, segments.total, segments.word_total, tiles_in(B, WORD), T)
    return grid, tables, sizes, {"BY_ROW": tiles is None, "L": L, "BW": BW, "num_warps": 4}


def count(mask, segments: Segments, B: int, *, counts, tiles: FeatureTiles | None = None):
    """Counts the bits of each line of a mask.

    Args:
        mask: `by_row` of `find_active`; with `tiles` (of height 32) `by_feature`.
        counts: int32, written: [K, B] by rows, [N] by features.
    """
    grid, tables, sizes, constants = _launch(segments, tiles, B)
    count_kernel[grid](mask, *tables, counts, *sizes, **constants)


def fill(mask, segments: Segments, B: int, counts, ends, base, *, out, tiles: FeatureTiles | None = None):
    """Writes the lists of the dictionaries that take part.

    Args:
        mask, counts, tiles: as in `count`.
        ends: int64, the running sum of `counts`.
        base: [K + 1] int64, where each dictionary's region of `out` begins.
        out: int32, written: numbers of features (rows of the packed tensors) by rows, of rows by features.
    """
    grid, tables, sizes, constants = _launch(segments, tiles, B)
    fill_kernel[grid](mask, *tables, counts, ends, base, out, *sizes, **constants)
