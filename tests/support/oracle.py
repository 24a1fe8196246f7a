"""A language model that knows the rules of `planted_text`: it explains by them, and answers by them.

It reads nothing but the message, as a model would, and recognises each question by its last lines.
"""

from __future__ import annotations

import hashlib
import json
import re

from planted_text import RULES, TEXTS
from sparsecode.interpretation.endpoint.questions import CLOSE, OPEN

EXPLAINS = '{"explanation": "in at most'  # what only the first question holds
_TOKENS = re.compile("|".join(re.escape(text) for text in sorted(TEXTS, key=len, reverse=True)))


def answer(message: str) -> str:
    """An answer to any question."""
    if EXPLAINS in message:
        return json.dumps({"explanation": _explain(message)})
    if "intruder" in message:
        return _intruder(message)
    rule = json.loads(message.split("active at: ")[1].split("\n")[0])
    if "How strongly" in message:
        tokens = json.loads(next(line for line in message.splitlines() if line.startswith("[")))
        return json.dumps([10 * RULES[rule][0](tokens, i) for i in range(len(tokens))])
    found = []
    for line in message.splitlines():
        if match := re.match(r"\d+\. (\".*\")$", line):
            tokens, places = read(json.loads(match[1]))
            found.append(int(any(RULES[rule][0](tokens, i) for i in places or range(len(tokens)))))
    return json.dumps(found)


def anything(message: str) -> str:
    """An answer that can be read and always is the same, by a model that knows nothing."""
    if EXPLAINS in message:
        return json.dumps({"explanation": "some words"})
    if "intruder" in message:
        return "[1]"
    n = int(re.findall(r"array of (\d+) numbers", message)[0])
    return json.dumps([byte % 2 for byte in hashlib.sha512(message.encode()).digest()[:n]])


def read(text: str) -> tuple[list[str], list[int]]:
    """The tokens of a text, and which of them are marked."""
    tokens: list[str] = []
    places: list[int] = []
    for part in re.split(f"({OPEN}.*?{CLOSE})", text, flags=re.DOTALL):
        own = _TOKENS.findall(part.removeprefix(OPEN).removesuffix(CLOSE))
        if part.startswith(OPEN):
            places += range(len(tokens), len(tokens) + len(own))
        tokens += own
    return tokens, places


def _explain(message: str) -> str:
    """The rule that tells marked tokens from others best."""
    texts = [read(json.loads(line)["text"]) for line in message.splitlines() if line.startswith('{"text"')]

    def gain(rule: str) -> float:
        hits = [(RULES[rule][0](tokens, i), i in places) for tokens, places in texts for i in range(len(tokens))]
        marked, other = ([hit for hit, is_marked in hits if is_marked == wanted] for wanted in (True, False))
        return sum(marked) / max(1, len(marked)) - sum(other) / max(1, len(other))

    return max(RULES, key=gain)


def _intruder(message: str) -> str:
    """The excerpt whose marked token is of no rule that all others are of."""
    texts = [read(json.loads(match)) for match in re.findall(r"^\d+\. (\".*\")$", message, re.MULTILINE)]
    for test, _ in RULES.values():
        fits = [test(tokens, places[0]) if places else False for tokens, places in texts]
        if sum(fits) == len(fits) - 1:
            return f"[{fits.index(False) + 1}]"
    return "[1]"
