"""The GPU engine on CUDA and ROCm: fused Triton kernels or hand-written matrix products, by width and device; on top of
either, where the model says that it pays, lists of active codes for the dictionaries that have few. Kinds other than
ReLU + L1 go through products, or lists where they select (`kinds`).

No GPU was at hand when this was written: the kernels' semantics are proven under Triton's interpreter, their machine
code by ahead-of-time compilation (docs/kernels.md). `sparsecode doctor --gpu` checks and times them where there is one.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.engines.gpu.cost import prefers_fused, prefers_sparse, sparse_density
from sparsecode.sweep.engines.protocol import Engine, StepStats
from sparsecode.sweep.kinds.spec import KindSpec
from sparsecode.sweep.sweep import Sweep

if TYPE_CHECKING:
    from sparsecode.sweep.engines.gpu.fused import GpuStep

# Triton 3.9 warns until this is set: fused multiply-adds, as all its versions before the warning.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

DEFAULT_PRECISION = "float16"  # 8 times the mantissa of bfloat16; activations are normalised, so the range suffices


def available() -> bool:
    """Whether this engine can run: a CUDA or ROCm device that torch sees, and Triton."""
    return torch.cuda.is_available() and _has_triton()


def supports(device: torch.device) -> bool:
    """Whether the kernels run on this CUDA or ROCm device: Ampere or later, or an AMD one."""
    return available() and (torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8)


def _has_triton() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # a module that was put aside, as tests do
        return False


def architecture(device: torch.device) -> str:
    """Which of the tuned architectures stands for a device.

    Raises:
        InvalidSetting: older than Ampere or CDNA3's relatives.
    """
    if device.type == "cpu":
        return "sm_80"  # under the interpreter, which has no architecture
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return "gfx942"
    major = properties.major
    if major < 8:
        raise InvalidSetting(f"{properties.name}: older than compute capability 8.0", remedy="engine_reference")
    # 8.6, 8.9 and 12.x multiply as 8.0 does; their smaller shared memory is what the gates hold sm_80's tiles to.
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


class GpuEngine(Engine):
    """Trains on a GPU; same interface and semantics as every engine, 16-bit products by default.

    Args:
        device: a CUDA (or ROCm) device. The CPU is accepted under Triton's interpreter only (TRITON_INTERPRET=1).
        threads: accepted for the protocol's sake; a GPU has its own.
        precision: of the products' operands: float16, bfloat16 or float32 (for verification, slow); None takes
            SPARSECODE_GPU_PRECISION or float16. Weights, moments and sums are float32 whatever it is.
        fused: whether to run the fused kernels where they can (D up to 256); None asks the model (cost.py).
        sparse: whether dictionaries with few active codes go through lists of them (D up to 256); None asks the model.

    Raises:
        InvalidSetting: no such device here, or an unknown precision.
    """

    name = "gpu"
    splits = True  # by products

    def __init__(
        self,
        device: torch.device | str = "cuda",
        threads: int | None = None,
        *,
        precision: str | None = None,
        fused: bool | None = None,
        sparse: bool | None = None,
    ) -> None:
        self.device = torch.device(device)
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        if not _has_triton():
            raise InvalidSetting("engine gpu needs Triton, which is not installed here", remedy="engine_reference")
        if not (self.device.type == "cuda" and available()) and not (self.device.type == "cpu" and interpreted):
            raise InvalidSetting(
                f"engine gpu needs a CUDA or ROCm device; '{self.device}' is none here", remedy="engine_cpu"
            )
        self.precision = precision or os.environ.get("SPARSECODE_GPU_PRECISION", DEFAULT_PRECISION)
        if self.precision not in ("float16", "bfloat16", "float32"):
            raise InvalidSetting(f"precision must be float16, bfloat16 or float32, not '{self.precision}'")
        self.fused = fused
        self.sparse = sparse
        self._last: GpuStep | None = None  # of one sweep at a time: its buffers are worth gigabytes

    @staticmethod
    def trains(kind: KindSpec) -> bool:
        """See `Engine.trains`: every kind."""
        del kind
        return True

    @torch.no_grad()
    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """See `Engine.step`."""
        with self._here():
            own, x = self._step_of(sweep, x), x.contiguous()
            own.scale_l1(l1_factor)
            stats = own.gradients(x)
            own.count_fired()
            sweep.step += 1
            own.follow(x.shape[0])
            with self.constrained(sweep):
                own.update(lr_scale)
            return stats

    @torch.no_grad()
    def gradients(self, sweep: Sweep, x: Tensor) -> tuple[StepStats, dict[str, Tensor]]:
        """See `Engine.gradients`."""
        with self._here():
            own = self._step_of(sweep, x)
            own.scale_l1(1.0)
            return own.gradients(x.contiguous()), own.named_gradients()

    @torch.no_grad()
    def evaluate(self, sweep: Sweep, x: Tensor) -> StepStats:
        """See `Engine.evaluate`."""
        with self._here():
            own = self._step_of(sweep, x)
            stats = own.evaluate(x.contiguous())
            own.count_fired()
            return stats

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Engine.feed`: the next batch is copied while the one given out is worked on.

        Two pinned buffers and a stream of their own: a batch given out is valid until the one after next is asked for.
        """
        if self.device.type != "cuda":
            yield from batches
            return
        yield from _prefetch(batches, self.device)

    def _step_of(self, sweep: Sweep, x: Tensor) -> GpuStep:
        sweep.check_batch(x)
        if self._last is None or self._last.sweep is not sweep:
            self._last = None  # its buffers go before the new ones come
            self._last = self._new_step(sweep, x.shape[0])
        return self._last

    def _here(self) -> AbstractContextManager[object]:
        """Triton launches on the current device, whatever device the tensors are on."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _new_step(self, sweep: Sweep, batch: int) -> GpuStep:
        from sparsecode.kernels.configs import fused_tiles, masks_tile
        from sparsecode.sweep.engines.gpu.fused import FusedStep
        from sparsecode.sweep.engines.gpu.gemm import GemmStep
        from sparsecode.sweep.engines.gpu.kinds import KindStep
        from sparsecode.sweep.engines.gpu.lists import SparseStep

        if sweep.W_dec.dtype != torch.float32:
            raise InvalidSetting(
                f"engine gpu trains float32 weights, not {sweep.W_dec.dtype}", remedy="engine_reference"
            )
        self.check_kinds(sweep.kinds, transcoders=sweep.inputs is not None)
        arch, D = architecture(self.device), sweep.activation_dim
        tiles = fused_tiles(arch, D, self.precision)
        wanted = self.fused if self.fused is not None else prefers_fused(arch, D, sweep.together, batch)
        step: GpuStep
        if sweep.split is not None or tiles is None or not wanted or not _fits(self.device, D):
            step = GemmStep(sweep, self.precision)
        else:
            step = FusedStep(sweep, self.precision, tiles, _processors(self.device))
        lists = self.sparse if self.sparse is not None else prefers_sparse(arch, D, sweep.together, batch)
        if lists and tiles is not None and sweep.split is None:
            density = sparse_density(arch, D, sweep.together, batch)
            step = SparseStep(step, self.precision, masks_tile(arch, D, self.precision), density)
        return step if all(kind.plain for kind in sweep.kinds) else KindStep(step, self.precision)


def _fits(device: torch.device, D: int) -> bool:
    """Whether the fused kernels' tiles fit shared memory: 8.6, 8.9 and 12.x have too little above D = 128."""
    if device.type == "cpu" or torch.version.hip is not None or D <= 128:
        return True
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin) >= 160 << 10


def _processors(device: torch.device) -> int:
    if device.type == "cpu":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


class _Transfer:
    """One of two pinned buffers, and the event after which the copy out of it is over."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        self.device, self.stream = device, stream
        self.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.host: Tensor | None = None

    def send(self, batch: Tensor) -> Tensor:
        """Starts the copy of a batch."""
        self.done.synchronize()  # the copy before out of this buffer; at once where there was none
        if self.host is None or self.host.shape != batch.shape or self.host.dtype != batch.dtype:
            self.host = torch.empty(batch.shape, dtype=batch.dtype, pin_memory=True)
        self.host.copy_(batch)
        with torch.cuda.stream(self.stream):
            sent = self.host.to(self.device, non_blocking=True)
            self.done.record(self.stream)
        return sent

    def hand_over(self, sent: Tensor) -> Tensor:
        """Makes the current stream wait for this copy, not for the one after it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(self.done)
        sent.record_stream(current)  # its memory is not given to another copy while kernels still read it
        return sent


def _prefetch(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting, idle = _Transfer(device, stream), _Transfer(device, stream)
    sent: Tensor | None = None
    for batch in batches:
        following = idle.send(batch)
        if sent is not None:
            yield waiting.hand_over(sent)
        sent, waiting, idle = following, idle, waiting
    if sent is not None:
        yield waiting.hand_over(sent)
