"""Engines train a sweep. One test holds them all: the reference engine is the truth for the others."""

from __future__ import annotations

import os

import torch

from sparsecode.errors import InvalidSetting
from sparsecode.machine import torch_device
from sparsecode.sweep.engines.protocol import CPU_PATHS, ENGINES, Engine, StepStats

__all__ = ["CPU_PATHS", "ENGINES", "Engine", "StepStats", "choose_engine"]


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
    if name == "cpu" or name in CPU_PATHS:
        from sparsecode.sweep.engines.cpu import CpuEngine

        return CpuEngine(where, threads, "auto" if name == "cpu" else name)
    if name == "gpu":
        from sparsecode.sweep.engines.gpu import GpuEngine

        return GpuEngine(where, threads)
    if name == "reference":
        from sparsecode.sweep.engines.reference import ReferenceEngine

        return ReferenceEngine(where, threads)
    raise InvalidSetting(f"engine '{name}' is unknown; known: auto, {', '.join((*ENGINES, *CPU_PATHS))}")


def _fastest(where: torch.device) -> str:
    if where.type == "cuda":
        from sparsecode.sweep.engines import gpu

        return "gpu" if gpu.supports(where) else "reference"
    return "cpu" if where.type == "cpu" else "reference"
