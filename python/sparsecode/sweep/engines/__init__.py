"""Engines train a sweep. All obey one protocol and one test: the reference engine is the truth for the others.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidSetting
from sparsecode.machine import torch_device
from sparsecode.sweep.sweep import Sweep

ENGINES = ("reference", "cpu", "gpu")
# Ways for the cpu engine to compute, fastest first: all give the same bits. A machine can run some of them.
CPU_PATHS = _core.INSTRUCTION_SETS
_CLASSES = {"reference": "ReferenceEngine", "cpu": "CpuEngine", "gpu": "GpuEngine"}


@dataclass
class StepStats:
    """Sums over rows, per dictionary; stats of several batches are added.

    Attributes:
        rows: rows summed over.
        sse: [K] float64, squared error summed over rows and dimensions.
        l1: [K] float64, sum over rows of the sum of the codes.
        l0: [K] float64, active codes summed over rows.
    """

    rows: int
    sse: Tensor
    l1: Tensor
    l0: Tensor

    @classmethod
    def zeros(cls, dictionaries: int, device: torch.device | str = "cpu") -> StepStats:
        """The neutral element of the sum."""
        where = "cpu" if torch.device(device).type == "mps" else device  # MPS has no float64
        return cls(0, *(torch.zeros(dictionaries, dtype=torch.float64, device=where) for _ in range(3)))

    def __add__(self, other: StepStats) -> StepStats:
        return StepStats(self.rows + other.rows, self.sse + other.sse, self.l1 + other.l1, self.l0 + other.l0)


class Engine(Protocol):
    """What trains a sweep. Classes are made with `(device, threads)`; `threads` None means all cores.

    `step` and `evaluate` add to `sweep.fired` the rows on which each feature was active (z > 0).
    """

    name: str
    device: torch.device

    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """One optimiser step of every dictionary on a batch; the stats are those before the step.

        Order: gradients at the current parameters; with `project_gradient` the part along each atom removed; Adam
        with rate `lr[k] * lr_scale`; atoms renormalised to 1. `sweep.step` grows by one.

        Args:
            sweep: changed in place.
            x: [B, D], contiguous, normalised, of the parameters' type and device.
            lr_scale: the schedule's factor of the learning rates.
            l1_factor: that of the L1 coefficients.

        Raises:
            InvalidArgument: `x` does not fit the sweep.
        """

    def gradients(self, sweep: Sweep, x: Tensor) -> tuple[StepStats, dict[str, Tensor]]:
        """Stats and gradients by name, before projection, shaped as `sweep.parameters()`; changes nothing."""

    def evaluate(self, sweep: Sweep, x: Tensor) -> StepStats:
        """Stats of a batch without an update."""


def choose_engine(name: str = "auto", device: str = "auto", *, threads: int | None = None) -> Engine:
    """The engine by name; `auto` is the fastest that runs here, or what SPARSECODE_ENGINE says.

    Raises:
        InvalidSetting: no such engine, or it cannot run here.
    """
    where = torch_device(device, mps=False)  # on MPS there is the reference alone, which is made to be read
    if name == "auto":
        name = os.environ.get("SPARSECODE_ENGINE", "auto")
    if name == "auto":
        name = _fastest(where)
    if name in CPU_PATHS:
        from sparsecode.sweep.engines.cpu import CpuEngine

        return CpuEngine(where, threads, name)
    if name not in ENGINES:
        known = ", ".join((*ENGINES, *CPU_PATHS))
        raise InvalidSetting(f"engine '{name}' is unknown; known: auto, {known}")
    try:
        module: Any = importlib.import_module(f"sparsecode.sweep.engines.{name}")
        found = getattr(module, _CLASSES[name])
    except (ImportError, AttributeError) as error:
        raise InvalidSetting(f"engine '{name}' is not part of this installation; use --engine auto") from error
    return cast("Engine", found(where, threads))


def on_device(engine: Engine, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The batches where the engine works; an engine with memory of its own copies the next while it computes."""
    prefetch = getattr(engine, "prefetch", None)
    if prefetch is not None:
        yield from prefetch(batches)
    else:
        for batch in batches:
            yield batch.to(engine.device, non_blocking=True)


def _fastest(where: torch.device) -> str:
    if where.type == "cpu":
        return "cpu" if _has_cpu_engine() else "reference"
    if where.type == "cuda":
        from sparsecode.sweep.engines import gpu

        return "gpu" if gpu.supports(where) else "reference"
    return "reference"


def _has_cpu_engine() -> bool:
    from sparsecode import _core

    return hasattr(_core, "CpuEngine")
