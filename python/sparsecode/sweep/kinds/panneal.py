"""p-annealing: L1 whose exponent falls during training, so that small codes pay more and large ones less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.machine import wide
from sparsecode.sweep.kinds.kind import Weights
from sparsecode.sweep.kinds.relu import Relu

LEAST = 1e-6  # codes are not taken as smaller in z^(p - 1), which has no bound at 0


@dataclass(frozen=True)
class PAnneal(Relu):
    """Codes above 0, and `strength` times the mean over rows of the sum of z^p (Karvonen et al., arXiv 2408.00113).

    Attributes:
        strength: lambda, now.
        p: the exponent now, in (0, 1]; with 1 it is `Relu`.
    """

    p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise InvalidSetting(f"p is {self.p}, not a number above 0 and up to 1")

    def penalty(self, y: Tensor, z: Tensor, weights: Weights) -> Tensor:
        """See `Kind.penalty`."""
        del y, weights
        return self.strength / len(z) * z.pow(self.p).sum()

    def backward(
        self, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Kind.backward`."""
        del weights, second
        slope = self.p * z.clamp(min=LEAST).pow(self.p - 1)
        return torch.where(z != 0, q + self.strength / len(y) * slope, 0), {}


@dataclass(frozen=True)
class Annealed:
    """What p-annealing has come to: with the step it is all the state that a resumed training needs.

    Attributes:
        strength: lambda now.
        sums: of the last batches before a change the sums of z^p and of z^(next p), oldest first.
    """

    strength: float
    sums: tuple[tuple[float, float], ...] = ()

    def record(self) -> dict[str, Any]:
        """JSON values, which `Annealed.read` takes back unchanged."""
        return {"strength": self.strength, "sums": [list(pair) for pair in self.sums]}

    @classmethod
    def read(cls, record: dict[str, Any]) -> Annealed:
        """What `record` gave."""
        return cls(float(record["strength"]), tuple((float(now), float(after)) for now, after in record["sums"]))


@dataclass(frozen=True)
class Annealing:
    """When p falls: from 1 to `p_end` in equal parts, after steps at equal distances between two steps.

    At each change lambda is multiplied by the ratio of the penalties before and after it, from the sums over the last
    `window` batches, so that the pressure stays. Steps count from 0. dictionary_learning's `n_sparsity_updates` is one
    more than `changes`: its first update changes nothing. There a queue may hold pairs of an earlier change; here it
    begins anew.

    Attributes:
        start: the first change comes one distance after this step.
        end: the last change comes after this step.
        p_end: the last exponent.
        changes: how many there are.
        window: batches that a ratio is taken from, fewer where changes are nearer to each other.
    """

    start: int
    end: int
    p_end: float = 0.2
    changes: int = 9
    window: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.p_end <= 1:
            raise InvalidSetting(f"p_end is {self.p_end}, not a number above 0 and up to 1")
        if self.start < 0 or self.changes < 1 or self.end - self.start < self.changes or self.window < 1:
            raise InvalidSetting(
                f"p cannot fall {self.changes} times between steps {self.start} and {self.end}; take fewer changes or "
                "more steps"
            )

    def changed_by(self, step: int) -> int:
        """How many changes came before a step.

        >>> [Annealing(start=4, end=8, changes=2).changed_by(step) for step in range(10)]
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 2]
        """
        return sum(after < step for after in self.after)

    @property
    def after(self) -> list[int]:
        """The steps after which p changes, ascending.

        >>> Annealing(start=1000, end=2000, changes=4).after
        [1250, 1500, 1750, 2000]
        """
        return [self.start + (self.end - self.start) * i // self.changes for i in range(1, self.changes + 1)]

    def exponent(self, changed: int) -> float:
        """The value of p after so many changes.

        >>> [round(Annealing(0, 100, 0.2, changes=4).exponent(i), 3) for i in range(5)]
        [1.0, 0.8, 0.6, 0.4, 0.2]
        """
        changed = min(changed, self.changes)
        return self.p_end if changed == self.changes else 1 - (1 - self.p_end) * changed / self.changes

    def kind(self, state: Annealed, step: int) -> PAnneal:
        """The kind at a step."""
        return PAnneal(state.strength, self.exponent(self.changed_by(step)))

    def wants(self, step: int) -> bool:
        """Whether the sums of a step's codes are needed: a change comes soon."""
        return any(0 <= after - step < self.window for after in self.after)

    def next(self, state: Annealed, step: int, z: Tensor) -> Annealed:
        """The state after a step whose codes were z [B, F].

        Where no code fired in the whole window the strength stays. A NaN passes on, so that it shows.
        """
        if not self.wants(step):
            return state
        changed = self.changed_by(step)
        own, following = (float(wide(z).pow(self.exponent(changed + i)).sum()) for i in (0, 1))
        sums = (*state.sums, (own, following))[-self.window :]
        if step not in self.after:
            return Annealed(state.strength, sums)
        before, afterwards = (sum(column) for column in zip(*sums, strict=True))
        return Annealed(state.strength * (before / afterwards if afterwards != 0 else 1.0))
