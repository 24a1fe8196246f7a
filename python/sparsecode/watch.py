"""How long work is watched: a library call tells what it does, and whoever called decides what becomes of it.

Nothing here writes anything: notes go to the logger "sparsecode", progress nowhere, unless a `Watch` is given that
shows them.
"""

from __future__ import annotations

import logging
from typing import Any, Self

_LOGGER = logging.getLogger("sparsecode")


class Task:
    """Work of `total` units (None: not known), of which `done` were done before. Use as a context manager.

    `total` may be set later, for work whose size is planned while it runs.
    """

    def __init__(self, label: str, total: int | None, unit: str, *, done: int = 0) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def advance(self, amount: int, **values: str) -> None:
        """Adds `amount` finished units; `values` are worth showing beside them."""
        self.done += amount

    def note(self, message: str) -> None:
        """Something worth knowing about this work."""
        _LOGGER.info("%s: %s", self.label, message)


class Watch:
    """What a call is watched with; this one keeps notes in the log, and shows no progress."""

    def task(self, label: str, total: int | None, unit: str, *, done: int = 0) -> Task:
        """Begins work that takes a while."""
        return Task(label, total, unit, done=done)

    def note(self, message: str, remedy: str | None = None) -> None:
        """Something worth knowing that is no failure; `remedy`: what changes it, see `SparsecodeError`."""
        _LOGGER.info(message)

    def planned(self, **decisions: int) -> None:
        """Decisions taken on the way, which a resumed work must keep; ignored here."""

    def measured(self, step: int, **values: Any) -> None:
        """What was measured after so many steps; ignored here."""


UNWATCHED = Watch()


def human(value: float) -> str:
    """A count with a unit letter: 1234567 -> '1.23M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
