"""Checks of the sparse path's kernels, lists.py and sparse.py, like those in kernel_checks.py.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, W words of 32
features, V words of 32 rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interpreter_shim import check_red_zones, far, guard, guarded, reversed_programs
from kernel_checks import Gradients, Kernels, Problem, autograd, compare
from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import WORD, Segments, tiles_in

TILE = Tile(32, 32)


@dataclass
class Active:
    """The active codes, as the kernels wrote them."""

    by_row: Tensor  # [B, W]
    by_feature: Tensor  # [V, N]
    row_counts: Tensor  # [K, B]
    row_ends: Tensor  # [K B]
    feature_counts: Tensor  # [N]
    feature_ends: Tensor  # [N]
    base: Tensor  # [K + 1]
    row_list: Tensor
    feature_list: Tensor


def find(
    kernels: Kernels,
    x: Tensor,
    w_enc: Tensor,
    bias: Tensor,
    segments: Segments,
    *,
    tile: Tile,
    capacity: Sequence[int] | None = None,
) -> Active:
    """Masks, counts and lists of the chosen dictionaries; regions hold `capacity` codes, by default all."""
    # Few programs, yet several turns of every loop.
    vars(kernels.lists).update(ROW_LINES=(64, 2), FEATURE_LINES=(64, 2))
    vars(kernels.sparse).update(ROWS=8, ENTRIES=2)
    B, N, K = x.shape[0], segments.total, len(segments)
    integers = torch.int32
    by_row = guarded(B, segments.word_total, dtype=integers)
    by_feature = guarded(tiles_in(B, WORD), N, dtype=integers)
    kernels.lists.find_active(x, w_enc, bias, segments, tile, by_row=by_row, by_feature=by_feature)
    tiles = segments.feature_tiles(kernels.lists.FEATURE_LINES[0])
    row_counts, feature_counts = guarded(K, B, dtype=integers), guarded(N, dtype=integers)
    row_counts.zero_()
    feature_counts.zero_()
    kernels.lists.count(by_row, segments, B, counts=row_counts)
    kernels.lists.count(by_feature, segments, B, counts=feature_counts, tiles=tiles)
    row_ends, feature_ends = guard(row_counts.view(-1).cumsum(0)), guard(feature_counts.cumsum(0))
    capacity = capacity or [B * (stop - start) for start, stop in itertools.pairwise(segments.bounds)]
    base = guard(torch.tensor([0, *itertools.accumulate(capacity)]))
    row_list, feature_list = (guarded(int(base[-1]), dtype=integers) for _ in range(2))
    kernels.lists.fill(by_row, segments, B, row_counts, row_ends, base, out=row_list)
    kernels.lists.fill(by_feature, segments, B, feature_counts, feature_ends, base, out=feature_list, tiles=tiles)
    return Active(by_row, by_feature, row_counts, row_ends, feature_counts, feature_ends, base, row_list, feature_list)


def run_sparse(
    kernels: Kernels,
    problem: Problem,
    *,
    only: Sequence[int] | None = None,
    operands: torch.dtype | None = None,
    tile: Tile = TILE,
) -> Gradients:
    """Gradients and sums by lists, of all dictionaries or some."""
    dtype = problem.x.dtype
    narrow = operands or dtype
    (B, D), N, K = problem.x.shape, problem.w_enc.shape[0], len(problem.l1)
    segments = Segments.of(problem.bounds, "cpu")
    segments = segments if only is None else segments.only(only)
    x, w_enc, w_dec = (guard(one.to(narrow)) for one in (problem.x, problem.w_enc, problem.w_dec))
    bias, pre = guard(problem.b_enc), guard(problem.pre) if problem.pre is not None else None
    if pre is not None:
        folded = guarded(N, dtype=dtype)
        kernels.prebias.fold(w_enc, bias, pre, segments, segments.feature_tiles(16), folded=folded)
        bias = folded
    active = find(kernels, x, w_enc, bias, segments, tile=tile)
    T = tiles_in(B, kernels.sparse.ROWS)
    residual, sums = guarded(K, B, D, dtype=narrow), guarded(T, 2, K, dtype=dtype)
    columns = guarded(T, K, D, dtype=dtype) if pre is not None else None
    scale = 2 / (B * D)
    scales = guard(torch.tensor([[scale, l1 / (B * scale)] for l1 in problem.l1], dtype=dtype))
    kernels.sparse.rows_phase(
        x,
        guard(problem.x),
        w_enc,
        bias,
        w_dec,
        pre,
        segments,
        active.base,
        active.row_counts,
        active.row_ends,
        active.row_list,
        residual=residual,
        sums=sums,
        columns=columns,
    )
    d_enc, d_dec, d_bias = guarded(N, D, dtype=dtype), guarded(N, D, dtype=dtype), guarded(N, dtype=dtype)
    fired = guarded(N, dtype=torch.int64)
    kernels.sparse.features_phase(
        x,
        residual,
        w_enc,
        bias,
        w_dec,
        pre,
        segments,
        segments.feature_tiles(1),
        scales,
        active.base,
        active.feature_counts,
        active.feature_ends,
        active.feature_list,
        d_enc=d_enc,
        d_bias=d_bias,
        d_dec=d_dec,
        fired=fired,
    )
    found = {"d_enc": d_enc, "d_bias": d_bias, "d_dec": d_dec, "sums": sums.sum(0), "fired": fired}
    if columns is not None:
        d_pre = guarded(K, D, dtype=dtype)
        kernels.prebias.prebias_gradient(guard(columns.sum(0)), d_bias, w_enc, scales, segments, d_pre=d_pre)
        found["d_pre"] = d_pre
    found = {name: value.clone() for name, value in found.items()}
    check_red_zones()
    return found


def few_active(
    B: int, D: int, sizes: Sequence[int], *, pre: bool = False, dtype: torch.dtype = torch.float64
) -> Problem:
    """A problem in which a fifth of the codes is active."""
    problem = Problem.random(B, D, sizes, pre=pre, dtype=dtype)
    return replace(problem, b_enc=problem.b_enc - 0.8)


def expected_of(problem: Problem) -> Gradients:
    expected = autograd(problem)
    return expected | {"sums": expected["sums"][:2]}


def check_lists(kernels: Kernels) -> None:
    """Bits, counts and lists against the signs of all codes: ragged in every direction."""
    problem = few_active(70, 24, [33, 1, 66])
    problem.x[68, 3] = float("nan")
    segments = Segments.of(problem.bounds, "cpu")
    x, w_enc, bias = guard(problem.x), guard(problem.w_enc), guard(problem.b_enc)
    active = find(kernels, x, w_enc, bias, segments, tile=Tile(64, 64))
    on = ~(problem.x @ problem.w_enc.T + problem.b_enc <= 0)  # [B, N], NaN among them

    def packed(bits: Tensor) -> Tensor:
        """[lines, places] bool -> [lines, words] int32."""
        bits = torch.nn.functional.pad(bits, (0, -bits.shape[1] % WORD)).view(len(bits), -1, WORD).long()
        words = (bits << torch.arange(WORD)).sum(2)
        return torch.where(words >= 1 << 31, words - (1 << 32), words).int()

    own = [on[:, problem.rows(k)] for k in range(3)]
    assert torch.equal(active.by_row, torch.cat([packed(part) for part in own], 1)), "masks by row"
    assert torch.equal(active.by_feature.T, packed(on.T)), "masks by feature"
    assert torch.equal(active.row_counts, torch.stack([part.sum(1) for part in own]).int()), "counts by row"
    assert torch.equal(active.feature_counts, on.sum(0).int()), "counts by feature"
    for k, part in enumerate(own):
        start, count = int(active.base[k]), int(part.sum())
        places = part.nonzero()
        assert torch.equal(active.row_list[start : start + count].long(), places[:, 1] + problem.bounds[k]), "rows"
        places = part.T.nonzero()
        assert torch.equal(active.feature_list[start : start + count].long(), places[:, 1]), "features"
    check_red_zones()


def check_lists_keep_to_their_regions(kernels: Kernels) -> None:
    """A dictionary with more active codes than its region holds overwrites no other."""
    problem = few_active(33, 16, [2, 34, 3])
    segments = Segments.of(problem.bounds, "cpu")
    x, w_enc, bias = guard(problem.x), guard(problem.w_enc), guard(problem.b_enc)
    active = find(kernels, x, w_enc, bias, segments, tile=Tile(32, 32), capacity=[66, 100, 99])
    for found in (active.row_list, active.feature_list):
        count = int(active.row_counts[2].sum())
        assert found[166 + count :].eq(-77).all()
        assert found[166 : 166 + count].ge(0).all()
    own = problem.x @ problem.w_enc[36:].T + problem.b_enc[36:] > 0
    assert torch.equal(active.row_list[166 : 166 + int(own.sum())].long(), own.nonzero()[:, 1] + 36)
    check_red_zones()


def check_sparse_gradients(kernels: Kernels) -> None:
    """float64 under the interpreter: exact but for rounding, pre-bias folded."""
    problem = few_active(18, 20, [1, 13], pre=True)
    compare(run_sparse(kernels, problem), expected_of(problem), 1e-13)


def check_some_dictionaries(kernels: Kernels) -> None:
    """Dictionaries that take no part are not touched, and the others have the same bits as with them."""
    problem = few_active(9, 16, [5, 9, 3], dtype=torch.float32)
    together, some = run_sparse(kernels, problem), run_sparse(kernels, problem, only=(0, 2))
    for name in ("d_enc", "d_bias", "d_dec", "fired"):
        for k in (0, 2):
            assert torch.equal(some[name][problem.rows(k)], together[name][problem.rows(k)]), name
        untouched = some[name][problem.rows(1)]
        assert untouched.isnan().all() if untouched.is_floating_point() else untouched.eq(-77).all(), name
    assert torch.equal(some["sums"][:, [0, 2]], together["sums"][:, [0, 2]])


def check_sparse_zero_preactivation(kernels: Kernels) -> None:
    """A pre-activation of exactly 0 does not fire and has no gradient."""
    problem = Problem.random(9, 16, [12])
    problem.w_enc[:7] = 0
    problem.b_enc[:7] = 0
    found, expected = run_sparse(kernels, problem), expected_of(problem)
    assert found["fired"][:7].eq(0).all()
    assert found["d_bias"][:7].eq(0).all()
    compare(found, expected, 1e-13)


def check_sparse_nan_stays_in_its_dictionary(kernels: Kernels) -> None:
    """A dictionary that diverged shows NaN everywhere, and no firings of it; its neighbours keep their bits."""
    problem = few_active(9, 16, [6, 8, 3], dtype=torch.float32)
    before = run_sparse(kernels, problem)
    w_enc = problem.w_enc.clone()
    w_enc[6 + 3, 2] = float("nan")
    after = run_sparse(kernels, replace(problem, w_enc=w_enc))
    for name in ("d_enc", "d_bias", "d_dec", "fired"):
        sick = after[name][6 + 3]
        assert sick.eq(0).all() if name == "fired" else sick.isnan().all(), name
        for rows in (slice(0, 6), slice(14, 17)):
            assert torch.equal(before[name][rows], after[name][rows]), name
    assert after["sums"][:, 1].isnan().all()
    assert torch.equal(before["sums"][:, [0, 2]], after["sums"][:, [0, 2]])


def check_sparse_order(kernels: Kernels) -> None:
    """Programs in reverse order give the same bits: nothing depends on who comes first."""
    problem = few_active(18, 16, [11, 5], pre=True, dtype=torch.float32)
    forward = run_sparse(kernels, problem)
    with reversed_programs():
        backward = run_sparse(kernels, problem)
    for name, value in forward.items():
        assert torch.equal(value, backward[name]), name


def check_sparse_far_rows(kernels: Kernels) -> None:
    """A dictionary past element 2^31 of the packed tensors, of which only its rows have memory."""
    B, D, n = 5, 32, 6
    first = (1 << 31) // D + 1000
    near = few_active(B, D, [n], dtype=torch.float32)
    segments = replace(Segments.of((0, n), "cpu"), offsets=torch.tensor([first, first + n], dtype=torch.int32))
    x, bias = guard(near.x), far(guard(near.b_enc), first)
    w_enc, w_dec = far(guard(near.w_enc), first), far(guard(near.w_dec), first)
    by_row = guarded(B, 1, dtype=torch.int32)
    by_feature, counts = far(guarded(n, dtype=torch.int32), first), guarded(1, B, dtype=torch.int32)
    segments = replace(segments, bounds=(first, first + n))
    kernels.lists.find_active(x, w_enc, bias, segments, Tile(32, 32), by_row=by_row, by_feature=by_feature[None])
    kernels.lists.count(by_row, segments, B, counts=counts)
    ends, base = guard(counts.view(-1).cumsum(0)), guard(torch.tensor([0, B * n]))
    found = guarded(B * n, dtype=torch.int32)
    kernels.lists.fill(by_row, segments, B, counts, ends, base, out=found)
    residual, sums = guarded(1, B, D, dtype=torch.float32), guarded(1, 2, 1, dtype=torch.float32)
    kernels.sparse.rows_phase(
        x, x, w_enc, bias, w_dec, None, segments, base, counts, ends, found, residual=residual, sums=sums
    )
    tiles = segments.feature_tiles(kernels.lists.FEATURE_LINES[0])
    feature_counts = guarded(n, dtype=torch.int32)
    kernels.lists.count(by_feature[None], segments, B, counts=far(feature_counts, first), tiles=tiles)
    # One number before the first feature: the running sum up to it.
    feature_ends = guard(torch.cat([torch.zeros(1, dtype=torch.int64), feature_counts.cumsum(0)]))
    feature_list = guarded(B * n, dtype=torch.int32)
    by_features = (far(feature_counts, first), far(feature_ends, first - 1))
    kernels.lists.fill(by_feature[None], segments, B, *by_features, base, out=feature_list, tiles=tiles)
    scale = 2 / (B * D)
    scales = guard(torch.tensor([[scale, near.l1[0] / (B * scale)]]))
    d_enc, d_dec, d_bias = (guarded(*shape, dtype=torch.float32) for shape in ((n, D), (n, D), (n,)))
    fired = guarded(n, dtype=torch.int64)
    kernels.sparse.features_phase(
        x,
        residual,
        w_enc,
        bias,
        w_dec,
        None,
        segments,
        segments.feature_tiles(1),
        scales,
        base,
        *by_features,
        feature_list,
        d_enc=far(d_enc, first),
        d_bias=far(d_bias, first),
        d_dec=far(d_dec, first),
        fired=far(fired, first),
    )
    check = {"d_enc": d_enc, "d_bias": d_bias, "d_dec": d_dec, "fired": fired, "sums": sums.sum(0)}
    compare(check, expected_of(near), 1e-5)
    check_red_zones()


SPARSE_CHECKS: tuple[Callable[[Kernels], None], ...] = (
    check_lists,
    check_lists_keep_to_their_regions,
    check_sparse_zero_preactivation,
    check_sparse_gradients,
    check_sparse_far_rows,
    check_sparse_nan_stays_in_its_dictionary,
    check_some_dictionaries,
    check_sparse_order,
)
