"""Conversations as text: a chat template applied to the `messages` of a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsecode.errors import CorpusUnreadable, in_a_line

Render = Callable[[list[dict[str, Any]]], str]


class Messages(str):
    """The key of conversations in tables, with the template that turns one into text."""

    render: Render

    def __new__(cls, key: str, render: Render) -> Messages:
        """Makes the key, an ordinary string, that carries the template."""
        made = super().__new__(cls, key)
        made.render = render
        return made

    def text(self, record: Any, where: str) -> str:
        """The conversation of a record as text.

        Raises:
            CorpusUnreadable: there is no conversation, or the template refuses it.
        """
        found = record.get(str(self)) if isinstance(record, dict) else None
        told = all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in found or [None])
        if not isinstance(found, list) or not told:
            keys = ", ".join(map(str, list(record)[:8])) if isinstance(record, dict) else type(record).__name__
            raise CorpusUnreadable(
                f"{where}: no conversation under '{self}' (found: {keys or 'nothing'})", remedy="chat_messages"
            )
        try:
            return self.render(found)
        except Exception as error:  # a template raises what its author chose, and jinja what is wrong in it
            raise CorpusUnreadable(
                f"{where}: the chat template refuses this conversation ({in_a_line(error)})", remedy="skip_bad"
            ) from error
