"""What an engine is: what a training relies on, and the sums that every step gives.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds.spec import KindSpec
from sparsecode.sweep.sweep import Sweep

ENGINES = ("reference", "cpu", "gpu")
# Ways for the cpu engine to compute, fastest first: all give the same bits. A machine can run some of them.
CPU_PATHS = _core.INSTRUCTION_SETS


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


class Engine(ABC):
    """What trains a sweep. Classes are made with `(device, threads)`; `threads` None means all cores.

    `step` and `evaluate` add to `sweep.fired` the rows on which each feature was active (z > 0).
    """

    name: str
    device: torch.device
    transcodes = False  # whether it trains transcoders
    splits = False  # whether it trains dictionaries of which other processes hold a part

    @staticmethod
    def trains(kind: KindSpec) -> bool:
        """Whether the engine trains dictionaries of a kind: here ReLU + L1 alone."""
        return kind.plain

    @classmethod
    def lacking(cls, kinds: Iterable[KindSpec], *, transcoders: bool = False, cut: bool = False) -> str | None:
        """What the engine does not train of these kinds, transcoders or dictionaries that are cut; None: all."""
        if cut and not cls.splits:
            return "parts of dictionaries"
        if transcoders and not cls.transcodes:
            return "transcoders"
        return next((f"'{kind}'" for kind in kinds if not cls.trains(kind)), None)

    @classmethod
    def check_kinds(cls, kinds: Iterable[KindSpec], *, transcoders: bool = False, cut: bool = False) -> None:
        """Checks that the engine trains every kind.

        Raises:
            InvalidSetting: it does not.
        """
        if (lacking := cls.lacking(kinds, transcoders=transcoders, cut=cut)) is not None:
            raise InvalidSetting(f"engine '{cls.name}' does not train {lacking}", remedy="engine_reference")

    @abstractmethod
    def step(self, sweep: Sweep, x: Tensor, lr_scale: float, l1_factor: float = 1.0) -> StepStats:
        """One optimiser step of every dictionary on a batch; the stats are those before the step.

        Order: gradients at the current parameters and the current state; the state follows; with `project_gradient`
        the part of the gradient along each atom removed; Adam with rate `lr[k] * lr_scale`; thresholds below 0 set to
        0; atoms renormalised to 1; what `constrained` says. `sweep.step` grows by one.

        Args:
            sweep: changed in place.
            x: [B, D], contiguous, normalised, of the parameters' type and device.
            lr_scale: the schedule's factor of the learning rates.
            l1_factor: that of every penalty on codes: L1 coefficients, and the strength of JumpReLU's. Kinds that
                select k codes have none.

        Raises:
            InvalidArgument: `x` does not fit the sweep.
            InvalidSetting: the engine does not train a kind of the sweep.
        """

    @staticmethod
    @contextmanager
    def constrained(sweep: Sweep) -> Iterator[None]:
        """Around the work of a step: frozen atoms are then as they were before, encoders aligned with their atoms."""
        kept = sweep.W_dec.clone() if sweep.loss.frozen else None
        yield
        if kept is not None:
            sweep.W_dec.data.copy_(kept)  # not seen as a change by what looks for one: it is undone
        if sweep.loss.aligned and not sweep.loss.tied:
            wide = torch.float32 if sweep.device.type == "mps" else torch.float64  # MPS has no float64
            product = (sweep.W_enc * sweep.W_dec).sum(1, keepdim=True, dtype=wide)
            sweep.W_enc += (1 - product).to(sweep.W_enc) * sweep.W_dec

    @abstractmethod
    def gradients(self, sweep: Sweep, x: Tensor) -> tuple[StepStats, dict[str, Tensor]]:
        """Stats and gradients by name, before projection, shaped as `sweep.parameters()`; changes nothing."""

    @abstractmethod
    def evaluate(self, sweep: Sweep, x: Tensor) -> StepStats:
        """Stats of a batch without an update, as dictionaries are used: BatchTopK by its threshold."""

    def feed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches where the engine works; one with memory of its own copies the next while it computes."""
        return (batch.to(self.device, non_blocking=True) for batch in batches)

    def train(
        self,
        sweep: Sweep,
        batches: Iterator[Tensor],
        schedule: Sequence[tuple[float, float]],
        sums: StepStats | None = None,
    ) -> StepStats:
        """One `step` for each of `schedule` on the next of the batches, which `feed` gave.

        Args:
            sweep: changed in place.
            batches: [B, D] each.
            schedule: (lr_scale, l1_factor) of each step.
            sums: stats of steps before, which those of each step are added to: however a training is cut into calls,
                the result has the same bits.

        Raises:
            StopIteration: there is no other batch. Steps done before count, whatever is raised.
            InvalidArgument: the batches do not fit the sweep.
        """
        found = sums or StepStats.zeros(len(sweep), self.device)
        for lr_scale, l1_factor in schedule:
            found += self.step(sweep, next(batches), lr_scale, l1_factor)
        return found

    def reading_threads(self, threads: int | None) -> int | None:
        """How many of the `threads` of a training (None: all) are to make batches ready beside the engine."""
        return threads
