"""One call of an OpenAI-compatible endpoint: only what OpenAI, Anthropic's compatible endpoint, vLLM, Ollama and
llama.cpp have in common, which is one message in and a text out.

The package openai carries it. It would read a key and headers from OPENAI_* variables by itself and send them to any
host, and follow a host's redirection to another one: both are kept from it.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from sparsecode.errors import EndpointFailed, InvalidSetting, MissingExtra, in_a_line
from sparsecode.interpretation.endpoint.budget import Tokens

REFUSED, CUT_OFF, EMPTY, STRANGE = "refused", "cut off", "empty", "no chat completion"  # answers that are none
TIMEOUT = 300.0  # seconds: a model on a processor takes minutes for an answer
_HEADERS = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "x-stainless-raw-response",
}  # without the last the package does not give the response as it is
_LIMITS = ("max_tokens", "max_completion_tokens")
_HIDDEN = "[key]"
_LEAST_SECRET = 8  # letters: what a local server takes as a key ("none", "EMPTY") is a word like others


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers.

    Attributes:
        url: up to `/v1`.
        llm: the model's name there.
        key: sent to it and to nobody else; empty: none.
    """

    url: str
    llm: str
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSetting(f"endpoint '{self.url}': a URL is needed, such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidSetting(
                f"endpoint on {parts.hostname}: its URL holds a user, a password or parameters, which a run would "
                "record; name the variable that holds the key instead"
            )

    @property
    def host(self) -> str:
        """The host, with a port where one is named."""
        return urlsplit(self.url).netloc.lower()


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or the reason why there is none, and what was billed, where that is said."""

    text: str
    reason: str = ""
    used: Tokens | None = None


class CallFailed(Exception):
    """A call brought no answer.

    Attributes:
        reason: why.
        again: whether the same call may succeed later.
        billed: whether it may have been billed: the connection broke after it was sent.
        wait: seconds that the endpoint asks for before any other call; None: it asks for nothing.
    """

    def __init__(self, reason: str, *, again: bool = False, billed: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.billed, self.wait = reason, again, billed, wait


class Completes(Protocol):
    """What makes a call: a `Client`, or a stand-in for it."""

    endpoint: Endpoint

    def complete(self, message: str, limit: int) -> Reply: ...  # noqa: D102


class Client:
    """Calls an endpoint; several threads may. As a context manager it closes its connections at the end.

    Args:
        endpoint: where.
        bounded: whether no call may be made whose length is not limited.
        timeout: seconds without a sign of the answer.

    Raises:
        MissingExtra: the package openai is not installed.
    """

    def __init__(self, endpoint: Endpoint, *, bounded: bool = False, timeout: float = TIMEOUT) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingExtra(
                "asking an endpoint needs the package openai; run: pip install 'sparsecode[interpret]'"
            ) from error
        self.endpoint = endpoint
        self._bounded = bounded
        self._names: tuple[str, ...] = _LIMITS  # what limits an answer: the first that was not refused yet
        self._temperature = True
        http = openai.DefaultHttpxClient(
            follow_redirects=False, timeout=timeout, event_hooks={"request": [self._clean_headers]}
        )
        self._openai: Any = openai
        self._api: Any = openai.OpenAI(
            base_url=endpoint.url, api_key=endpoint.key or "none", max_retries=0, timeout=timeout, http_client=http
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def complete(self, message: str, limit: int) -> Reply:
        """Sends one message, and gives the answer of at most `limit` tokens.

        A parameter that is refused by name is replaced or left out, in all later calls too.

        Raises:
            CallFailed: there is no answer.
            EndpointFailed: there will be none to other calls either.
        """
        while True:
            sent: dict[str, Any] = {"model": self.endpoint.llm, "messages": [{"role": "user", "content": message}]}
            sent |= dict.fromkeys(self._names[:1], limit) | ({"temperature": 0} if self._temperature else {})
            try:
                raw = self._api.chat.completions.with_raw_response.create(**sent)
                return self._read(json.loads(raw.http_response.content))
            except self._openai.APIStatusError as error:
                if not self._does_without(error, sent):
                    raise self._failure(error) from None
            except self._openai.APITimeoutError as error:
                raise CallFailed("timed out", again=True, billed=not _unsent(error)) from None
            except self._openai.APIConnectionError as error:
                cause = self._said(error.__cause__ or error)
                raise CallFailed(f"no connection: {cause}", again=True, billed=not _unsent(error)) from None
            except (self._openai.OpenAIError, ValueError):  # what is no JSON was written by something in between
                raise CallFailed(STRANGE, billed=True) from None

    def _does_without(self, error: Any, sent: dict[str, Any]) -> bool:
        """Whether a call was refused for a parameter that can be replaced or left out, which it then is."""
        said = f"{getattr(error, 'param', '')} {getattr(error, 'body', '')} {error}"
        for name in (*_LIMITS, "temperature"):
            if name not in sent or error.status_code not in (400, 422) or not re.search(rf"\b{name}\b", said):
                continue
            if name == "temperature":
                self._temperature = False
                return True
            self._names = _LIMITS[_LIMITS.index(name) + 1 :]
            if self._bounded and not self._names:
                raise EndpointFailed(
                    f"{self.endpoint.host}: takes no limit to the length of an answer, so that what a call can cost is "
                    "not known; nothing can be asked within a budget"
                ) from None
            return True
        return False

    def _failure(self, error: Any) -> CallFailed | EndpointFailed:
        status, said = error.status_code, self._said(error)
        place = f"{self.endpoint.host}: HTTP {status}"
        if status in (401, 403):
            return EndpointFailed(f"{place}: the key is missing or not accepted ({said})")
        if status in (402, 404) or getattr(error, "code", None) == "insufficient_quota":
            return EndpointFailed(f"{place}: it does not answer for {self.endpoint.llm} ({said})")
        if 300 <= status < 400:
            return EndpointFailed(f"{place}: sends to another address, which is not followed; give that one itself")
        again = status in (408, 409, 429) or status >= 500
        return CallFailed(f"HTTP {status}", again=again, wait=_wait(error.response.headers) if again else None)

    def _read(self, body: Any) -> Reply:
        """The answer in a response, which may hold anything."""
        usage = _of(body, "usage")
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if usage else []
        whole = [n for n in counts if type(n) is int and n >= 0]
        used = Tokens(*whole) if len(whole) == 2 else None
        choices = body.get("choices") if isinstance(body, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        message = _of(first, "message")
        if message is None or first is None:
            return Reply("", STRANGE, used)
        content, finish = message.get("content"), first.get("finish_reason")
        if message.get("refusal") or finish == "content_filter":
            return Reply("", REFUSED, used)
        if finish == "length":
            return Reply("", CUT_OFF, used)
        if not isinstance(content, str) or not content.strip():
            return Reply("", EMPTY, used)
        return Reply(self._hidden(content), "", used)

    def _said(self, error: BaseException) -> str:
        """What an error says, without the key."""
        return self._hidden(in_a_line(Exception(str(error) or type(error).__name__)))

    def _hidden(self, text: str) -> str:
        key = self.endpoint.key
        return text.replace(key, _HIDDEN) if len(key) >= _LEAST_SECRET else text

    def _clean_headers(self, request: Any) -> None:
        """Leaves what a request needs, and the key that was given: whatever else the environment holds stays here."""
        for name in [name for name in request.headers if name.lower() not in _HEADERS]:
            del request.headers[name]
        request.headers["user-agent"] = "sparsecode"
        if self.endpoint.key:
            request.headers["authorization"] = f"Bearer {self.endpoint.key}"


def _of(value: Any, name: str) -> dict[str, Any] | None:
    """A dictionary in a dictionary."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None


def _unsent(error: Any) -> bool:
    """Whether there was no connection to send a call through."""
    return type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")


def _wait(headers: Any) -> float | None:
    """Seconds of a Retry-After, which is a number or a date (RFC 9110, section 10.2.3)."""
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
