"""Max cosine similarity of every atom with every dictionary, values and places, in one launch; no matrix is held.

For unit rows a_i and the unit atoms c_j of dictionary k:   value[i, k] = max_j a_i . c_j,   place[i, k] = argmax_j

The first of equal maxima wins. A NaN anywhere in a row's cosines makes its value NaN and its place the first NaN.

Shape letters: D activation dimension, M rows that are looked up, N atoms of all dictionaries, K dictionaries.
"""

import triton
import triton.language as tl

from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import Segments, padded, tiles_in


@triton.jit
def mcs_kernel(
    rows_ptr,  # [M, D]
    atoms_ptr,  # [N, D]
    offsets_ptr,  # [K + 1]
    order_ptr,  # [K]
    value_ptr,  # [M, K]
    place_ptr,  # [M, K] int32, relative to the dictionary's first atom
    M,
    D,
    T,
    K,
    BB: tl.constexpr,  # rows of a tile
    BF: tl.constexpr,  # atoms of a tile
    BD: tl.constexpr,  # columns at a time
    PRECISION: tl.constexpr,  # "ieee" or "tf32x3", never "tf32": it could not tell 0.9 from 0.9005
):
    """One tile of rows against one dictionary; see the module."""
    pid = tl.program_id(0)
    k = tl.load(order_ptr + pid // T)
    rows = (pid % T) * BB + tl.arange(0, BB)
    inside = rows < M
    start = tl.load(offsets_ptr + k)
    stop = tl.load(offsets_ptr + k + 1)
    best = tl.full((BB,), float("-inf"), dtype=tl.float32)
    place = tl.zeros((BB,), dtype=tl.int32)
    for first in tl.range(start, stop, BF):
        atoms = first + tl.arange(0, BF)
        owned = atoms < stop
        cosine = tl.zeros((BB, BF), dtype=tl.float32)
        for column in tl.range(0, D, BD):
            columns = column + tl.arange(0, BD)
            in_width = columns < D
            a_at = rows_ptr + rows[:, None].to(tl.int64) * D + columns[None, :]
            c_at = atoms_ptr + atoms[:, None].to(tl.int64) * D + columns[None, :]
            a = tl.load(a_at, mask=inside[:, None] & in_width[None, :], other=0.0)
            c = tl.load(c_at, mask=owned[:, None] & in_width[None, :], other=0.0)
            cosine = tl.dot(a, tl.trans(c), cosine, input_precision=PRECISION, out_dtype=tl.float32)
        # Comparisons drop NaN; as +inf it wins, and is turned back at the end (no product of unit rows is infinite).
        cosine = tl.where(cosine != cosine, float("inf"), cosine)
        cosine = tl.where(owned[None, :], cosine, float("-inf"))
        tile_best, tile_place = tl.max(cosine, 1, return_indices=True)
        better = tile_best > best
        place = tl.where(better, tile_place + (first - start), place)
        best = tl.where(better, tile_best, best)
    best = tl.where(best == float("inf"), float("nan"), best)
    at = rows.to(tl.int64) * K + k
    tl.store(value_ptr + at, best, mask=inside)
    tl.store(place_ptr + at, place, mask=inside)


def max_cosine(rows, atoms, segments: Segments, tile: Tile, *, value, place, precision: str = "ieee"):
    """Launches the comparison of all rows with all dictionaries.

    Args:
        rows: [M, D] float32, unit rows; may be `atoms` itself.
        atoms: [N, D] float32, unit rows packed by dictionary.
        value: [M, K] float32, written.
        place: [M, K] int32, written: index of the best atom within its dictionary.
        precision: "ieee" (exact products) or "tf32x3" (three tensor-core products, float32 accuracy to about 1e-6).
    """
    M, D = rows.shape
    T = tiles_in(M, tile.batch)
    mcs_kernel[(T * len(segments),)](
        rows,
        atoms,
        segments.offsets,
        segments.order,
        value,
        place,
        M,
        D,
        T,
        len(segments),
        BB=tile.batch,
        BF=tile.features,
        BD=min(64, padded(D)),
        PRECISION=precision,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
