"""Compiles every kernel for every architecture without a GPU and holds the machine code to gates.

`python tests/support/kernel_gates.py` compiles what is not in the cache, in a process per core, and prints a line per
case; it exits with 1 where a gate fails, or where a kernel that is known to be bad passes. Not under the interpreter:
Triton can do one or the other in a process.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kernel_machine_code import SHARED_LIMIT, TENSOR, Code, read_code, static_bound

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "target" / "kernel-gates.json"
WIDTHS = (32, 64, 128, 256)
SMALL_SHARED = 101_376  # 8.6, 8.9 and 12.x run sm_80's tiles up to D = 128
LEAST_REGISTERS = 40  # exactly 32 with thousands of spills is what a compiler gives when it gives up
TENSOR_MEMORY = 512  # columns per multiprocessor, sm_100


@dataclass(frozen=True)
class Case:
    """One kernel for one architecture.

    Attributes:
        label: what it is in tables: forward, backward, ...
        consts: its constexpr arguments.
        flops: tensor-core operations of one turn of the hot loop; 0 where the kernel has no such loop.
        bad: it must fail the gates.
    """

    label: str
    module: str
    kernel: str
    arch: str
    D: int
    operands: str
    consts: tuple[tuple[str, Any], ...]
    warps: int
    stages: int
    flops: int = 0
    bad: bool = False

    @property
    def gated(self) -> bool:
        """Whether the kernel must keep tensor cores busy."""
        return self.flops > 0 and self.operands != "fp32"

    def digest(self) -> str:
        import triton

        here = Path(__file__).parent
        sources = [ROOT / "kernels" / f"{self.module}.py", here / "kernel_machine_code.py", Path(__file__)]
        text = "\n".join(source.read_text() for source in sources) + repr(self) + triton.__version__
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Report:
    """The result of a case."""

    failures: list[str] = field(default_factory=list)
    registers: int = 0
    shared: int = 0
    loop: int = 0
    tensor: int = 0
    spills: int = 0
    asynchronous: int = 0
    bound: float = 0.0
    seconds: float = 0.0


def cases() -> Iterator[Case]:
    """All kernels that are shipped, and two that must fail."""
    from sparsecode.kernels.configs import ARCHITECTURES, Tile, adam_tile, fused_tiles

    for arch in ARCHITECTURES:
        for D in WIDTHS:
            tiles = fused_tiles(arch, D, "float16")
            assert tiles is not None
            yield _forward(arch, D, "fp16", tiles.forward)
            for parts in tiles.parts:
                yield _backward(arch, D, "fp16", tiles.backward, parts)
            yield _backward(arch, D, "fp16", tiles.counting, 0)
            yield _adam(arch, D, adam_tile(D))
            folded = (("BF", adam_tile(D)), ("BD", D))
            yield Case("fold", "prebias", "fold_kernel", arch, D, "fp16", folded, 4, 2)
        tiles = fused_tiles(arch, 128, "float16")
        exact = fused_tiles(arch, 128, "float32")
        assert tiles is not None
        assert exact is not None
        yield _forward(arch, 128, "bf16", tiles.forward)
        yield _backward(arch, 128, "bf16", tiles.backward, 3)
        yield _forward(arch, 128, "fp32", exact.forward)
        yield _backward(arch, 128, "fp32", exact.backward, 3)
        yield _adam(arch, 1024, adam_tile(1024))
        yield _ragged(_forward(arch, 128, "fp16", tiles.forward))
        yield _ragged(_backward(arch, 128, "fp16", tiles.backward, 3))
        reduced = (("BS", 2), ("BM", 1024), ("ACC", "fp32"), ("ACCUMULATE", False))
        yield Case("reduce", "reduce", "reduce_kernel", arch, 128, "fp32", reduced, 4, 2)
        yield Case("L0", "reduce", "segments_kernel", arch, 128, "fp32", (("BF", 1024),), 4, 2)
        yield from _sparse(arch)
        blocks = (("BF", 64), ("BC", 32))
        yield Case("pre-bias", "prebias", "prebias_gradient_kernel", arch, 128, "fp32", blocks, 4, 2)
    # Must fail: twice the tile in the same registers spills; too few features for Hopper's tensor instructions.
    yield _backward("sm_80", 64, "fp16", Tile(64, 128, 4, 2), 3, bad=True)
    yield _backward("sm_90", 128, "fp16", Tile(64, 32, 4, 2), 3, bad=True)


def _forward(arch: str, D: int, operands: str, tile: Any) -> Case:
    consts = (
        ("BB", tile.batch),
        ("BF", tile.features),
        ("BD", D),
        ("ACC", "fp32"),
        ("HAS_PRE", True),
        ("EVEN_D", True),
        ("STORE_RESIDUAL", True),
    )
    flops = 2 * 2 * tile.batch * tile.features * D
    return Case("forward", "forward", "forward_kernel", arch, D, operands, consts, tile.warps, tile.stages, flops)


def _backward(arch: str, D: int, operands: str, tile: Any, parts: int, *, bad: bool = False) -> Case:
    label = {0: "firings", 1: "backward, decoder", 2: "backward, encoder", 3: "backward"}[parts]
    products = {0: 1, 1: 2, 2: 3, 3: 4}[parts]
    consts = (
        ("BB", tile.batch),
        ("BF", tile.features),
        ("BD", D),
        ("ACC", "fp32"),
        ("HAS_PRE", True),
        ("EVEN_D", True),
        ("EVEN_B", True),
        ("PARTS", parts),
    )
    flops = products * 2 * tile.batch * tile.features * D
    return Case(label, "backward", "backward_kernel", arch, D, operands, consts, tile.warps, tile.stages, flops, bad)


def _ragged(case: Case) -> Case:
    """A gate at D = 96, which is padded to 128 by masks."""
    consts = tuple((name, False if name == "EVEN_D" else value) for name, value in case.consts)
    return replace(case, label=f"{case.label}, masked", D=96, consts=consts)


def _adam(arch: str, D: int, height: int) -> Case:
    consts = (
        ("B1M", 0.1),
        ("B2", 0.999),
        ("B2M", 0.001),
        ("EPS", 1e-8),
        ("BF", height),
        ("BD", D),
        ("TIED", False),
        ("PROJECT", True),
        ("COPY", True),
    )
    return Case("adam", "adam", "adam_kernel", arch, D, "fp16", consts, 4, 2)


def _sparse(arch: str) -> Iterator[Case]:
    from sparsecode.kernels.configs import masks_tile
    from sparsecode.kernels.lists import FEATURE_LINES, ROW_LINES
    from sparsecode.kernels.sparse import ROWS, entries

    for D in WIDTHS:
        yield _masks(arch, D, "fp16", masks_tile(arch, D, "float16"))
        phase = (("C", entries(D)), ("BD", D), ("ACC", "fp32"), ("HAS_PRE", True))
        yield Case("rows", "sparse", "rows_kernel", arch, D, "fp16", (("BR", ROWS), *phase), 1, 2)
        yield Case("features", "sparse", "features_kernel", arch, D, "fp16", phase, 1, 2)
    yield _masks(arch, 128, "bf16", masks_tile(arch, 128, "bfloat16"))
    yield _masks(arch, 128, "fp32", masks_tile(arch, 128, "float32"))
    yield _ragged(_masks(arch, 128, "fp16", masks_tile(arch, 128, "float16")))
    for kernel in ("count", "fill"):
        for by_row, (L, BW) in ((True, ROW_LINES), (False, FEATURE_LINES)):
            consts = (("BY_ROW", by_row), ("L", L), ("BW", BW))
            label = f"{kernel} by {'row' if by_row else 'feature'}"
            yield Case(label, "lists", f"{kernel}_kernel", arch, 128, "fp16", consts, 4, 2)


def _masks(arch: str, D: int, operands: str, tile: Any) -> Case:
    consts = (("BB", tile.batch), ("BF", tile.features), ("BD", D), ("ACC", "fp32"), ("EVEN_D", True))
    flops = 2 * tile.batch * tile.features * D
    return Case("masks", "lists", "masks_kernel", arch, D, operands, consts, tile.warps, tile.stages, flops)


_INTEGERS = (
    *("offsets_ptr", "order_ptr", "tile_dictionary_ptr", "tile_first_ptr", "fired_ptr"),
    *("words_ptr", "by_row_ptr", "by_feature_ptr", "dictionary_ptr", "first_ptr", "mask_ptr", "counts_ptr", "list_ptr"),
)
_LONG = ("ends_ptr", "base_ptr")
_OPERANDS = {
    "forward": ("x_ptr", "w_enc_ptr", "w_dec_ptr", "residual_ptr"),
    "backward": ("x_ptr", "w_enc_ptr", "w_dec_ptr", "residual_ptr"),
    "adam": ("enc_operand_ptr", "dec_operand_ptr"),
    "prebias": ("w_enc_ptr",),
    "lists": ("x_ptr", "w_enc_ptr"),
    "sparse": ("x_ptr", "w_enc_ptr", "w_dec_ptr", "residual_ptr"),
}
_ALIGNED = ("D", "M", "split_rows", "split_stride", "fired_stride")


def compile_case(case: Case) -> Report:
    """Compiles a case and applies the gates."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    started = time.perf_counter()
    fn = getattr(importlib.import_module(f"sparsecode.kernels.{case.module}"), case.kernel)
    consts = {name: tl.float32 if value == "fp32" else value for name, value in case.consts}
    signature = {name: _type_of(case, name, name in consts) for name in fn.arg_names}
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(fn.arg_names)
        if signature[name].startswith("*") or (name in _ALIGNED and case.D % 16 == 0)
    }
    source = ASTSource(
        fn=fn,
        signature=signature,
        constexprs={(fn.arg_names.index(name),): value for name, value in consts.items()},
        attrs=attributes,
    )
    amd = case.arch.startswith("gfx")
    target = GPUTarget("hip", case.arch, 64) if amd else GPUTarget("cuda", int(case.arch[3:]), 32)
    try:
        compiled = triton.compile(source, target=target, options={"num_warps": case.warps, "num_stages": case.stages})
        code = read_code(compiled, case.arch, listing=case.flops > 0)
    except Exception as error:  # the compiler's own failures have no common class
        return Report([f"does not compile: {(str(error).splitlines() or [repr(error)])[0]}"])
    report = Report(
        gate(case, code),
        code.registers,
        code.shared,
        len(code.loop),
        code.count(TENSOR[case.arch]),
        code.count(r"STL|LDL|scratch_"),
        code.count("LDGSTS|UTMALDG|UBLKCP"),
        round(static_bound(code, case.arch, case.warps, case.flops), 2)
        if case.flops and case.operands != "fp32"
        else 0,
    )
    report.seconds = round(time.perf_counter() - started, 1)
    return report


def gate(case: Case, code: Code) -> list[str]:
    """The faults of the code; empty if it may ship."""
    limit = SHARED_LIMIT[case.arch]
    if case.arch == "sm_80" and case.D <= 128:
        limit = SMALL_SHARED
    found = []
    if code.shared > limit:
        found.append(f"{code.shared} bytes of shared memory, {limit} at most")
    if code.tensor_memory > TENSOR_MEMORY:
        found.append(f"{code.tensor_memory} columns of tensor memory, {TENSOR_MEMORY} at most")
    if not case.gated:
        if spilled := code.total(r"STL|LDL|scratch_") if case.operands != "fp32" or not case.flops else 0:
            found.append(f"{spilled} spills")
        return found
    if code.registers < LEAST_REGISTERS:
        found.append(f"{code.registers} registers: the compiler gave up")
    if not code.count(TENSOR[case.arch]):
        found.append("no tensor-core instruction of this architecture in the hot loop")
    if spilled := code.count(r"STL|LDL|scratch_"):
        found.append(f"{spilled} spills in the hot loop")
    if not case.arch.startswith("gfx") and not code.count("LDGSTS|UTMALDG|UBLKCP"):
        found.append("no asynchronous copies in the hot loop")
    return found


def _type_of(case: Case, name: str, constant: bool) -> str:
    if constant:
        return "constexpr"
    if name in _LONG or (case.module == "sparse" and name == "fired_ptr"):
        return "*i64"
    if name in _INTEGERS or (case.label == "L0" and name == "parts_ptr"):
        return "*i32"
    if case.label == "L0" and name == "out_ptr":
        return "*fp64"
    if name.endswith("_ptr"):
        return f"*{case.operands if name in _OPERANDS.get(case.module, ()) else 'fp32'}"
    return {"split_stride": "i64", "root": "fp32"}.get(name, "i32")


def run(*, fresh: bool = False) -> list[tuple[Case, Report]]:
    """Every case with its report, from the cache if its sources have not changed."""
    known: dict[str, Any] = {}
    if CACHE.exists() and not fresh:
        known = json.loads(CACHE.read_text())
    todo = {case: case.digest() for case in cases()}
    missing = [case for case, digest in todo.items() if digest not in known]
    # The slow ones first, so that no process is left with them at the end.
    missing.sort(key=lambda case: (case.arch not in ("sm_100", "gfx942"), -case.D * bool(case.flops)))
    if missing:
        CACHE.parent.mkdir(exist_ok=True)
        try:
            with ProcessPoolExecutor(_workers()) as pool:
                for case, report in zip(missing, pool.map(compile_case, missing), strict=True):
                    known[todo[case]] = asdict(report)
        finally:  # what an interrupted run compiled is kept
            CACHE.write_text(json.dumps({digest: known[digest] for digest in todo.values() if digest in known}))
    return [(case, Report(**known[digest])) for case, digest in todo.items()]


def _workers() -> int:
    """A process per available core; each holds some 600 MB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 8))


def main() -> int:
    """Prints every case; the number of surprises is the exit status."""
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_CACHE_DIR", str(ROOT / "target" / "triton"))
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
    started = time.perf_counter()
    surprises = 0
    for case, report in run(fresh="--fresh" in sys.argv):
        wrong = bool(report.failures) != case.bad
        surprises += wrong
        verdict = "FAIL" if wrong else "ok"
        what = f"{case.label} {case.operands}" + (" (must fail)" if case.bad else "")
        print(f"{verdict:4} {case.arch:6} D={case.D:<4} {what:28} {report}")
    print(f"{surprises} surprises in {time.perf_counter() - started:.0f} s")
    return min(surprises, 1)


if __name__ == "__main__":
    sys.exit(main())
