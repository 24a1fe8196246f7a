"""Every engine under one name, and the sweeps, batches and comparisons that tests of engines share.

The GPU engine's ways run under Triton's interpreter, which needs a process of its own (TRITON_INTERPRET=1); the others
run in the process that has none.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import pytest
import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines import Engine, StepStats
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias, project_gradient=project)
    for mse, l1_scale, tied, pre_bias, project in product(
        ("mean", "sum"), ("plain", "per-size"), (False, True), (False, True), (False, True)
    )
]
# Every pair of values of every two switches that matter together, in four combinations: the interpreter is slow.
COVERING = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias, project_gradient=project)
    for (mse, l1_scale), tied, pre_bias, project in (
        (("mean", "plain"), False, False, True),
        (("sum", "per-size"), False, True, False),
        (("mean", "per-size"), True, True, True),
        (("sum", "plain"), True, False, False),
    )
]
CPU_WAYS = {f"cpu-{path}-{codes}": (path, codes) for path in _core.CpuEngine.paths() for codes in ("lists", "dense")}
# fused in one launch, encoder and decoder apart, the batch in parts; matrix products; lists of active codes for all
# dictionaries, and for those with few, beside the fused kernels or the products for the rest.
GPU_WAYS = ("fused", "apart", "split", "products", "lists", "lists-fused", "lists-products")
ENGINES = GPU_WAYS if INTERPRETED else ("reference", *CPU_WAYS)
# The interpreter takes milliseconds per program, whatever its tile.
SIZES = (1, 17, 5) if INTERPRETED else (1, 7, 65, 100)
ROWS, WIDTH = (18, 18) if INTERPRETED else (130, 20)
BIAS = -0.4 if INTERPRETED else 0.0


def engine_named(name: str, sweep: Sweep, precision: str = "float32") -> Engine:
    """An engine with a fixed way of computing; the GPU's is fixed for this sweep."""
    if name == "reference":
        return ReferenceEngine()
    if name in CPU_WAYS:
        path, codes = CPU_WAYS[name]
        return CpuEngine(threads=2, path=path, codes=codes)
    return _gpu_engine(name, sweep, precision)


def _gpu_engine(name: str, sweep: Sweep, precision: str) -> Engine:
    from sparsecode.kernels.configs import FusedTiles, Tile
    from sparsecode.sweep.engines.gpu import GpuEngine
    from sparsecode.sweep.engines.gpu.fused import FusedStep, GpuStep
    from sparsecode.sweep.engines.gpu.gemm import GemmStep
    from sparsecode.sweep.engines.gpu.lists import SparseStep

    small, apart = FusedTiles(Tile(16, 32), Tile(16, 16), (3,)), FusedTiles(Tile(32, 16), Tile(32, 32), (2, 1))
    step: GpuStep
    if name.endswith("products"):
        step = GemmStep(sweep, precision, chunk_bytes=17 * ROWS * 4 // 2)
    else:
        # A real split needs hundreds of rows; `red_zones` makes the number of processors the number of splits.
        step = FusedStep(sweep, precision, apart if name == "apart" else small, 2 if name == "split" else 1)
    if name.startswith("lists"):
        step = SparseStep(step, precision, Tile(32, 32), 1.0 if name == "lists" else 0.34)
    engine = GpuEngine("cpu", precision=precision)
    engine._last = step
    return engine


@contextmanager
def red_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Under the interpreter, every buffer that the engine allocates is filled with NaN, between red zones."""
    if not INTERPRETED:
        yield
        return
    from interpreter_shim import check_red_zones, guarded, install
    from sparsecode.kernels import lists
    from sparsecode.sweep.engines.gpu import fused

    install()
    monkeypatch.setattr(lists, "ROW_LINES", (32, 32))
    monkeypatch.setattr(fused, "allocate", guarded)
    monkeypatch.setattr(fused, "batch_splits", lambda _, batch_tiles, processors: min(processors, batch_tiles))
    yield
    check_red_zones()


def make(
    width: int = WIDTH,
    sizes: Sequence[int] = SIZES,
    loss: LossSettings | None = None,
    seed: int = 0,
    bias: float = BIAS,
) -> Sweep:
    """A float32 sweep with nothing at zero: biases around `bias`, and an encoder unlike the decoder."""
    K = len(sizes)
    l1 = [0.3 / (k + 1) for k in range(K)]
    sweep = Sweep(width, sizes, l1, list(range(K)), lr=[1e-2 * (k + 1) for k in range(K)], loss=loss)
    generator = torch.Generator().manual_seed(seed)
    sweep.b_enc += bias + 0.1 * torch.randn(sweep.total, generator=generator)
    if not sweep.loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.total, width, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    return sweep


def in_float64(sweep: Sweep) -> Sweep:
    """These numbers for the reference."""
    exact = Sweep(
        sweep.activation_dim, sweep.sizes, sweep.kinds, sweep.seeds, lr=sweep.lr, loss=sweep.loss, dtype=torch.float64
    )
    for name, mine in exact.state_dict().items():
        mine.copy_(sweep.state_dict()[name])
    exact.step = sweep.step
    return exact


def batch(rows: int = ROWS, width: int = WIDTH, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal rows [B, D]."""
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def state(sweep: Sweep) -> dict[str, Tensor]:
    """A copy of everything that training changes."""
    return {name: value.clone() for name, value in sweep.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether all tensors are equal, NaN to NaN."""
    return all(torch.equal(a[name].nan_to_num(7.25), b[name].nan_to_num(7.25)) for name in a)


def cancellation(sweep: Sweep, x: Tensor) -> float:
    """Sum of the magnitudes that the largest pre-activations are made of, by the largest of these: float32 cannot give
    codes, and gradients that are made of them, with a smaller relative error than its own times this."""
    terms = codes = 0.0
    for k in range(len(sweep)):
        W, b = sweep.W_enc[sweep.rows(k)].double(), sweep.b_enc[sweep.rows(k)].double()
        centred = x.double() if sweep.b_dec is None else x.double() - sweep.b_dec[k].double()
        terms = max(terms, (centred.abs() @ W.abs().T + b.abs()).max().item())
        codes = max(codes, (centred @ W.T + b).max().item())
    return terms / codes if codes > 0 else 0.0


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Compares relative to the largest value, because gradients are sums in which large terms cancel."""
    gap = (found.double() - expected).abs().max()
    assert gap <= tolerance * max(float(expected.abs().max()), 1e-20), what


def assert_same_sums(found: StepStats, expected: StepStats) -> None:
    """Compares loss sums to float32's accuracy."""
    assert found.rows == expected.rows
    for name in ("sse", "l1", "l0"):
        assert getattr(found, name).dtype == torch.float64
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, msg=name)
