"""Ctrl-C or SIGTERM between two steps instead of in the middle of one, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

_AGAIN = 1.0  # seconds: a terminal's Ctrl-C comes twice under torchrun, which passes it on


class Terminated(KeyboardInterrupt):
    """SIGTERM came, and what was done is saved."""

    exit_code = 143  # as a shell reports a process that SIGTERM ended


class Interruptible:
    """While open, the first SIGINT or SIGTERM only sets `requested`; a second SIGINT interrupts at once, as usual.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
        requested: the number of the signal that came; 0 before.
    """

    def __init__(self) -> None:
        self.requested = 0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    @staticmethod
    def error(number: int) -> KeyboardInterrupt:
        """What ends the work after a signal."""
        return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested and time.monotonic() - self._since > _AGAIN:
            raise KeyboardInterrupt
        if not self.requested:
            self._since = time.monotonic()
        self.requested = max(self.requested, number)
