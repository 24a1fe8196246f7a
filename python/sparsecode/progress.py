"""Progress of long work: a live line with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_LOG_EVERY_SECONDS = 10.0  # a ten-minute job leaves about sixty lines in a log


def say(message: str) -> None:
    """One line for the person who started the command; on stderr, so that --json output stays clean."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


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


class Progress:
    """Counts `total` units of work named `unit`, of which `done` were done before (a resumed stage).

    Use as a context manager; `advance(n, loss="4.61")` adds work and replaces the values shown beside it. `total`
    may be set later (work whose size is planned while it runs). Shows nothing where `quiet`.
    """

    def __init__(self, label: str, total: int | None, unit: str, *, done: int = 0, quiet: bool = False) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = done
        self._start_done = done
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._values: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._started = self._last = time.monotonic()
        return self

    def advance(self, amount: int, **values: str) -> None:
        """Adds `amount` finished units."""
        self.done += amount
        self._values |= values
        now = time.monotonic()
        if now - self._last >= (0.1 if self._live else _LOG_EVERY_SECONDS):
            self._last = now
            self._show(final=False)

    def note(self, message: str | None) -> None:
        """A line of its own above the progress, named like it; nothing where it is None or `quiet`."""
        if message is None or self._quiet:
            return
        if self._live:
            sys.stderr.write("\r\x1b[2K")
        say(f"{self.label}: {message}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        if self._quiet:
            return
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{self.line()}" + ("\n" if final else ""))
            sys.stderr.flush()
        else:
            say(self.line())
