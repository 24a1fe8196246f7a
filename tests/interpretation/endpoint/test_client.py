"""One call: what is sent, what is taken for an answer, and every way in which there is none."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from fake_endpoint import Call, FakeEndpoint, Fault, usage
from sparsecode.errors import EndpointFailed, InvalidSetting
from sparsecode.interpretation.endpoint import client
from sparsecode.interpretation.endpoint.client import CallFailed, Client, Endpoint, Reply

KEY = "sk-secret-0123456789"


class Server(FakeEndpoint):
    fault: Fault | None = None


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with Server(lambda message: f"answer to {message}", lambda _: found.fault) as found:
        yield found


@pytest.fixture
def server(shared: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    shared.calls.clear()
    shared.fault = None
    return shared


def complete(server: FakeEndpoint, key: str = KEY, **settings: Any) -> Reply:
    with Client(Endpoint(server.url, "small", key), **settings) as own:
        return own.complete("hello", 50)


def test_a_call_and_its_answer(server: Server) -> None:
    assert complete(server) == Reply("answer to hello", "", usage("hello", "answer to hello"))
    (call,) = server.calls
    assert call.body == {
        "model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "temperature": 0,
    }  # fmt: skip


def test_only_what_was_given_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", f"other-{name}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.0.2.1/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Other: other\nAuthorization: Bearer other")
    assert complete(server).text
    assert complete(server, key="").text
    first, second = (call.headers for call in server.calls)
    assert first["authorization"] == f"Bearer {KEY}" and "authorization" not in second
    for headers in (first, second):
        assert "other" not in str(headers)
        assert headers.keys() <= client._HEADERS | {"authorization", "user-agent"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"content": ""}, client.EMPTY),
        ({"content": " \n"}, client.EMPTY),
        ({"content": None}, client.EMPTY),
        ({"content": [{"type": "text"}]}, client.EMPTY),
        ({"refusal": "I cannot"}, client.REFUSED),
        ({"finish_reason": "content_filter"}, client.REFUSED),
        ({"finish_reason": "length"}, client.CUT_OFF),
        ({"finish_reason": None}, ""),
    ],
)
def test_what_is_no_answer_has_a_reason(server: Server, change: dict[str, Any], reason: str) -> None:
    def changed(reply: dict[str, Any]) -> None:
        choice = reply["choices"][0]
        (choice if "finish_reason" in change else choice["message"]).update(change)

    server.fault = Fault(change=changed)
    found = complete(server)
    assert (found.reason, bool(found.text)) == (reason, not reason)
    assert found.used == usage("hello", "answer to hello"), "it is billed all the same"


@pytest.mark.parametrize(
    "body",
    [[], {}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": "text"}]}, {"choices": {"message": {}}}, 7],
)
def test_what_is_no_completion_is_no_answer(server: Server, body: Any) -> None:
    server.fault = Fault(change=lambda _: body or {"error": body})
    assert complete(server) == Reply("", client.STRANGE)


@pytest.mark.parametrize("given", [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": -1, "completion_tokens": 2}, []])
def test_usage_may_be_missing(server: Server, given: Any) -> None:
    server.fault = Fault(change=lambda reply: reply | {"usage": given})
    assert complete(server).used is None


@pytest.mark.parametrize(
    ("fault", "again", "billed", "wait"),
    [
        (Fault(status=429, headers={"retry-after": "7"}), True, False, 7.0),
        (Fault(status=429), True, False, None),
        (Fault(status=429, headers={"retry-after": "soon"}), True, False, None),
        (Fault(status=500), True, False, None),
        (Fault(status=503, headers={"retry-after": "0"}), True, False, 0.0),
        (Fault(status=400, error={"message": "too long a context"}), False, False, None),
        (Fault(drop=True), True, True, None),
        (Fault(delay=0.6), True, True, None),
        (Fault(raw=b"<html>busy</html>"), False, True, None),
        (Fault(headers={"content-length": "100000"}), True, True, None),
    ],
)
def test_failures(server: Server, fault: Fault, again: bool, billed: bool, wait: float | None) -> None:
    server.fault = fault
    with pytest.raises(CallFailed) as caught:
        complete(server, timeout=0.3)
    assert (caught.value.again, caught.value.billed, caught.value.wait) == (again, billed, wait)
    assert caught.value.reason and len(server.calls) == 1, "the client itself does not try again"


def test_a_date_to_wait_for(server: Server) -> None:
    import time

    server.fault = Fault(status=429, headers={"retry-after": formatdate(time.time() + 60, usegmt=True)})
    with pytest.raises(CallFailed) as caught:
        complete(server)
    assert caught.value.wait is not None and 50 < caught.value.wait <= 61


def test_nobody_there_is_not_billed() -> None:
    with Client(Endpoint("http://127.0.0.1:9/v1", "small")) as own, pytest.raises(CallFailed) as caught:
        own.complete("hello", 50)
    assert caught.value.again and not caught.value.billed


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}"}),
        (403, {"message": "no"}),
        (402, {"message": "no credit"}),
        (404, {"message": "no such model"}),
        (429, {"message": "no credit", "code": "insufficient_quota"}),
    ],
)
def test_what_no_other_call_can_mend(server: Server, status: int, error: Any) -> None:
    server.fault = Fault(status=status, error=error)
    with pytest.raises(EndpointFailed, match=f"127.0.0.1:.*HTTP {status}") as caught:
        complete(server)
    assert KEY not in str(caught.value) and len(server.calls) == 1


def test_a_redirection_is_not_followed(server: Server) -> None:
    with FakeEndpoint(lambda _: "stolen") as other:
        server.fault = Fault(status=307, headers={"location": f"{other.url}/chat/completions"})
        with pytest.raises(EndpointFailed, match="another address"):
            complete(server)
        assert not other.calls


def refusing(*names: str) -> Any:
    def fault(call: Call) -> Fault | None:
        for name in names:
            if name in call.body:
                return Fault(status=400, error={"message": f"Unsupported parameter: '{name}'", "param": name})
        return None

    return fault


def test_parameters_that_are_refused_are_replaced_or_left_out_once() -> None:
    with FakeEndpoint(lambda _: "yes", refusing("max_tokens", "temperature")) as picky:
        with Client(Endpoint(picky.url, "small")) as own:
            assert [own.complete("hello", 50).text for _ in range(3)] == ["yes"] * 3
        assert len(picky.calls) == 5
        assert [sorted(call.body) for call in picky.calls[2:]] == [["max_completion_tokens", "messages", "model"]] * 3


def test_without_a_limit_only_what_is_not_bounded() -> None:
    with FakeEndpoint(lambda _: "yes", refusing("max_tokens", "max_completion_tokens")) as picky:
        assert complete(picky).text == "yes"
        with pytest.raises(EndpointFailed, match="what a call can cost is not known"):
            complete(picky, bounded=True)


def test_a_key_that_comes_back_is_hidden(server: Server) -> None:
    server.fault = Fault(change=lambda reply: reply["choices"][0]["message"].update(content=f"your key is {KEY}"))
    assert complete(server).text == "your key is [key]"
    assert KEY not in repr(Endpoint(server.url, "small", KEY))


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a/v1", "http://", "http://me:secret@host/v1", "http://host/v1?key=secret", ""]
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Endpoint(url, "small")
    assert "secret" not in str(caught.value)
