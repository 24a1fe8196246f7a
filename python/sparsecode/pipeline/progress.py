"""Progress of long work: a live line with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Self

from sparsecode.pipeline.advice import REMEDIES
from sparsecode.watch import UNWATCHED, Task, Watch, clock, human

_LOG_EVERY_SECONDS = 10.0  # a ten-minute job leaves about sixty lines in a log


def say(message: str) -> None:
    """One line for the person who started the command; on stderr, so that --json output stays clean."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


class Progress(Task):
    """A task that is shown: `advance(n, loss="4.61")` adds work and replaces the values shown beside it."""

    def __init__(self, label: str, total: int | None, unit: str, *, done: int = 0) -> None:
        super().__init__(label, total, unit, done=done)
        self._start_done = done
        self._live = sys.stderr.isatty()
        self._values: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._started = self._last = time.monotonic()
        return self

    def advance(self, amount: int, **values: str) -> None:
        """Adds `amount` finished units."""
        super().advance(amount)
        self._values |= values
        now = time.monotonic()
        if now - self._last >= (0.1 if self._live else _LOG_EVERY_SECONDS):
            self._last = now
            self._show(final=False)

    def note(self, message: str) -> None:
        """A line of its own above the progress, named like it."""
        if self._live:
            sys.stderr.write("\r\x1b[2K")
        say(f"{self.label}: {message}")

    def __exit__(self, kind: object = None, *failure: object) -> None:
        if self._live or kind is None:
            self._show(final=True)

    def line(self) -> str:
        """The current state in words."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._start_done) / elapsed
        parts = [f"{self.label}: {human(self.done)}"]
        if self.total:
            parts[0] += f" of {human(self.total)} {self.unit} ({100 * self.done / self.total:.0f} %)"
        else:
            parts[0] += f" {self.unit}"
        parts.append(f"{human(rate)} {self.unit}/s")
        if self.total and rate > 0 and self.done < self.total:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        else:
            parts.append(f"{clock(elapsed)} taken")
        parts += [f"{name} {value}" for name, value in self._values.items()]
        return ", ".join(parts)

    def _show(self, *, final: bool) -> None:
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{self.line()}" + ("\n" if final else ""))
            sys.stderr.flush()
        else:
            say(self.line())


class Console(Watch):
    """Shows everything on stderr."""

    def task(self, label: str, total: int | None, unit: str, *, done: int = 0) -> Task:
        """Begins work with a line of progress."""
        return Progress(label, total, unit, done=done)

    def note(self, message: str, remedy: str | None = None) -> None:
        """Prints a line."""
        say(message if remedy is None else f"{message}; {REMEDIES[remedy]}")


def watching(quiet: bool) -> Watch:
    """What a stage is watched with: the console, or where `quiet` nobody."""
    return UNWATCHED if quiet else Console()
