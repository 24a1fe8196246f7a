"""Engines train a sweep. One test holds them all: the reference engine is the truth for the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sparsecode.errors import InvalidSetting
from sparsecode.machine import torch_device
from sparsecode.sweep.engines.protocol import CPU_PATHS, ENGINES, Engine, StepStats
from sparsecode.sweep.kinds.spec import KindSpec

__all__ = ["CPU_PATHS", "ENGINES", "Engine", "StepStats", "choose_engine", "engine_class"]


def choose_engine(
    name: str = "auto",
    device: str = "auto",
    *,
    threads: int | None = None,
    kinds: Sequence[KindSpec] = (),
    transcoders: bool = False,
    cut: bool = False,
    note: Callable[[str], None] | None = None,
) -> Engine:
    """The engine by name; `auto` is the fastest that runs here, or what SPARSECODE_ENGINE says.

    Args:
        name: one of `ENGINES` or `CPU_PATHS`, or auto.
        device: where.
        threads: of the engine; None: all cores.
        kinds: of the dictionaries it is to train: where the fastest engine does not train one, `auto` is the reference.
        transcoders: whether they are: the same.
        cut: whether they are cut into segments, of which other processes may have some: the same.
        note: is told of that.

    Raises:
        InvalidSetting: no such engine, it cannot run here, or it does not train a kind.
    """
    where = torch_device(device, mps=False)  # on MPS there is the reference alone, which is made to be read
    if name == "auto":
        name = os.environ.get("SPARSECODE_ENGINE", "auto")
    automatic = name == "auto"
    if automatic:
        name = _fastest(where)
    chosen = engine_class(name)
    lacking = chosen.lacking(kinds, transcoders=transcoders, cut=cut)
    if lacking is not None and automatic:
        if note is not None:
            note(f"engine '{chosen.name}' does not train {lacking}: the reference engine does, more slowly")
        name, chosen = "reference", engine_class("reference")
    chosen.check_kinds(kinds, transcoders=transcoders, cut=cut)
    made: Engine = chosen(where, threads, name) if name in CPU_PATHS else chosen(where, threads)
    return made


def engine_class(name: str) -> type[Any]:
    """The class of an engine by name, which may be one that cannot run here.

    Raises:
        InvalidSetting: no such engine.
    """
    if name == "cpu" or name in CPU_PATHS:
        from sparsecode.sweep.engines.cpu import CpuEngine

        return CpuEngine
    if name == "gpu":
        from sparsecode.sweep.engines.gpu import GpuEngine

        return GpuEngine
    if name == "reference":
        from sparsecode.sweep.engines.reference import ReferenceEngine

        return ReferenceEngine
    raise InvalidSetting(f"engine '{name}' is unknown; known: auto, {', '.join((*ENGINES, *CPU_PATHS))}")


def _fastest(where: torch.device) -> str:
    if where.type == "cuda":
        from sparsecode.sweep.engines import gpu

        return "gpu" if gpu.supports(where) else "reference"
    return "cpu" if where.type == "cpu" else "reference"
