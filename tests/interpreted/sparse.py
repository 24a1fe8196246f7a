"""The kernels of the sparse path under Triton's interpreter; run by tests/kernels/test_interpreter.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernel_checks import Kernels, Problem, compare
from kernel_sparse_checks import SPARSE_CHECKS, expected_of, run_sparse
from sparsecode.kernels.configs import Tile

KERNELS = Kernels()
SHAPES = [(1, 32, [1]), (7, 48, [7, 33]), (33, 128, [9]), (40, 17, [33, 1])]


@pytest.mark.parametrize("check", SPARSE_CHECKS, ids=lambda check: check.__name__)
def test_kernels(check: Callable[[Kernels], None]) -> None:
    check(KERNELS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_autograd(shape: tuple[int, int, list[int]]) -> None:
    B, D, sizes = shape
    problem = Problem.random(B, D, sizes)
    compare(run_sparse(KERNELS, problem, tile=Tile(32, 64)), expected_of(problem), 1e-13)


@pytest.mark.parametrize(
    ("operands", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)], ids=["float16", "bfloat16"]
)
def test_16_bit_operands(operands: torch.dtype, tolerance: float) -> None:
    """Errors fit the type, and are not smaller: that would mean that nothing was rounded."""
    problem = Problem.random(20, 32, [24], dtype=torch.float32)
    x, w_enc, w_dec = (one.to(operands).float() for one in (problem.x, problem.w_enc, problem.w_dec))
    problem = Problem(x, w_enc, problem.b_enc, w_dec, None, problem.l1, problem.bounds)
    found, expected = run_sparse(KERNELS, problem, operands=operands), expected_of(problem)
    expected.pop("fired")
    compare(found, expected, tolerance)
    error = (found["d_enc"].double() - expected["d_enc"]).norm() / expected["d_enc"].norm()
    assert error > tolerance / 100
