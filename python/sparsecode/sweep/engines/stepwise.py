"""What engines have in common that are given one batch after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sparsecode.sweep.engines.protocol import StepStats
from sparsecode.sweep.sweep import Sweep


class Stepwise:
    """An engine's `feed`, `train` and `reading_threads`, from its `step`."""

    device: torch.device

    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """See `Engine.step`."""
        raise NotImplementedError

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `Engine.feed`."""
        return (batch.to(self.device, non_blocking=True) for batch in batches)

    def train(
        self,
        sweep: Sweep,
        batches: Iterator[Tensor],
        schedule: Sequence[tuple[float, float]],
        sums: StepStats | None = None,
    ) -> StepStats:
        """See `Engine.train`."""
        found = sums or StepStats.zeros(len(sweep), self.device)
        for lr_scale, l1_factor in schedule:
            found += self.step(sweep, next(batches), lr_scale, l1_factor)
        return found

    def reading_threads(self, threads: int | None) -> int | None:
        """See `Engine.reading_threads`."""
        return threads
