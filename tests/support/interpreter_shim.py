"""Triton's interpreter, made honest: what the stock one computes wrongly is computed as the device does, and what it
cannot see (races, stray accesses, dependence on the order of programs) fails the test.

Corrected: products and casts of bfloat16 (the stock ones multiply bit patterns and truncate), TF32 operands (ignored).
Seen: any access outside the buffers handed to the launch, an address written by two programs of a launch, an address
read by one program and written by another, 32-bit overflow. Programs can run in reverse order.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor
from triton._C.libtriton import ir
from triton.runtime import interpreter

RED_ZONE = 512  # elements on each side of a guarded buffer
_BFLOAT16, _FLOAT32 = tl.bfloat16, tl.float32
_builder: Any = interpreter.InterpreterBuilder


class AccessError(Exception):
    """A program touched memory that is not its own."""


def to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bit patterns as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 rounded to the nearest bfloat16, ties to even, as bit patterns; NaN stays NaN."""
    return torch.from_numpy(np.array(values, dtype=np.float32)).bfloat16().view(torch.int16).numpy().view(np.uint16)


def to_tf32(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a tensor core reads of a float32: the upper 19 bits."""
    bits: NDArray[np.uint32] = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


@dataclass
class Launch:
    """Addresses one launch may touch and those its programs did touch."""

    ranges: list[tuple[int, int]]
    writes: list[tuple[int, NDArray[np.uint64]]] = field(default_factory=list)
    reads: list[tuple[int, NDArray[np.uint64]]] = field(default_factory=list)

    def check_bounds(self, addresses: NDArray[np.uint64], what: str) -> None:
        inside = np.zeros(addresses.shape, dtype=bool)
        for low, high in self.ranges:
            inside |= (addresses >= np.uint64(low)) & (addresses < np.uint64(high))
        if not inside.all():
            raise AccessError(f"{what} outside every buffer of the launch ({int((~inside).sum())} addresses)")

    def check_races(self) -> None:
        if not self.writes:
            return
        programs, addresses = _joined([(program, np.unique(where)) for program, where in _merged(self.writes)])
        order = np.argsort(addresses, kind="stable")
        addresses, programs = addresses[order], programs[order]
        twice = int((addresses[1:] == addresses[:-1]).sum())
        if twice:
            raise AccessError(f"{twice} addresses written by more than one program")
        for program, where in self.reads:
            at = np.minimum(np.searchsorted(addresses, where), len(addresses) - 1)
            if ((addresses[at] == where) & (programs[at] != program)).any():
                raise AccessError("a program read what another one of the same launch wrote")


def _merged(accesses: list[tuple[int, NDArray[np.uint64]]]) -> list[tuple[int, NDArray[np.uint64]]]:
    by_program: dict[int, list[NDArray[np.uint64]]] = {}
    for program, where in accesses:
        by_program.setdefault(program, []).append(where)
    return [(program, np.concatenate(parts)) for program, parts in by_program.items()]


def _joined(accesses: list[tuple[int, NDArray[np.uint64]]]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    programs = np.concatenate([np.full(where.size, program, dtype=np.int64) for program, where in accesses])
    return programs, np.concatenate([where for _, where in accesses])


class Shim:
    """Installed once per process by `install`; `reverse` runs the programs of every launch last to first."""

    def __init__(self) -> None:
        self.reverse = False
        self.guards: dict[int, tuple[int, int]] = {}  # storage -> the range inside its red zones
        self.launch: Launch | None = None
        self.launches = 0
        self.program = 0
        self.patched: set[int] = set()  # modules in whose functions `tl` already means the interpreter's

    def begin(self, tensors: list[Tensor]) -> None:
        ranges = []
        for tensor in tensors:
            storage = tensor.untyped_storage()
            low = storage.data_ptr()
            ranges.append(self.guards.get(low, (low, low + storage.nbytes())))
        self.launch = Launch(ranges)
        self.launches += 1
        self.patched.clear()

    def end(self) -> None:
        assert self.launch is not None
        self.launch.check_races()
        self.launch = None


shim = Shim()


def install() -> Shim:
    """Replaces the interpreter's faulty parts and starts the watch over memory."""
    if getattr(_builder, "watched", False):
        return shim
    _builder.watched = True
    stock_cast, stock_load, stock_store = _builder.cast_impl, _builder.create_masked_load, _builder.create_masked_store
    stock_index, stock_call = _builder.set_grid_idx, interpreter.GridExecutor.__call__

    def dot(self: Any, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        left, right = a.data, b.data
        if a.dtype.scalar == _BFLOAT16:
            left, right = to_float32(left), to_float32(right)
        elif a.dtype.scalar == _FLOAT32 and precision == ir.INPUT_PRECISION.TF32:
            left, right = to_tf32(left), to_tf32(right)
        return interpreter.TensorHandle(np.matmul(left, right, dtype=d.data.dtype) + d.data, d.dtype.scalar)

    def cast(self: Any, source: Any, target: Any) -> Any:
        kinds = (source.dtype.scalar, target.scalar)
        if kinds == (_FLOAT32, _BFLOAT16):
            return interpreter.TensorHandle(to_bfloat16(source.data), target.scalar)
        if kinds == (_BFLOAT16, _FLOAT32):
            return interpreter.TensorHandle(to_float32(source.data), target.scalar)
        return stock_cast(self, source, target)

    def touched(pointers: Any, mask: Any) -> NDArray[np.uint64]:
        shape = np.broadcast_shapes(pointers.data.shape, mask.data.shape)
        where: NDArray[np.uint64] = np.broadcast_to(pointers.data, shape)[np.broadcast_to(mask.data, shape)]
        return where

    def load(self: Any, pointers: Any, mask: Any, other: Any, policy: Any, volatile: Any) -> Any:
        where = touched(pointers, mask)
        if shim.launch is not None:
            shim.launch.check_bounds(where, "load")
            shim.launch.reads.append((shim.program, where))
        return stock_load(self, pointers, mask, other, policy, volatile)

    def store(self: Any, pointers: Any, value: Any, mask: Any, policy: Any) -> Any:
        where = touched(pointers, mask)
        if shim.launch is not None:
            shim.launch.check_bounds(where, "store")
            shim.launch.writes.append((shim.program, where))
        return stock_store(self, pointers, value, mask, policy)

    def set_index(self: Any, x: int, y: int, z: int) -> None:
        nx, ny, nz = self.grid_dim
        if shim.reverse:
            x, y, z = nx - 1 - x, ny - 1 - y, nz - 1 - z
        shim.program = (x * ny + y) * nz + z
        stock_index(self, x, y, z)

    def call(self: Any, *arguments: Any, **options: Any) -> None:
        shim.begin([one for one in (*arguments, *options.values()) if isinstance(one, Tensor)])
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is no more than NaN on a device
            stock_call(self, *arguments, **options)
        shim.end()

    def call_inner(self: Any, *arguments: Any, **options: Any) -> Any:
        """Calls without patching the language again, which takes the stock interpreter a quarter of all time."""
        if id(self.fn.__globals__) not in shim.patched:
            interpreter._patch_lang(self.fn)
            shim.patched.add(id(self.fn.__globals__))
        try:
            return self.rewrite()(*arguments, **options)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    _builder.create_dot, _builder.cast_impl = dot, cast
    interpreter.InterpretedFunction.__call__ = call_inner
    for name in ("create_si_to_fp", "create_ui_to_fp", "create_fp_to_si", "create_fp_to_ui", "create_fp_ext"):
        setattr(_builder, name, cast)
    _builder.create_fp_trunc = cast
    _builder.create_masked_load, _builder.create_masked_store = load, store
    _builder.set_grid_idx = set_index
    executor: Any = interpreter.GridExecutor
    executor.__call__ = call
    # Buffers are on the CPU already; the stock one copies each storage onto itself, red zones and all.
    executor._restore_args_dev = lambda *_: None
    # Overflow of 32-bit index arithmetic raises instead of wrapping around.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(debug=True)
    return shim


@contextmanager
def reversed_programs() -> Iterator[None]:
    """Runs the programs of every launch last to first."""
    shim.reverse = True
    try:
        yield
    finally:
        shim.reverse = False


def guarded(*shape: int, dtype: torch.dtype, device: object = "cpu") -> Tensor:
    """A buffer filled with NaN (or a canary) between red zones of the same, as an engine's allocator."""
    fill = float("nan") if dtype.is_floating_point else -77
    count = int(np.prod(shape))
    whole = torch.full((count + 2 * RED_ZONE,), fill, dtype=dtype)
    view = whole[RED_ZONE : RED_ZONE + count]
    shim.guards[whole.untyped_storage().data_ptr()] = (view.data_ptr(), view.data_ptr() + count * view.element_size())
    _keep.append(whole)
    return view.view(*shape)


def guard(values: Tensor) -> Tensor:
    """A copy of a tensor between red zones."""
    copy = guarded(*values.shape, dtype=values.dtype)
    return copy.copy_(values)


def far(values: Tensor, first: int) -> Tensor:
    """A tensor whose rows from `first` on are these values, not copied, and whose other rows have no memory."""
    row_bytes = values[0].numel() * values.element_size()
    claimed = (ctypes.c_char * ((first + len(values)) * row_bytes)).from_address(values.data_ptr() - first * row_bytes)
    return (
        torch.from_numpy(np.frombuffer(memoryview(claimed), dtype=np.uint8))
        .view(values.dtype)
        .view(-1, *values.shape[1:])
    )


_keep: list[Tensor] = []


def check_red_zones() -> None:
    """Fails where a red zone was written to; forgets the buffers."""
    for whole in _keep:
        for zone in (whole[:RED_ZONE], whole[-RED_ZONE:]):
            clean = zone.isnan().all() if whole.dtype.is_floating_point else (zone == -77).all()
            if not clean:
                raise AccessError("a red zone was written to")
    forget()


def forget() -> None:
    """Forgets every guarded buffer, checked or not."""
    shim.launch = None
    shim.guards.clear()
    _keep.clear()
