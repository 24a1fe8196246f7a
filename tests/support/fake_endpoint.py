"""A server on this machine that answers as an OpenAI-compatible endpoint does, or fails to, and keeps its bill.

    with FakeEndpoint(answer) as server: ... server.url, server.calls, server.billed

`answer` gets a message and gives a text; `faults` gets a call and gives a fault or None.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from sparsecode.interpretation.endpoint.budget import Tokens


@dataclass
class Call:
    """What arrived, when, and whether it was answered and billed."""

    number: int
    time: float
    headers: dict[str, str]
    body: dict[str, Any]
    answered: bool = False

    @property
    def message(self) -> str:
        return str(self.body["messages"][0]["content"])


@dataclass
class Fault:
    """What happens instead of an answer, or to it.

    Attributes:
        status: of an error; 200: none.
        headers, error: of it.
        change: changes the body of an answer.
        delay: seconds before anything is sent.
        drop: closes the connection without a response.
        raw: sent instead of JSON.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: Any = None
    change: Callable[[dict[str, Any]], Any] | None = None
    delay: float = 0.0
    drop: bool = False
    raw: bytes | None = None


def count(text: str) -> int:
    """Tokens of a text: words in parts of up to seven letters, numbers and the spaces before them, marks, line ends."""
    return len(re.findall(r"[A-Za-z]{1,7}|\d{1,3}| (?=\d)|\n|[^\sA-Za-z\d]", text))


def usage(message: str, answer: str) -> Tokens:
    """What the server bills for an answer."""
    return Tokens(count(message) + 7, count(answer) + 1)


class FakeEndpoint:
    """The server. `calls` are all that arrived; `billed` are the tokens of those that were answered."""

    def __init__(
        self, answer: Callable[[str], str], faults: Callable[[Call], Fault | None] = lambda _: None, delay: float = 0.0
    ) -> None:
        self.answer, self.faults, self.delay = answer, faults, delay
        self.calls: list[Call] = []
        self.billed = Tokens()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            call = Call(
                len(self.calls),
                time.monotonic(),
                {name.lower(): value for name, value in handler.headers.items()},
                body,
            )
            self.calls.append(call)
            fault = self.faults(call) or Fault()
        time.sleep(max(fault.delay, self.delay))
        if fault.drop:
            handler.close_connection = True
            return
        if fault.status != 200:
            self._send(handler, fault.status, json.dumps({"error": fault.error}).encode(), fault.headers)
            return
        text = self.answer(call.message)
        tokens = usage(call.message, text)
        reply: Any = {
            "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": tokens.read, "completion_tokens": tokens.written},
        }  # fmt: skip
        if fault.change is not None:
            reply = fault.change(reply) or reply
        with self._lock:
            call.answered = True
            self.billed += tokens
        self._send(handler, 200, fault.raw or json.dumps(reply).encode(), fault.headers)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
