"""Prices, estimates, and a budget that holds at any concurrency."""

from __future__ import annotations

import sys
import threading
from decimal import Decimal

import pytest

from sparsecode.errors import InvalidSetting, MissingExtra
from sparsecode.interpretation.endpoint.budget import Budget, Price, Tokens, dollars, expected_tokens, most_tokens


def test_prices() -> None:
    price = Price.parse("0.15, 0.60")
    assert price.of(Tokens(2_000_000, 500_000)) == Decimal("0.6")
    assert Price.parse("0,0").of(Tokens(10, 10)) == 0
    for text in ("", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1"):
        with pytest.raises(InvalidSetting, match="two numbers"):
            Price.parse(text)
    spelled = [dollars(Decimal(text)) for text in ("0", "0.00123", "0.4", "12.346")]
    assert spelled == ["$0.00", "$0.0012", "$0.4000", "$12.35"]


def test_known_prices_are_those_of_the_host() -> None:
    assert Price.known("https://api.openai.com/v1", "gpt-4o-mini") == Price(Decimal("0.15"), Decimal("0.6"))
    assert Price.known("http://localhost:8000/v1", "gpt-4o-mini") is None, "what a model costs elsewhere says nothing"
    assert Price.known("https://api.openai.com/v1", "no such model") is None


def test_without_the_list_of_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(MissingExtra, match=r"sparsecode\[interpret\]"):
        Price.known("https://api.openai.com/v1", "gpt-4o-mini")


@pytest.mark.parametrize("text", ["The quick brown fox.", "self.x = [1, 2]\n" * 9, "日本語", "\ufdfa" * 5, "🙂"])
def test_no_estimate_is_above_the_most(text: str) -> None:
    assert expected_tokens(text) < most_tokens(text)
    assert most_tokens(text) >= len(text.encode())


def test_a_budget_is_never_exceeded_and_waits_for_running_calls() -> None:
    budget = Budget(tokens=100)
    assert budget.reserve(Tokens(60, 20))
    waiting = threading.Thread(target=lambda: reserved.append(budget.reserve(Tokens(40, 10))))
    reserved: list[bool] = []
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive() and not reserved
    budget.settle(Tokens(60, 20), Tokens(30, 5))
    waiting.join()
    assert reserved == [True] and budget.spent == Tokens(30, 5)
    budget.settle(Tokens(40, 10), Tokens(40, 10))
    assert not budget.reserve(Tokens(16, 0)) and budget.over
    assert not budget.reserve(Tokens(1, 0)), "from then on nothing fits"


def test_dollars_are_exact() -> None:
    budget = Budget(Price.parse("0.1,0.2"), Decimal("0.0000003"))
    for _ in range(3):
        assert budget.reserve(Tokens(1, 0))
        budget.settle(Tokens(1, 0), Tokens(1, 0))
    assert not budget.reserve(Tokens(1, 0))
    assert budget.said() == "$0.0000, 3 tokens"
