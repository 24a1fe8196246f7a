"""The learning rate's schedule, and how many steps fit into a budget of minutes. Pure functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sparsecode.progress import clock, human

# With a budget, the total is fixed when this share of it is used. The start is slower than the rest (codes are dense
# until L1 has done its work), so the rate is measured from the mark on: after the warm-up, and late enough to be
# right within a few per cent, early enough to leave the decay untouched.
MARK_AT, PLAN_AT = 0.2, 0.4


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, constant, linear decay to zero at the end.

    Attributes:
        warmup: steps of warm-up.
        decay_fraction: share of all steps, at the end, over which the rate falls.
        total: steps in all; None while it is not known, which no step before the decay depends on.
        planned_at: the step at which `total` was fixed; the decay never reaches before it.
    """

    warmup: int
    decay_fraction: float
    total: int | None = None
    planned_at: int = 0

    @property
    def decay_steps(self) -> int:
        """Steps of the decay; 0 while the total is not known."""
        if self.total is None:
            return 0
        return max(0, min(round(self.decay_fraction * self.total), self.total - self.planned_at))

    def scale(self, step: int) -> float:
        """Factor of the peak rate at a step, counted from 0.

        >>> schedule = Schedule(warmup=2, decay_fraction=0.5, total=8)
        >>> [schedule.scale(step) for step in range(8)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        scale = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.total is not None and step >= self.total - self.decay_steps:
            scale = min(scale, (self.total - step) / self.decay_steps)
        return scale


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

    def extension(self, total: int, per_step: int, setting: str) -> str | None:
        """In words, that the floor decided and how long that takes; None where the time did.

        Args:
            total: what `total` gave.
            per_step: rows of a step.
            setting: the name of the floor's flag.
        """
        if self.fits is None or self.per_step is None or total <= self.fits:
            return None
        return (
            f"--minutes {self.seconds / 60:.3g} would end after {human(self.fits * per_step)} rows here; going on to "
            f"{human(total * per_step)} ({setting}), about {clock((total - self.fits) * self.per_step)} more"
        )

    def guess(self, step: int, elapsed: float) -> int:
        """About how many steps it will be, while the total is not known: for a progress bar."""
        return max(step, round(step * self.seconds / max(elapsed, 1e-9)), self.least)
