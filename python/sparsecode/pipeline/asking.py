"""The part of the interpret stage that asks a language model: whom, for how much, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sparsecode.errors import InvalidSetting
from sparsecode.interpretation.endpoint.budget import Budget, Price, dollars
from sparsecode.interpretation.endpoint.calls import Calls, Ledger
from sparsecode.interpretation.endpoint.client import Client, Endpoint
from sparsecode.interpretation.endpoint.judging import Forecast, Judged, forecast, judge_all
from sparsecode.interpretation.examples import Material
from sparsecode.interpretation.groups import Direction
from sparsecode.pipeline.config import InterpretConfig
from sparsecode.watch import Watch, human

Materials = Mapping[Direction, Material | str]  # what there is to show of a direction, or why there is nothing
_OPENAI = ("https://api.openai.com/", "OPENAI_API_KEY")  # the one host whose variable is read without being named


@dataclass(eq=False)
class Asking:
    """An endpoint that is to be asked about directions.

    Attributes:
        config: the settings of the stage.
        client: who is asked.
        path: where calls are kept.
        price: of tokens; None: not known.
    """

    config: InterpretConfig
    client: Client
    path: Path
    price: Price | None

    @classmethod
    def of(cls, config: InterpretConfig, path: Path) -> Asking:
        """Reads the key from the environment and finds the price.

        Raises:
            InvalidSetting: no model is named, the key is not there, or a budget is in dollars and the price not known.
            MissingExtra: packages that this needs are not installed.
        """
        if config.llm is None:
            raise InvalidSetting("interpret: --endpoint needs the name of a model there; name it with --llm")
        endpoint = Endpoint(str(config.endpoint), config.llm)
        endpoint = Endpoint(endpoint.url, endpoint.llm, _key(config, endpoint))
        price = Price.known(endpoint.url, endpoint.llm) if config.price is None else Price.parse(config.price)
        if price is None and config.budget is not None:
            raise InvalidSetting(
                f"interpret: the price of {endpoint.llm} at {endpoint.host} is not known, so that --budget cannot be "
                "kept; give it with --price IN,OUT (dollars for a million tokens), or limit --budget-tokens"
            )
        limited = config.budget is not None or config.budget_tokens is not None
        return cls(config, Client(endpoint, bounded=limited), path, price)

    @property
    def endpoint(self) -> Endpoint:
        """Where."""
        return self.client.endpoint

    def forecast(self, materials: Materials) -> dict[str, Any]:
        """What asking about directions would take.

        Returns:
            {"host", "llm", "calls", "kept": answers from before, "tokens": {"expected", "most"} of [in, out], "usd":
            {"expected", "most"}, or None where the price is not known}.
        """
        found = self._forecast(materials, Ledger(self.path, self.endpoint))
        tokens = {"expected": found.expected, "most": found.most}
        return {
            "host": self.endpoint.host,
            "llm": self.endpoint.llm,
            "calls": found.calls,
            "kept": found.kept,
            "tokens": {name: [own.read, own.written] for name, own in tokens.items()},
            "usd": self.price and {name: float(self.price.of(own)) for name, own in tokens.items()},
        }

    def ask(self, materials: Materials, watch: Watch) -> dict[Direction, Judged]:
        """Says what is about to be sent and what it costs, and asks.

        Raises:
            EndpointFailed: there is no use in asking.
        """
        ledger, config = Ledger(self.path, self.endpoint), self.config
        usd = None if config.budget is None else Decimal(str(config.budget))
        self._budget = Budget(self.price, usd, config.budget_tokens, ledger.spent)
        watch.note(told(self.forecast(materials)))
        if self._budget.limited:
            limits = [dollars(usd)] if usd is not None else []
            limits += [f"{config.budget_tokens:,} tokens"] if config.budget_tokens is not None else []
            watch.note(f"interpret: budget of {' and '.join(limits)}; spent before: {self._budget.said()}")
        calls = Calls(self.client, ledger, self._budget)
        with self.client:
            judged = judge_all(materials, config.scorers.split(","), config.seed, calls, config.answer_tokens,
                               config.concurrency, watch)  # fmt: skip
        self._after = self._forecast(materials, ledger)
        if self._budget.over:
            watch.note(f"interpret: the budget is spent ({self._budget.said()}), {self._after.calls:,} calls are left; "
                       "go on with a larger one and --force: no answer is paid for twice")  # fmt: skip
        elif self._after.calls:
            watch.note(f"interpret: {self._after.calls:,} calls brought no answer; --force makes these again, and pays "
                       "for no other twice")  # fmt: skip
        return judged

    def record(self) -> dict[str, Any]:
        """For interpretations.json, after `ask`: what the same answers always come to."""
        return {"host": self.endpoint.host, "llm": self.endpoint.llm, "answers": self._after.kept,
                "left": self._after.calls}  # fmt: skip

    def result(self) -> dict[str, Any]:
        """For the stage's record, after `ask`."""
        return {"answers": self._after.kept, "left": self._after.calls, "spent": self._budget.said()}

    def _forecast(self, materials: Materials, ledger: Ledger) -> Forecast:
        config = self.config
        return forecast(materials, config.scorers.split(","), config.seed, ledger, config.answer_tokens)


def told(found: Mapping[str, Any]) -> str:
    """A forecast in words."""

    def size(kind: str) -> str:
        read, written = found["tokens"][kind]
        price = "price unknown" if found["usd"] is None else dollars(Decimal(found["usd"][kind]))
        return f"{human(read)} tokens in and {human(written)} out ({price})"

    kept = f", {found['kept']:,} answers are kept" if found["kept"] else ""
    return (
        f"interpret: {found['calls']:,} calls to {found['llm']} at {found['host']}{kept}: about "
        f"{size('expected')}, at most {size('most')}; excerpts of the text and explanations are sent there"
    )


def _key(config: InterpretConfig, endpoint: Endpoint) -> str:
    """The key of the variable that is named; of OpenAI's own for OpenAI's own host alone."""
    name = config.key_env
    if name is None:
        url, name = _OPENAI
        if not endpoint.url.startswith(url):
            return ""
    if not (key := os.environ.get(name, "").strip()):
        raise InvalidSetting(f"interpret: the environment variable {name} is to hold the key, and is empty; --key-env "
                             "names another one")  # fmt: skip
    return key
