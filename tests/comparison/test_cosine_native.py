"""The native comparison: every path and any number of threads give the same bits, and no rounding hides a match."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.comparison import best_of_all, nearest
from sparsecode.comparison.cosine import unit_rows
from sparsecode.errors import InvalidArgument

PATHS = _core.CpuEngine.paths()


def atoms(n: int, d: int, seed: int) -> Tensor:
    return unit_rows(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def close(n: int, d: int, seed: int) -> Tensor:
    """Atoms in clusters: many cosines within a bfloat16 rounding of each other, duplicates among them."""
    centres = atoms(5, d, seed)[torch.arange(n) % 5]
    found = unit_rows(centres + 0.01 * atoms(n, d, seed + 1))
    found[n // 2 : n // 2 + 3] = found[0].clone()
    return found


@pytest.mark.parametrize("make", [atoms, close])
@pytest.mark.parametrize("d", [1, 5, 33, 128])
def test_all_pairs_are_those_of_the_whole_matrices(monkeypatch: pytest.MonkeyPatch, d: int, make: object) -> None:
    sizes = [1, 40, 129, 300]
    many = [make(n, d, n) for n in sizes]  # type: ignore[operator]
    live = [torch.arange(n) % 3 != 1 for n in sizes]
    live[1][:] = False
    for absolute in (False, True):
        monkeypatch.setenv("SPARSECODE_ENGINE", "scalar")
        first = best_of_all(many, live, absolute=absolute)
        start = 0
        for mine, own in zip(many, range(len(many)), strict=True):
            for j, theirs in enumerate(many):
                rows = slice(start, start + len(mine))
                if j == own:
                    assert torch.equal(first[0][j, rows], torch.ones(len(mine)))
                    assert torch.equal(first[1][j, rows].long(), torch.arange(len(mine)))
                    continue
                matrix = mine.double() @ theirs.double().T
                matrix = matrix.abs() if absolute else matrix
                torch.testing.assert_close(first[0][j, rows].double(), matrix.amax(1), atol=3e-7, rtol=0)
                chosen = matrix.gather(1, first[1][j, rows].long()[:, None])[:, 0]
                torch.testing.assert_close(chosen, matrix.amax(1), atol=3e-7, rtol=0)
                alive = matrix.masked_fill(~live[j], -torch.inf).amax(1).float()
                torch.testing.assert_close(first[2][j, rows], alive, atol=3e-7, rtol=0)  # type: ignore[index]
            start += len(mine)
        for path in PATHS:
            monkeypatch.setenv("SPARSECODE_ENGINE", path)
            again = best_of_all(many, live, absolute=absolute)
            for x, y in zip(first, again, strict=True):
                assert torch.equal(x, y), f"{path}: other bits"  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", [1, 3, 40, 70])
def test_nearest_are_the_largest_of_the_matrix(monkeypatch: pytest.MonkeyPatch, path: str, k: int) -> None:
    monkeypatch.setenv("SPARSECODE_ENGINE", path)
    for make in (atoms, close):
        a, b = make(150, 24, 1), make(67, 24, 2)
        matrix = a.double() @ b.double().T
        for (values, indices), cosines in zip(nearest(a, b, k), (matrix, matrix.T), strict=True):
            kept = min(k, cosines.shape[1])
            assert values.shape == indices.shape == (len(cosines), kept)
            torch.testing.assert_close(values.double(), cosines.topk(kept).values, atol=3e-7, rtol=0)
            chosen = cosines.gather(1, indices.long())
            torch.testing.assert_close(chosen, values.double(), atol=3e-7, rtol=0)
            assert all(len(set(row)) == kept for row in indices.tolist()), "each once"


def test_of_equal_atoms_the_lower_index() -> None:
    a, b = atoms(70, 9, 3), atoms(90, 9, 4)
    b[60] = b[31] = a[0] = b[7].clone()
    (_, of_a), _ = nearest(a, b, 4)
    assert of_a[0, :3].tolist() == [7, 31, 60]


@pytest.mark.parametrize("path", PATHS)
def test_rounding_cannot_hide_the_nearest(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The best atom rounds down by almost half a step of bfloat16 everywhere, a slightly worse one rounds up."""
    monkeypatch.setenv("SPARSECODE_ENGINE", path)
    step = 2.0**-8
    own = torch.full((256,), (1 + 0.98 * step) / 16)
    own[250:] = ((1 - own[:250].square().sum()) / 6).sqrt()
    other = torch.full((256,), (1 + 1.02 * step) / 16)
    rest = (1 - other[:250].square().sum()).sqrt()
    other[250:] = 0.0
    other[250], other[251] = rest * 0.8, rest * 0.6
    rounded = (own.bfloat16().double() @ own.bfloat16().double(), own.bfloat16().double() @ other.bfloat16().double())
    assert rounded[0] < rounded[1], "the screen alone would choose the wrong one"
    assert own @ other < 0.999
    a, b = torch.stack([own, -own]), torch.stack([other, own])
    (values, indices), _ = nearest(a, b, 1)
    assert indices[0].tolist() == [1]
    assert float(values[0]) == pytest.approx(1, abs=1e-6)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    before = torch.get_num_threads()
    many = [close(n, 40, n) for n in (300, 700, 90)]
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            cosine, index, _ = best_of_all(many)
            found.append([cosine, index, *nearest(many[0], many[1], 7)[0], *nearest(many[0], many[1], 7)[1]])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_permuting_atoms_permutes_the_answer() -> None:
    a, b = atoms(300, 16, 0), atoms(1100, 16, 1)
    order = torch.randperm(1100, generator=torch.Generator().manual_seed(0))
    (values, indices), (back, back_indices) = nearest(a, b, 5)
    (moved, moved_indices), (moved_back, moved_back_indices) = nearest(a, b[order], 5)
    assert torch.equal(values, moved) and torch.equal(indices.long(), order[moved_indices.long()])
    assert torch.equal(back[order], moved_back) and torch.equal(back_indices[order], moved_back_indices)


def test_arrays_that_do_not_fit_are_named() -> None:
    a, b = atoms(3, 4, 0), atoms(2, 5, 0)
    with pytest.raises(InvalidArgument, match="a has rows of 4, b of 5"):
        nearest(a, b, 1)
    for wrong in (2 * a, torch.full((3, 4), torch.nan)):
        with pytest.raises(InvalidArgument, match="a: row 0 is not of norm 1"):
            nearest(wrong, a, 1)
    values, index = np.empty((1, 3), np.float32), np.empty((1, 3), np.int32)
    with pytest.raises(InvalidArgument, match="sizes"):
        _core.best_of_all(a.numpy(), [2], None, values, index, None, absolute=False, path="auto", threads=1)
    with pytest.raises(InvalidArgument, match="unknown"):
        _core.best_of_all(a.numpy(), [3], None, values, index, None, absolute=False, path="fast", threads=1)


def test_an_interrupt_is_heard_before_the_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECODE_ENGINE", "scalar")
    many = [atoms(4096, 128, seed) for seed in range(4)]
    counts: list[int] = []
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            best_of_all(many, advance=counts.append)
    finally:
        timer.join()
    assert sum(counts) < 6 * 4096 * 4096


def test_progress_counts_every_pair_and_an_error_in_it_stops_the_work() -> None:
    counts: list[int] = []
    many = [atoms(n, 8, n) for n in (60, 128, 630)]
    best_of_all(many, advance=counts.append)
    assert sum(counts) == 60 * 128 + 60 * 630 + 128 * 630

    def fail(_: int) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        best_of_all(many, advance=fail)
