"""A process that asks an endpoint and writes the answers down: one that can be killed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sparsecode.interpretation.endpoint.budget import Budget
from sparsecode.interpretation.endpoint.calls import Answer, Calls, Ledger
from sparsecode.interpretation.endpoint.client import Client, Completes, Endpoint

LIMIT = 40  # tokens of an answer


def calls_of(path: Path, client: Completes, budget: Budget | None = None) -> Calls:
    return Calls(client, Ledger(path / "calls.jsonl", client.endpoint), budget or Budget(), pause=0.001)


def ask_all(calls: Calls, messages: Iterable[str], threads: int = 4) -> list[Answer]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda message: calls.ask(message, LIMIT), messages))


def ask_server(path: Path, url: str, messages: Iterable[str], threads: int) -> list[Answer]:
    with Client(Endpoint(url, "small")) as client:
        return ask_all(calls_of(path, client), messages, threads)


def work(path: Path, url: str, messages: list[str], threads: int) -> None:
    """Asks, and writes `answers.json`."""
    answers = ask_server(path, url, messages, threads)
    (path / "answers.json").write_text(json.dumps([one.text for one in answers]))
