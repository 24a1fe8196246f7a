"""Every kernel under Triton's interpreter; run by tests/kernels/test_interpreter.py in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from interpreter_shim import AccessError, guarded, to_bfloat16, to_float32
from kernel_checks import (
    CHECKS,
    Kernels,
    Problem,
    autograd,
    check_adam,
    compare,
    run_step,
)
from kernel_far_checks import FAR_CHECKS
from sparsecode.kernels.configs import Tile

KERNELS = Kernels()
SHAPES = [
    (1, 32, [1]),
    (7, 48, [7, 33]),
    (33, 128, [40, 65]),
    (70, 32, [33, 1, 50]),
    (17, 17, [65]),
]


@pytest.mark.parametrize("check", CHECKS + FAR_CHECKS, ids=lambda check: check.__name__)
def test_kernels(check: Callable[[Kernels], None]) -> None:
    check(KERNELS)


@pytest.mark.parametrize("pre", [False, True], ids=["plain", "pre-bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_autograd(shape: tuple[int, int, list[int]], pre: bool) -> None:
    B, D, sizes = shape
    problem = Problem.random(B, D, sizes, pre=pre)
    compare(run_step(KERNELS, problem, forward=Tile(32, 32), backward=Tile(32, 32)), autograd(problem), 1e-13)


@pytest.mark.parametrize("tiles", [(Tile(16, 16), Tile(16, 16)), (Tile(64, 16), Tile(16, 64))], ids=str)
def test_result_does_not_depend_on_tiles(tiles: tuple[Tile, Tile]) -> None:
    problem = Problem.random(37, 32, [33, 5], pre=True)
    compare(run_step(KERNELS, problem, forward=tiles[0], backward=tiles[1]), autograd(problem), 1e-13)


def test_float32_operands() -> None:
    problem = Problem.random(33, 128, [40], pre=True, dtype=torch.float32)
    compare(run_step(KERNELS, problem, forward=Tile(32, 32), backward=Tile(32, 32)), autograd(problem), 2e-6)


@pytest.mark.parametrize(
    ("operands", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)], ids=["float16", "bfloat16"]
)
def test_16_bit_operands(operands: torch.dtype, tolerance: float) -> None:
    """Errors fit the type, and are not smaller: that would mean that nothing was rounded."""
    problem = Problem.random(33, 64, [40], dtype=torch.float32)
    rounded = {name: getattr(problem, name).to(operands).float() for name in ("x", "w_enc", "w_dec")}
    problem = Problem(rounded["x"], rounded["w_enc"], problem.b_enc, rounded["w_dec"], None, problem.l1, problem.bounds)
    found, expected = run_step(KERNELS, problem, operands=operands), autograd(problem)
    expected.pop("fired")
    compare(found, expected, tolerance)
    error = (found["d_enc"].double() - expected["d_enc"]).norm() / expected["d_enc"].norm()
    assert error > tolerance / 50


@pytest.mark.parametrize("project", [False, True], ids=["plain", "project"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_adam(tied: bool, project: bool) -> None:
    check_adam(KERNELS, tied=tied, project=project)


# The shim itself: a watch that sees nothing would pass everything.


@triton.jit
def _racy_kernel(out_ptr):  # type: ignore[no-untyped-def]
    tl.store(out_ptr, tl.load(out_ptr) + 1)


@triton.jit
def _neighbour_kernel(out_ptr):  # type: ignore[no-untyped-def]
    pid = tl.program_id(0)
    tl.store(out_ptr + pid, tl.load(out_ptr + (pid + 1) % 4))


@triton.jit  # type: ignore[untyped-decorator]
def _stray_kernel(out_ptr, step, STORE: tl.constexpr):  # type: ignore[no-untyped-def]
    value = tl.load(out_ptr) if STORE else tl.load(out_ptr + step)
    tl.store(out_ptr + (step if STORE else 0), value)


@triton.jit
def _product_kernel(a_ptr, b_ptr, out_ptr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at), input_precision="ieee"))


@triton.jit
def _overflow_kernel(out_ptr, count):  # type: ignore[no-untyped-def]
    tl.store(out_ptr, (tl.program_id(0) + 1) * count * count)


def test_shim_sees_two_writers() -> None:
    with pytest.raises(AccessError, match="more than one program"):
        _racy_kernel[(2,)](torch.zeros(1))


def test_shim_sees_a_read_of_what_another_program_writes() -> None:
    with pytest.raises(AccessError, match="another one"):
        _neighbour_kernel[(4,)](torch.zeros(4))


@pytest.mark.parametrize("store", [False, True], ids=["load", "store"])
@pytest.mark.parametrize("step", [-1, 5])
def test_shim_sees_a_stray_access(step: int, store: bool) -> None:
    with pytest.raises(Exception, match="outside every buffer"):
        _stray_kernel[(1,)](guarded(5, dtype=torch.float32), step, STORE=store)


def test_shim_sees_32_bit_overflow() -> None:
    with pytest.raises(Exception, match="overflow"):
        _overflow_kernel[(1,)](torch.zeros(1, dtype=torch.int32), 1 << 16)


def test_shim_multiplies_bfloat16() -> None:
    a, b = (torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in (0, 1))
    out = torch.empty(16, 16)
    _product_kernel[(1,)](a, b, out)
    torch.testing.assert_close(out, a.float() @ b.float())


def test_shim_rounds_bfloat16_as_torch() -> None:
    values = torch.tensor([1.0, 1.00390625, 1.01171875, -3.1415926, float("nan"), float("inf"), 1e-40, 3.4e38])
    expected = values.bfloat16().float().numpy()
    np.testing.assert_array_equal(to_float32(to_bfloat16(values.numpy())), expected)
