"""Engines train a sweep. All obey one protocol and one test: the reference engine is the truth for the others."""

from __future__ import annotations

import importlib
import os
from typing import Any, cast

import torch

from sparsecode.errors import InvalidSetting
from sparsecode.machine import torch_device
from sparsecode.sweep.engines.protocol import CPU_PATHS, ENGINES, Engine, StepStats

__all__ = ["CPU_PATHS", "ENGINES", "Engine", "StepStats", "choose_engine"]

_CLASSES = {"reference": "ReferenceEngine", "cpu": "CpuEngine", "gpu": "GpuEngine"}


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
        raise InvalidSetting(f"engine '{name}' is not part of this installation", remedy="engine_auto") from error
    return cast("Engine", found(where, threads))


def _fastest(where: torch.device) -> str:
    if where.type == "cuda":
        from sparsecode.sweep.engines import gpu

        return "gpu" if gpu.supports(where) else "reference"
    return "cpu" if where.type == "cpu" else "reference"
