"""Serves a browser's folder on this machine alone, and says which features are active on a text.

Only 127.0.0.1 is listened to, only requests that name it as their host are answered (a page elsewhere could otherwise
be made to read this one, by a name that resolves here), nothing is written, and no other page may read an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sparsecode.browser.folder import PAGE
from sparsecode.errors import SparsecodeError

HOST = "127.0.0.1"
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_MOST_TEXT = 20_000  # characters of a text

Answer = Callable[[str, str], Any]  # name of a dictionary or *, text -> JSON values


def server(folder: Path, port: int, answer: Answer | None) -> ThreadingHTTPServer:
    """A server of a folder; `answer` says what fires on a text. Port 0: any that is free."""

    class Handler(_Handler):
        pass

    Handler.folder, Handler.answer = folder.resolve(), staticmethod(answer) if answer else None
    return ThreadingHTTPServer((HOST, port), Handler)


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    answer: Any = None
    server_version, sys_version = "sparsecode", ""

    def do_GET(self) -> None:
        """Answers with a file of the folder, or with what fires on a text."""
        if self.headers.get("Host", "") not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:  # type: ignore[attr-defined]
            return self._send(403, b"ask 127.0.0.1", "text/plain")
        asked = urlsplit(self.path)
        path = unquote(asked.path).lstrip("/") or PAGE
        if path == "try" and self.answer:
            return self._try(parse_qs(asked.query))
        try:
            file = (self.folder / path).resolve()
            if file.suffix not in _TYPES or not file.is_relative_to(self.folder):
                raise FileNotFoundError
            data = file.read_bytes()
        except (OSError, ValueError):  # ValueError: a zero byte
            return self._send(404, b"not there", "text/plain")
        if path == PAGE and self.answer:
            data = data.replace(b'<html lang="en">', b'<html lang="en" data-serve="yes">', 1)
        return self._send(200, data, _TYPES[file.suffix])

    def _try(self, query: dict[str, list[str]]) -> None:
        try:
            text = query.get("text", [""])[0][:_MOST_TEXT]
            found, code = self.answer(query.get("d", ["*"])[0], text), 200
        except SparsecodeError as error:
            found, code = {"problem": str(error)}, 400
        self._send(code, json.dumps(found).encode(), "application/json")

    def _send(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""
