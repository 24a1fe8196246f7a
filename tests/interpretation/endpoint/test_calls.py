"""Every question is paid for once, within the budget, whatever the endpoint does and whenever the process is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from asking_process import LIMIT, ask_all, ask_server, calls_of, work
from fake_endpoint import Call, FakeEndpoint, Fault, usage
from sparsecode.errors import EndpointFailed
from sparsecode.interpretation.endpoint.budget import Budget, Price, Tokens, most_tokens
from sparsecode.interpretation.endpoint.calls import ATTEMPTS, HOPELESS, SPENT, Answer, Calls, Ledger
from sparsecode.interpretation.endpoint.client import CallFailed, Endpoint, Reply

HERE = Endpoint("http://127.0.0.1:1/v1", "small")


class Stub:
    """A client that asks nobody."""

    def __init__(self, reply: Callable[[str], Reply], endpoint: Endpoint = HERE) -> None:
        self.reply, self.endpoint = reply, endpoint
        self.asked: list[str] = []

    def complete(self, message: str, limit: int) -> Reply:
        self.asked.append(message)
        return self.reply(message)


def echo(message: str) -> Reply:
    return Reply(message.upper(), "", usage(message, message))


def test_an_answer_is_asked_for_once(tmp_path: Path) -> None:
    stub = Stub(echo)
    assert (
        ask_all(calls_of(tmp_path, stub), ["a", "b", "a", "a"] * 5)
        == [Answer("A"), Answer("B"), *[Answer("A")] * 2] * 5
    )
    assert sorted(stub.asked) == ["a", "b"]
    again = Stub(echo)
    assert ask_all(calls_of(tmp_path, again), ["a", "b", "c"]) == [Answer("A"), Answer("B"), Answer("C")]
    assert again.asked == ["c"]
    for other in (Endpoint("http://127.0.0.1:2/v1", "small"), Endpoint(HERE.url, "large")):
        elsewhere = Stub(echo, other)
        calls_of(tmp_path, elsewhere).ask("a", LIMIT)
        assert elsewhere.asked == ["a"], "the same model of another host is another one"
    longer = Stub(echo)
    calls_of(tmp_path, longer).ask("a", 2 * LIMIT)
    assert longer.asked == ["a"], "an answer that was cut off may be asked for with more room"


def test_an_answer_that_is_none_is_kept_and_a_failure_is_not(tmp_path: Path) -> None:
    def reply(message: str) -> Reply:
        if message == "bad":
            raise CallFailed("HTTP 400")
        return Reply("", "cut off", Tokens(5, LIMIT))

    stub = Stub(reply)
    for _ in range(2):
        calls = calls_of(tmp_path, stub)
        assert [calls.ask(message, LIMIT).reason for message in ("long", "bad")] == ["cut off", "HTTP 400"]
    assert stub.asked == ["long", "bad", "bad"]


def test_a_failure_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    left = Counter({"twice": 2, "always": 99})

    def reply(message: str) -> Reply:
        if left[message] > 0:
            left[message] -= 1
            raise CallFailed("HTTP 500", again=True)
        return echo(message)

    stub = Stub(reply)
    calls = calls_of(tmp_path, stub)
    assert calls.ask("twice", LIMIT) == Answer("TWICE")
    assert calls.ask("always", LIMIT) == Answer(reason="HTTP 500")
    assert Counter(stub.asked) == {"twice": 3, "always": ATTEMPTS}


def test_what_may_have_been_billed_is_counted(tmp_path: Path) -> None:
    def reply(message: str) -> Reply:
        if message == "lost":
            raise CallFailed("timed out", billed=True)
        return Reply("x", "", None if message == "silent" else Tokens(3, 2))

    budget = Budget()
    calls = calls_of(tmp_path, Stub(reply), budget)
    for message in ("lost", "silent", "usual"):
        calls.ask(message, LIMIT)
    most = sum(most_tokens(message) + LIMIT for message in ("lost", "silent"))
    assert budget.spent.read + budget.spent.written == most + 5
    assert Ledger(tmp_path / "calls.jsonl", HERE).spent == budget.spent


def test_nobody_calls_earlier_than_was_asked_for(tmp_path: Path) -> None:
    with FakeEndpoint(
        lambda message: message,
        lambda call: Fault(status=429, headers={"retry-after": "1.5"}) if call.number == 3 else None,
        delay=0.02,
    ) as server:
        ask_server(tmp_path, server.url, [str(i) for i in range(12)], 4)
        refused = server.calls[3].time
        # Others were on their way when it was refused.
        assert not [call for call in server.calls if refused + 0.7 < call.time < refused + 1.5]
        assert [call for call in server.calls if call.time >= refused + 1.5]
        assert len(server.calls) == 13


def test_a_long_wait_ends_it(tmp_path: Path) -> None:
    def reply(_: str) -> Reply:
        raise CallFailed("HTTP 429", again=True, wait=3600)

    stub = Stub(reply)
    with pytest.raises(EndpointFailed, match="asks to wait for 3600 seconds; the same command goes on"):
        ask_all(calls_of(tmp_path, stub), list("abcdef"))
    assert len(stub.asked) == 1


def test_a_key_that_is_not_accepted_ends_it_after_one_call(tmp_path: Path) -> None:
    with FakeEndpoint(str, lambda _: Fault(status=401, error={"message": "no"})) as server:
        with pytest.raises(EndpointFailed, match="HTTP 401") as caught:
            ask_server(tmp_path, server.url, list("abcdefgh"), 8)
        assert len(server.calls) == 1 and caught.value.exit_code == 3


def test_where_nobody_answers_it_ends(tmp_path: Path) -> None:
    def reply(_: str) -> Reply:
        raise CallFailed("HTTP 400")

    stub = Stub(reply)
    with pytest.raises(EndpointFailed, match="in a row brought no answer, the last for: HTTP 400"):
        ask_all(calls_of(tmp_path, stub), [str(i) for i in range(50)], threads=1)
    assert len(stub.asked) == HOPELESS


def test_parameters_are_learnt_by_the_first_call_alone(tmp_path: Path) -> None:
    def picky(call: Call) -> Fault | None:
        return (
            Fault(status=400, error={"message": "max_tokens is not supported"}) if "max_tokens" in call.body else None
        )

    with FakeEndpoint(str, picky, delay=0.01) as server:
        ask_server(tmp_path, server.url, [str(i) for i in range(20)], 8)
        assert len(server.calls) == 21


def budget_run(path: Path, seed: int) -> tuple[Decimal, Decimal, bool]:
    """A run of random prices, sizes and concurrency: what was billed, the budget, and whether it was spent."""
    draw = random.Random(seed)
    price = Price(Decimal(draw.randrange(1, 4000)) / 100, Decimal(draw.randrange(1, 9000)) / 100)
    billed: list[Tokens] = []

    def reply(message: str) -> Reply:
        own = random.Random(f"{seed} {message}")
        if own.random() < 0.2:
            time.sleep(own.random() * 0.002)
        used = Tokens(int(len(message) * own.uniform(0.2, 0.6)), own.randrange(1, LIMIT + 1))
        billed.append(used)
        return Reply("x", "", used)

    messages = [f"{i} " + "word " * draw.randrange(20, 300) for i in range(draw.randrange(10, 80))]
    largest = max(price.of(Tokens(most_tokens(message), LIMIT)) for message in messages)
    usd = largest * Decimal(draw.uniform(5, 25))
    budget = Budget(price, usd)
    ask_all(calls_of(path, Stub(reply), budget), messages, threads=draw.randrange(1, 17))
    return price.of(sum(billed, Tokens())), usd, budget.over


def test_the_bill_stays_within_the_budget(tmp_path: Path) -> None:
    over = 0
    for seed in range(200):
        billed, usd, spent = budget_run(tmp_path / str(seed), seed)
        assert billed <= usd
        over += spent
        assert not spent or billed >= usd * Decimal("0.8")
    assert 50 < over < 190, "both happen"


def test_a_spent_budget_goes_on_where_it_is_raised(tmp_path: Path) -> None:
    messages = [f"{i} " + "word " * 30 for i in range(30)]
    stub = Stub(echo)
    first = ask_all(calls_of(tmp_path, stub, Budget(tokens=2000)), messages)
    done = len(stub.asked)
    assert 0 < done < 30 and [one.reason for one in first].count(SPENT) == 30 - done
    ledger = Ledger(tmp_path / "calls.jsonl", HERE)
    calls = Calls(stub, ledger, Budget(tokens=50_000, spent=ledger.spent))
    assert not any(one.reason for one in ask_all(calls, messages))
    assert len(stub.asked) == 30


def test_killed_at_any_moment_nothing_is_paid_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, kills, draw = 4, 20, random.Random(0)
    messages = [f"question {i}" for i in range(1500)]
    processes = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the server that the processes are forks of
    processes.set_forkserver_preload(["asking_process", "openai", "pytest"])
    with FakeEndpoint(lambda message: message[::-1], delay=0.002) as server:
        for _ in range(kills):
            process = processes.Process(target=work, args=(tmp_path, server.url, messages, threads))
            before = len(server.calls)
            process.start()
            while process.is_alive() and len(server.calls) == before:
                time.sleep(0.001)
            time.sleep(draw.random() * 0.03)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert not (tmp_path / "answers.json").exists(), "the last one was killed too"
        work(tmp_path, server.url, messages, threads)
        asked = Counter(call.message for call in server.calls)
        assert set(asked) == set(messages) and sum(asked.values()) - len(messages) <= threads * kills
        billed = server.billed
        spent = Ledger(tmp_path / "calls.jsonl", Endpoint(server.url, "small")).spent
        assert spent.read >= billed.read and spent.written >= billed.written, "what was lost counts as paid"
        unbroken = tmp_path / "unbroken"
        work(unbroken, server.url, messages, threads)
    assert (unbroken / "answers.json").read_bytes() == (tmp_path / "answers.json").read_bytes()


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    stub = Stub(echo)
    calls_of(tmp_path, stub).ask("a", LIMIT)
    calls_of(tmp_path, stub).ask("b", LIMIT)
    file = tmp_path / "calls.jsonl"
    whole = file.read_bytes()
    for cut in range(len(whole) - len(whole.splitlines()[-1]), len(whole)):
        file.write_bytes(whole[:cut])
        assert Ledger(file, HERE).answers.keys() == {Ledger(file, HERE).digest("a", LIMIT)}
        calls_of(tmp_path, stub).ask("b", LIMIT)
        assert len(Ledger(file, HERE).answers) == 2
    assert Ledger(file, HERE).spent.read > 0


def test_stop_lets_no_other_call_begin(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def reply(message: str) -> Reply:
        begun.set()
        go.wait(10)
        return echo(message)

    stub = Stub(reply)
    calls = calls_of(tmp_path, stub)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(calls.ask, message, LIMIT) for message in "abcd"]
        begun.wait(10)
        calls.stop()
        go.set()
        assert sorted(bool(one.result().text) for one in found) == [False, False, False, True]
    assert len(stub.asked) == 1
