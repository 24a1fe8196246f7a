"""Questions to an endpoint, each of which is paid for once: answers are kept in a file, and found there again.

A line is written before a call, with the most that it can cost, and one after it, with its answer and what it did cost.
A call that was running when its process ended counts as paid, since it may have been. The line of an answer holds

    call            digest of host, model, message and limit
    most, used      tokens read and written: reserved, billed
    text, reason    the answer, or why there is none; `failed` instead where the call brought none and may be made again
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import os_failure
from sparsecode.errors import EndpointFailed
from sparsecode.interpretation.endpoint.budget import Budget, Tokens, most_tokens
from sparsecode.interpretation.endpoint.client import CallFailed, Completes, Endpoint

ATTEMPTS = 5  # with waits of 1, 2, 4 and 8 seconds between them
HOPELESS = 10  # calls in a row that bring no answer, after all attempts: there is nobody to ask
_PATIENCE = 600.0  # seconds of a Retry-After that are waited; after more, the same command goes on another time
SPENT, STOPPED = "budget spent", "stopped"


@dataclass(frozen=True)
class Answer:
    """A text, or the reason why there is none."""

    text: str = ""
    reason: str = ""


class Ledger:
    """The file of calls: answers by digest, and what was spent at one endpoint for one model."""

    def __init__(self, path: Path, endpoint: Endpoint) -> None:
        self.path, self.endpoint = path, endpoint
        self.answers: dict[str, Answer] = {}
        self.spent = Tokens()
        self._lock = threading.Lock()
        own = {"host": endpoint.host, "llm": endpoint.llm}
        for line in _lines(path):
            if {name: line.get(name) for name in own} != own:
                continue
            self.spent += Tokens(*line["used"]) - Tokens(*line["most"]) if "used" in line else Tokens(*line["most"])
            if "text" in line:
                self.answers[line["call"]] = Answer(line["text"], line["reason"])

    def digest(self, message: str, limit: int) -> str:
        """What a call is known by."""
        whole = json.dumps([self.endpoint.host, self.endpoint.llm, message, limit])
        return hashlib.sha256(whole.encode()).hexdigest()[:32]

    def begin(self, call: str, most: Tokens, message: str) -> None:
        """Notes that a call is about to be made."""
        self._write(call, most=most, message=message)

    def end(self, call: str, most: Tokens, used: Tokens, found: Answer | str) -> None:
        """Notes what came of a call: an answer, or why it failed."""
        about = {"failed": found} if isinstance(found, str) else {"text": found.text, "reason": found.reason}
        self._write(call, most=most, used=used, **about)
        if isinstance(found, Answer):
            self.answers[call] = found

    def _write(self, call: str, **about: Any) -> None:
        spelled = {name: [value.read, value.written] if isinstance(value, Tokens) else value
                   for name, value in about.items()}  # fmt: skip
        line = {"call": call, "host": self.endpoint.host, "llm": self.endpoint.llm, **spelled}
        try:
            # Whole lines, one write each: what a killed process leaves of one is recognised and cut off.
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab") as file:
                    file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise os_failure(self.path, error) from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file; of a line that a killed process left, nothing stays in it."""
    try:
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            data = data[: data.rfind(b"\n") + 1]
            with path.open("r+b") as file:
                file.truncate(len(data))
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_failure(path, error) from error
    for line in data.splitlines():
        yield json.loads(line)


class Calls:
    """Asks, from several threads, with a client, a ledger and a budget.

    The first call is made alone, so that what is refused is refused once.

    Args:
        client: makes a call.
        ledger: where answers are kept.
        budget: what may be spent.
        pause: seconds before the second attempt of a call; they double with each.
    """

    def __init__(self, client: Completes, ledger: Ledger, budget: Budget, *, pause: float = 1.0) -> None:
        self._client, self._ledger, self._budget, self._pause = client, ledger, budget, pause
        self._same: dict[str, threading.Lock] = {}
        self._first, self._begun = threading.Lock(), False
        self._not_before, self._failed_in_a_row = 0.0, 0
        self._fatal: EndpointFailed | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Lets no other call begin."""
        self._stopped.set()

    def ask(self, message: str, limit: int) -> Answer:
        """The answer of at most `limit` tokens to a message: a kept one, or a new one.

        Raises:
            EndpointFailed: this call, or another one before, showed that there is no use in asking.
        """
        call = self._ledger.digest(message, limit)
        with self._same.setdefault(call, threading.Lock()):
            if call in self._ledger.answers:
                return self._ledger.answers[call]
            if not self._begun:
                with self._first:
                    if not self._begun:
                        try:
                            return self._ask(call, message, limit)
                        finally:
                            self._begun = True
            return self._ask(call, message, limit)

    def _ask(self, call: str, message: str, limit: int) -> Answer:
        most = Tokens(most_tokens(message), limit)
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._stopped.wait(self._pause * 2 ** (attempt - 1))
            if not self._budget.reserve(most):
                return Answer(reason=SPENT)
            used = Tokens()
            try:
                while (left := self._not_before - time.monotonic()) > 0 and not self._stopped.wait(left):
                    pass
                if self._fatal is not None:
                    raise self._fatal
                if self._stopped.is_set():
                    return Answer(reason=STOPPED)
                self._ledger.begin(call, most, message)
                try:
                    reply = self._client.complete(message, limit)
                except CallFailed as failure:
                    used, reason = most if failure.billed else Tokens(), failure.reason
                    self._ledger.end(call, most, used, reason)
                    self._heed(failure)
                    if not failure.again:
                        break
                    continue
                except EndpointFailed as error:
                    self._ledger.end(call, most, used, "no use in asking")
                    self._fatal = error
                    raise
                used = most if reply.used is None else reply.used
                answer = Answer(reply.text, reply.reason)
                self._ledger.end(call, most, used, answer)
                self._failed_in_a_row = 0
                return answer
            finally:
                self._budget.settle(most, used)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= HOPELESS:
            raise self._give_up(f"{HOPELESS} calls in a row brought no answer, the last for: {reason}")
        return Answer(reason=reason)

    def _heed(self, failure: CallFailed) -> None:
        """Lets all calls wait as long as the endpoint asks for."""
        if failure.wait is None:
            return
        if failure.wait > _PATIENCE:
            raise self._give_up(f"asks to wait for {failure.wait:.0f} seconds") from None
        self._not_before = max(self._not_before, time.monotonic() + failure.wait)

    def _give_up(self, why: str) -> EndpointFailed:
        self._fatal = EndpointFailed(f"{self._client.endpoint.host}: {why}; the same command goes on from here")
        return self._fatal
