"""What `sparsecode doctor --gpu` runs: the kernels' correctness on this very device, then its speed beside the model.

The same comparisons as the tests under the interpreter, at sizes that fill a device, plus what only a device can show:
equal bits from run to run.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.gpu.cost import EXPECTED, device_named, predict
from sparsecode.sweep.engines.gpu.engine import GpuEngine, architecture
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import parse_kinds

# Largest relative error of a gradient's norm against float64, per precision of the operands. Weights and batch are
# rounded first, for both: what is left is the rounding of codes, residuals and their gradients within the step.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
RAGGED = [1, 7, 65, 100, 256]
BENCHMARKS = (
    ("64..4096, D=128", 128, [64, 128, 256, 512, 1024, 2048, 4096]),
    ("16 x 4096, D=64", 64, [4096] * 16),
    ("16 x 4096, D=128", 128, [4096] * 16),
    ("16 x 4096, D=256", 256, [4096] * 16),
    ("16 x 4096, D=512", 512, [4096] * 16),
)
LIST_BENCHMARKS = (
    ("16 x 4096, D=128, L0 20", 128, [4096] * 16),
    ("2 x 32768, D=128, L0 160", 128, [32768] * 2),
)
BATCH = 8192
OTHER_KINDS = (
    "topk k=4",
    "batchtopk k=4",
    "matryoshka k=4",
    "jumprelu l0=4 window=0.5",
    "gated l1=0.02",
    "panneal l1=0.02",
)


@dataclass(frozen=True)
class Check:
    """One comparison: its name, whether it passed, and the figure."""

    name: str
    passed: bool
    detail: str


def gpu_check(device: str = "cuda", *, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Checks and times the GPU engine on a device, which takes about a minute.

    Args:
        device: cuda, or cpu under Triton's interpreter, where nothing is timed.
        say: called with each line as it comes.

    Returns:
        {"device", "architecture", "checks": [{"name", "passed", "detail"}], "timings": [{"name", "predicted_ms",
        "measured_ms", "predicted_eager_ms", "eager_ms"}], "passed"}, all JSON values.

    Raises:
        InvalidSetting: there is no GPU that the engine can use here.
    """
    where = torch.device(device)
    GpuEngine(where)  # names what is missing
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "Triton's interpreter"
    say(f"{name}: compiling and checking the kernels")
    checks = []
    for check in run_checks(where):
        checks.append(check)
        say(f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}")
    timings = list(_timings(where, say)) if where.type == "cuda" else []
    return {
        "device": name,
        "architecture": architecture(where),
        "checks": [vars(check) for check in checks],
        "timings": timings,
        "passed": all(check.passed for check in checks),
    }


def run_checks(
    device: torch.device,
    *,
    widths: tuple[int, ...] = (32, 48, 128, 256, 300),
    sizes: list[int] | None = None,
    rows: int = 333,
) -> Iterator[Check]:
    """Every comparison, one after the other; small shapes for the interpreter, the defaults for a device."""
    sizes = sizes or RAGGED
    for D in widths:
        for precision in TOLERANCES:
            yield _gradients(device, D, sizes, rows, precision, LossSettings())
    D = widths[0]
    yield _gradients(device, D, sizes, rows, "float32", LossSettings(mse="sum", l1_scale="per-size", pre_bias=True))
    yield _gradients(device, D, sizes, rows, "float32", LossSettings(tied=True, pre_bias=True))
    for precision in TOLERANCES:
        yield _lists(device, D, sizes, rows, precision)
    yield _kinds(device, D, sizes, rows)
    yield _steps(device, D, sizes, rows)
    yield _same_bits(device, D, sizes, rows)
    yield _divergence(device, D, sizes, rows)
    yield _prefetched(device, D)


def _sweep(D: int, sizes: list[int], loss: LossSettings, device: torch.device, dtype: torch.dtype) -> Sweep:
    K = len(sizes)
    sweep = Sweep(D, sizes, [0.02 * (k + 1) for k in range(K)], range(K), lr=1e-2, loss=loss, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    sweep.b_enc += 0.1 * torch.randn(sweep.total, generator=generator)
    if not loss.tied:
        sweep.W_enc += 0.1 * torch.randn(sweep.W_enc.shape, generator=generator)
    if sweep.b_dec is not None:
        sweep.b_dec += 0.1 * torch.randn(sweep.b_dec.shape, generator=generator)
    moved = Sweep(D, sizes, sweep.l1, sweep.seeds, lr=1e-2, loss=loss, dtype=dtype, device=device)
    moved.load_state_dict(sweep.state_dict())
    return moved


def _rounded(device: torch.device, D: int, sizes: list[int], loss: LossSettings, precision: str) -> tuple[Sweep, Sweep]:
    """Equal sweeps in float32 and float64, whose weights are values of `precision`."""
    mine, exact = (_sweep(D, sizes, loss, device, dtype) for dtype in (torch.float32, torch.float64))
    for sweep in (mine, exact):
        for weights in (sweep.W_dec, sweep.W_enc):
            weights.copy_(weights.to(getattr(torch, precision)))
    return mine, exact


def _batch(rows: int, D: int, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed)).to(device)


def _clear_batch(sweep: Sweep, rows: int, operands: torch.dtype) -> Tensor:
    """A rounded batch on which no pre-activation is within float32's rounding of 0: a changed sign is not an error.

    Falls back to the last one tried, for sweeps so large that there is none.
    """
    x = torch.empty(0)
    for seed in range(20):
        x = _batch(rows, sweep.activation_dim, sweep.device, seed).to(operands).float()
        centred = [x.double() - pre for pre in sweep.b_dec] if sweep.b_dec is not None else [x.double()] * len(sweep)
        nearest = min(
            float((centred[k] @ sweep.W_enc[sweep.rows(k)].T + sweep.b_enc[sweep.rows(k)]).abs().min())
            for k in range(len(sweep))
        )
        if nearest > 2e-6:
            break
    return x


def _engine(device: torch.device, precision: str, *, sparse: bool = False) -> GpuEngine:
    # Fused to D = 256; wider sweeps take the products.
    return GpuEngine(device, precision=precision, fused=True, sparse=sparse)


def few_active(sweep: Sweep, x: Tensor, share: float, *, but: int | None = None) -> None:
    """Moves every dictionary's biases, but one's, so that a share of its codes is active on a batch."""
    for k in range(len(sweep)):
        own = sweep.rows(k)
        y = (x[:256] @ sweep.W_enc[own].T).flatten().sort().values
        if k != but:
            most = max(1, int(share * len(y)))
            sweep.b_enc[own] = -(y[-most - 1] + y[-most]) / 2 if len(y) > most else -y[0] / 2


def _lists(device: torch.device, D: int, sizes: list[int], rows: int, precision: str) -> Check:
    """Dictionaries with few active codes through lists, one with many beside them, each held to the reference."""
    from sparsecode.sweep.engines.gpu.lists import SparseStep

    mine, exact = _rounded(device, D, sizes, LossSettings(pre_bias=True), precision)
    operands, dense = getattr(torch, precision), min(1, len(sizes) - 1)
    for sweep in (mine, exact):
        sweep.b_dec.zero_()  # type: ignore[union-attr]
    x = _batch(min(rows, 256), D, device).to(operands).float()
    few_active(mine, x, 0.004, but=dense)
    exact.b_enc.copy_(mine.b_enc)
    engine = _engine(device, precision, sparse=True)
    found = engine.gradients(mine, x)[1]
    expected = ReferenceEngine(device).gradients(exact, x.double())[1]
    errors = {}
    for name, value in expected.items():
        for k in range(len(sizes)):
            rows_of = slice(k, k + 1) if name == "b_dec" else exact.rows(k)
            gap = float((found[name][rows_of].double() - value[rows_of]).norm())
            errors[f"{name} of {sizes[k]}"] = gap / max(float(value[rows_of].norm()), 1e-30)
    taken = engine._last.taken if isinstance(engine._last, SparseStep) else ()
    check = _within(f"lists of active codes D={D} {precision}", errors, precision)
    passed = check.passed and bool(taken) and dense not in taken
    return Check(check.name, passed, f"{check.detail}; {len(taken)} of {len(sizes)} listed")


def _kinds(device: torch.device, D: int, sizes: list[int], rows: int) -> Check:
    """A dictionary of every other kind, held to the reference in float32: 16 bits select other codes."""
    specs = [kind for text in OTHER_KINDS for kind in parse_kinds(text)]
    mine, exact = (
        Sweep(D, [max(sizes)] * len(specs), specs, range(len(specs)), dtype=dtype, device=device)
        for dtype in (torch.float32, torch.float64)
    )
    for name, value in exact.parameters().items():
        value.copy_(mine.parameters()[name])
    x = _batch(rows, D, device)
    found = _engine(device, "float32", sparse=True).gradients(mine, x)[1]
    expected = ReferenceEngine(device).gradients(exact, x.double())[1]
    errors = {name: float((found[name].double() - value).norm() / value.norm()) for name, value in expected.items()}
    return _within(f"other kinds D={D} float32", errors, "float32")


def _gradients(device: torch.device, D: int, sizes: list[int], rows: int, precision: str, loss: LossSettings) -> Check:
    mine, exact = _rounded(device, D, sizes, loss, precision)
    x = _clear_batch(exact, rows, getattr(torch, precision))
    found = _engine(device, precision).gradients(mine, x)[1]
    expected = ReferenceEngine(device).gradients(exact, x.double())[1]
    errors = {name: float((found[name].double() - value).norm() / value.norm()) for name, value in expected.items()}
    switches = ", ".join(name for name in ("tied", "pre_bias") if getattr(loss, name))
    return _within(f"gradients D={D} {precision}" + (f" ({switches})" if switches else ""), errors, precision)


def _within(name: str, errors: dict[str, float], precision: str) -> Check:
    """Whether all errors are within the tolerance of the precision, with the largest."""
    worst = max(errors, key=lambda name: errors[name])
    passed = all(error < TOLERANCES[precision] for error in errors.values())  # false for NaN too
    return Check(name, passed, f"{worst} off by {errors[worst]:.1e}, {TOLERANCES[precision]:.0e} allowed")


def _steps(device: torch.device, D: int, sizes: list[int], rows: int) -> Check:
    mine, exact = (_sweep(D, sizes, LossSettings(), device, dtype) for dtype in (torch.float32, torch.float64))
    engine, reference = _engine(device, "float32"), ReferenceEngine(device)
    for seed in range(3):
        x = _batch(max(8, rows // 10), D, device, seed)  # few rows: no pre-activation within rounding of 0
        engine.step(mine, x, 1.0)
        reference.step(exact, x.double(), 1.0)
    worst = max(float((mine.parameters()[name] - value).abs().max()) for name, value in exact.parameters().items())
    fired = torch.equal(mine.fired, exact.fired)
    return Check(
        "three steps of Adam", worst < 1e-3 and fired, f"parameters off by {worst:.1e}, firings equal: {fired}"
    )


def _trained(device: torch.device, D: int, sizes: list[int], rows: int, *, poison: bool = False) -> Sweep:
    sweep = _sweep(D, sizes, LossSettings(pre_bias=True), device, torch.float32)
    if poison:
        sweep.W_dec[sweep.offsets[1]] = float("nan")
    engine = _engine(device, "float16")
    for seed in range(3):
        engine.step(sweep, _batch(rows, D, device, seed), 1.0)
    return sweep


def _same_bits(device: torch.device, D: int, sizes: list[int], rows: int) -> Check:
    first, second = (_trained(device, D, sizes, rows).state_dict() for _ in range(2))
    unequal = [name for name, value in first.items() if not torch.equal(value, second[name])]
    return Check("same bits every run", not unequal, f"{', '.join(unequal)} differ" if unequal else "all tensors equal")


def _divergence(device: torch.device, D: int, sizes: list[int], rows: int) -> Check:
    clean, poisoned = _trained(device, D, sizes, rows), _trained(device, D, sizes, rows, poison=True)
    others = [k for k in range(len(sizes)) if k != 1]
    kept = all(torch.equal(clean.W_dec[clean.rows(k)], poisoned.W_dec[clean.rows(k)]) for k in others)
    shows = bool(poisoned.W_enc[poisoned.rows(1)].isnan().any())
    return Check(
        "a diverging dictionary", kept and shows, f"its NaN shows: {shows}, the others keep their bits: {kept}"
    )


def _prefetched(device: torch.device, D: int) -> Check:
    batches = [_batch(64, D, torch.device("cpu"), seed) for seed in range(6)]
    arrived = list(_engine(device, "float16").feed(iter(batches)))
    whole = [torch.equal(mine.cpu(), sent) for mine, sent in zip(arrived, batches, strict=False)]
    passed = len(arrived) == len(batches) and all(whole)
    return Check("batches from pinned memory", passed, f"{sum(whole)} of {len(batches)} arrived whole")


def _timings(device: torch.device, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    sheet = device_named(torch.cuda.get_device_name(device), architecture(device))
    if sheet is None:
        say("  the model has no data sheet of this device: measured times only")
    for name, D, sizes in BENCHMARKS + LIST_BENCHMARKS:
        lists = (name, D, sizes) in LIST_BENCHMARKS
        sweep = Sweep(D, sizes, [0.02] * len(sizes), range(len(sizes)), lr=0.0, device=device)
        x = _batch(BATCH, D, device)
        if lists:
            few_active(sweep, x, EXPECTED)
        engine = GpuEngine(device, sparse=lists)
        measured = median_ms(partial(engine.step, sweep, x, 1.0), device)
        eager = median_ms(eager_step(sweep, x), device)
        model = predict(sheet, D, sizes, BATCH, l0=EXPECTED * sum(sizes) / len(sizes)) if sheet else None
        predicted = (model.sparse if lists else model.dense) if model else None
        row = {
            "name": name,
            "predicted_ms": predicted,
            "measured_ms": measured,
            "predicted_eager_ms": model.eager if model else None,
            "eager_ms": eager,
        }
        told = [f"{value:.2f}" if value is not None else "-" for value in (predicted, measured)]
        say(f"  {name}: model {told[0]} ms, measured {told[1]} ms; torch autograd {eager:.2f} ms")
        yield row


def median_ms(run: Callable[[], object], device: torch.device) -> float:
    """Median milliseconds of `run` on the device, after three unmeasured calls that compile and warm it."""
    for _ in range(3):
        run()
    times = []
    for _ in range(20):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record(torch.cuda.current_stream(device))
        run()
        stop.record(torch.cuda.current_stream(device))
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return float(statistics.median(times))


def eager_step(sweep: Sweep, x: Tensor) -> Callable[[], object]:
    """The baseline: torch autograd with bfloat16 autocast, dictionary after dictionary, and torch's fused Adam."""
    leaves = [value.detach().clone().requires_grad_() for value in (sweep.W_enc, sweep.b_enc, sweep.W_dec)]
    optimiser = torch.optim.Adam(leaves, lr=1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        for k in range(len(sweep)):
            W_enc, b_enc, W_dec = (leaf[sweep.rows(k)] for leaf in leaves)
            with torch.autocast(x.device.type, torch.bfloat16):
                z = torch.relu(torch.nn.functional.linear(x, W_enc, b_enc))
                r = z @ W_dec - x
            loss = r.float().square().mean() + sweep.l1[k] * z.float().sum(1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            leaves[2] /= leaves[2].norm(dim=1, keepdim=True)

    return step
