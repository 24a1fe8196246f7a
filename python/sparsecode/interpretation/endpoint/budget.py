"""What calls cost, and a budget that their bill never exceeds: the most that a call can cost is reserved before it."""

from __future__ import annotations

import re
import threading
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from sparsecode.errors import InvalidSetting, MissingExtra

_MILLION = 1_000_000
# Beside its text a message costs the marks around it, and what the template of a model writes before it.
AROUND, _MOST_AROUND = 8, 256
# About what tokenizers of today's models make a token of: a short word with its space, up to three digits, a mark.
_PIECE = re.compile(r" ?[A-Za-z]{1,8}|\d{1,3}|[^\w\s]|\s+|\w")


@dataclass(frozen=True)
class Tokens:
    """Tokens that were read and written."""

    read: int = 0
    written: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.read + other.read, self.written + other.written)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.read - other.read, self.written - other.written)


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens, read and written; exact, so that sums are."""

    read: Decimal
    written: Decimal

    def of(self, tokens: Tokens) -> Decimal:
        """What so many tokens cost, in dollars."""
        return (tokens.read * self.read + tokens.written * self.written) / _MILLION

    @classmethod
    def parse(cls, text: str) -> Price:
        """A price as "0.15,0.60".

        Raises:
            InvalidSetting: it is not two numbers that are at least 0.
        """
        try:
            read, written = (Decimal(part.strip()) for part in text.split(","))
            if read.is_finite() and written.is_finite() and min(read, written) >= 0:
                return cls(read, written)
        except (InvalidOperation, ValueError):
            pass
        raise InvalidSetting(
            f"price '{text}': two numbers are needed, dollars for a million tokens in and out: 0.15,0.6"
        )

    @classmethod
    def known(cls, url: str, llm: str) -> Price | None:
        """The price of a model of a known provider, from the list that genai-prices comes with; None: not in it.

        Raises:
            MissingExtra: genai-prices is not installed.
        """
        try:
            from genai_prices import Usage, calc_price
        except ImportError as error:
            raise MissingExtra(
                "the prices of models are in the package genai-prices; run: pip install 'sparsecode[interpret]'"
            ) from error
        each = 1000
        try:
            found = calc_price(Usage(input_tokens=each, output_tokens=each), llm, provider_api_url=url)
        except LookupError:
            return None
        return cls(found.input_price * (_MILLION // each), found.output_price * (_MILLION // each))


def expected_tokens(text: str) -> int:
    """About how many tokens a text is."""
    return len(_PIECE.findall(text))


def most_tokens(text: str) -> int:
    """More tokens than any tokenizer makes of a message: no token is shorter than a byte, of the text or of its
    compatible form, which some tokenizers read instead.
    """
    return max(len(form.encode()) for form in (text, unicodedata.normalize("NFKC", text))) + _MOST_AROUND


class Budget:
    """What may be spent, in dollars and tokens, by calls that run side by side.

    Args:
        price: of tokens; needed where dollars are limited.
        usd, tokens: limits; None: none.
        spent: what was spent before.
    """

    def __init__(
        self,
        price: Price | None = None,
        usd: Decimal | None = None,
        tokens: int | None = None,
        spent: Tokens = Tokens(),
    ) -> None:
        self.price, self.usd, self.tokens, self.spent = price, usd, tokens, spent
        self.over = False  # whether a call did not fit
        self._reserved, self._running = Tokens(), 0
        self._changed = threading.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.usd is not None or self.tokens is not None

    def reserve(self, most: Tokens) -> bool:
        """Reserves the most that a call can cost. Waits while running calls may turn out to cost less than that.

        Returns:
            Whether there was enough. From the first call on for which there was not, there is for none.
        """
        with self._changed:
            while not self.over and not self._fits(self.spent + self._reserved + most):
                if not self._running:
                    self.over = True
                    self._changed.notify_all()
                    break
                self._changed.wait()
            if self.over:
                return False
            self._reserved, self._running = self._reserved + most, self._running + 1
            return True

    def settle(self, most: Tokens, used: Tokens) -> None:
        """Frees what was reserved for a call, and counts what it cost."""
        with self._changed:
            self._reserved, self._running = self._reserved - most, self._running - 1
            self.spent += used
            self._changed.notify_all()

    def said(self) -> str:
        """What of it is spent, in words."""
        count = f"{self.spent.read + self.spent.written:,} tokens"
        return count if self.price is None else f"{dollars(self.price.of(self.spent))}, {count}"

    def _fits(self, tokens: Tokens) -> bool:
        if self.tokens is not None and tokens.read + tokens.written > self.tokens:
            return False
        return self.usd is None or self.price is None or self.price.of(tokens) <= self.usd


def dollars(amount: Decimal) -> str:
    """An amount with cents, and with a hundredth of a cent below a dollar."""
    return f"${amount:.2f}" if amount >= 1 or not amount else f"${amount:.4f}"
