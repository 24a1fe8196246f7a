"""An engine that stops a training between two steps, and what must be the same after it was resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from sparsecode.pipeline.run import Run
from sparsecode.sweep.engines import StepStats
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.sweep import Sweep


def outcome(run: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions: dictionaries byte by byte, metrics, result."""
    files = {path.name: path.read_bytes() for path in sorted((run / "dictionaries").iterdir())}
    return {
        "files": files,
        "metrics": Run(run).metrics(),
        "result": Run(run).config()["stages"]["train-dicts"]["result"],
    }


class Stopped(Exception):
    """Represents a process that dies between two instructions."""


class StoppingEngine(ReferenceEngine):
    """Dies, or is sent SIGINT, during step number `stop`."""

    stop, interrupt = 0, False

    def step(self, sweep: Sweep, x: torch.Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        stats = super().step(sweep, x, lr_scale, l1_factor)
        if sweep.step == self.stop:
            if not self.interrupt:
                raise Stopped
            os.kill(os.getpid(), signal.SIGINT)
        return stats
