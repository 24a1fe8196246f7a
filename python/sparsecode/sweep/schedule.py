"""The schedules of learning rate and L1, and how many steps fit into a budget of minutes. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sparsecode.watch import clock, human

# With a budget, the total is fixed when this share of it is used. The start is slower than the rest (codes are dense
# until L1 has done its work), so the rate is measured from the mark on: after the warm-up, and late enough to be
# right within a few per cent, early enough to leave the decay untouched.
MARK_AT, PLAN_AT = 0.2, 0.4

# L1's warm-up is a share of a number of steps that is not known yet: it is fixed from a guess, when this share of the
# budget is used. Until then there is no L1 at all, as there is next to none at the start of a warm-up.
GUESS_AT = 0.02


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, constant, linear decay to zero at the end. L1: linear warm-up, constant.

    Attributes:
        warmup: steps of the rate's warm-up.
        decay_fraction: share of all steps, at the end, over which the rate falls.
        l1_warmup: share of all steps, at the start, over which L1 rises from zero.
        total: steps in all; None while it is not known, which no step before the decay depends on.
        planned_at: the step at which `total` was fixed; the decay never reaches before it.
        l1_from: the step at which L1 begins to rise.
        l1_until: the step from which it has its full strength; None while neither that nor `total` is known.
    """

    warmup: int
    decay_fraction: float
    l1_warmup: float = 0.0
    total: int | None = None
    planned_at: int = 0
    l1_from: int = 0
    l1_until: int | None = None

    def planned(self, decisions: Mapping[str, int]) -> Schedule:
        """With what an interrupted training had decided: l1_from and l1_until, and steps and planned_at."""
        known = {name: decisions[name] for name in ("l1_from", "l1_until", "planned_at") if name in decisions}
        return replace(self, total=decisions.get("steps", self.total), **known)

    @property
    def decay_steps(self) -> int:
        """Steps of the decay; 0 while the total is not known."""
        if self.total is None:
            return 0
        return max(0, min(round(self.decay_fraction * self.total), self.total - self.planned_at))

    @property
    def l1_steps(self) -> int:
        """Steps until L1 has its full strength; 0 while that is not known."""
        return self._l1_end(self.planned_at) or 0

    def factors(self, step: int) -> tuple[float, float]:
        """(lr_scale, l1_factor) at a step, as engines take them."""
        return self.lr_scale(step), self.l1_factor(step)

    def lr_scale(self, step: int) -> float:
        """Factor of the peak rate at a step, counted from 0.

        >>> schedule = Schedule(warmup=2, decay_fraction=0.5, total=8)
        >>> [schedule.lr_scale(step) for step in range(8)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        scale = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.total is not None and step >= self.total - self.decay_steps:
            scale = min(scale, (self.total - step) / self.decay_steps)
        return scale

    def l1_factor(self, step: int) -> float:
        """Factor of the L1 coefficients at a step, counted from 0.

        >>> schedule = Schedule(warmup=0, decay_fraction=0.0, l1_warmup=0.5, total=8)
        >>> [schedule.l1_factor(step) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
        """
        if self.l1_warmup == 0:
            return 1.0
        until = self._l1_end(step)
        if until is None or step < self.l1_from:
            return 0.0
        return min(1.0, (step + 1 - self.l1_from) / max(1, until - self.l1_from))

    def _l1_end(self, step: int) -> int | None:
        """Where L1's warm-up ends, as far as step `step` knows."""
        if self.l1_warmup == 0:
            return 0
        if self.total is None or step < self.planned_at:
            return self.l1_until
        # No later than the plan has it: steps may have become slower since the guess.
        planned = round(self.l1_warmup * self.total)
        return planned if self.l1_until is None else min(self.l1_until, max(planned, self.planned_at))


class Budget:
    """Fits the number of steps to a number of seconds, from the rate measured between two shares of it.

    Args:
        seconds: the budget.
        most: most steps, whatever the time allows; None for no limit.
        least: fewest steps, whatever the time allows; `most` beats it.

    Attributes:
        fits: the steps that the seconds alone would have allowed; None while that is not known.
        per_step: seconds of one, as measured; None before.
    """

    def __init__(self, seconds: float, most: int | None = None, least: int = 0) -> None:
        self.seconds = seconds
        self.most = most
        self.least = least if most is None else min(least, most)
        self.fits: int | None = None
        self.per_step: float | None = None
        self._mark: tuple[int, float] | None = None

    def total(self, step: int, elapsed: float) -> int | None:
        """Called after every step with the seconds used so far: the total once it can be fixed, else None."""
        if self.most is not None and step >= self.most:
            return self.most
        if self._mark is None and elapsed >= MARK_AT * self.seconds and elapsed < PLAN_AT * self.seconds:
            self._mark = (step, elapsed)
        if elapsed < PLAN_AT * self.seconds:
            return None
        from_step, from_time = self._mark or (0, 0.0)
        self.per_step = max((elapsed - from_time) / max(1, step - from_step), 1e-9)
        self.fits = step + max(1, int((self.seconds - elapsed) / self.per_step))
        planned = max(self.fits, self.least)
        return planned if self.most is None else min(planned, self.most)

    def extension(self, total: int, per_step: int) -> str | None:
        """In words, that the floor decided and how long that takes; None where the time did.

        Args:
            total: what `total` gave.
            per_step: rows of a step.
        """
        if self.fits is None or self.per_step is None or total <= self.fits:
            return None
        return (
            f"{self.seconds / 60:.3g} minutes would end after {human(self.fits * per_step)} rows here; going on to "
            f"{human(total * per_step)}, the least that was asked for, about "
            f"{clock((total - self.fits) * self.per_step)} more"
        )

    def guess(self, step: int, elapsed: float) -> int:
        """About how many steps it will be, while the total is not known."""
        guessed = max(step + 1, round(step * self.seconds / max(elapsed, 1e-9)), self.least)
        return guessed if self.most is None else min(guessed, self.most)

    def early(self, step: int, elapsed: float) -> int | None:
        """The guess from `GUESS_AT` of the budget on, None before: to plan by what comes before the total is known."""
        return self.guess(step, elapsed) if step and elapsed >= GUESS_AT * self.seconds else None
