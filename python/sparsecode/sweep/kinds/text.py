"""Kinds as people write them: `batchtopk k=8,16` is two, and `jumprelu l0=16 window=0.05` one.

A text is a kind and what it is given, separated by spaces. A value may be several, with commas or as LOW:HIGH:COUNT,
and a text stands for every combination; only `groups` is one value with commas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from sparsecode.errors import InvalidSetting
from sparsecode.sweep.kinds.spec import HELP, KEYS, WORDS, KindSpec, check_number, known_keys, unknown, wrong
from sparsecode.sweep.settings import log_spaced

_NUMBER = re.compile(r"[+-]?(\d{1,30}/\d{1,30}|(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,3})?)", re.ASCII)


def kinds_of(
    texts: Iterable[str | KindSpec], l1: Sequence[float], given: Mapping[str, str] | None = None
) -> list[KindSpec]:
    """The kinds of several texts; none: a ReLU of each coefficient.

    Args:
        texts: as `parse_kinds` reads them, or kinds.
        l1: coefficients of texts that need one and say none.
        given: values by key, for every text whose kind knows the key and that does not say its own.

    Raises:
        InvalidSetting: as `parse_kinds`; a key that is given and that no kind knows.
    """
    several = list(texts) or ["relu"]
    found: list[KindSpec] = []
    for text in several:
        found += [text] if isinstance(text, KindSpec) else parse_kinds(text, l1, given)
    for key in given or {}:
        if not any(key in KEYS[kind.name] for kind in found):
            raise unknown(found[0].name, key)
    return found


def parse_kinds(text: str, l1: Sequence[float] = (), more: Mapping[str, str] | None = None) -> list[KindSpec]:
    """The kinds that a text stands for, the values of its first key outermost, each ascending.

    Args:
        text: a kind and what it is given.
        l1: coefficients, where it needs one and says none.
        more: values by key, where it knows the key and says none.

    >>> [str(kind) for kind in parse_kinds("batchtopk k=16,8")]
    ['batchtopk k=8', 'batchtopk k=16']
    >>> [kind.file_name(512, 0) for kind in parse_kinds("relu l1=1e-3:1e-1:3")]
    ['n512_l1-0.001_s0', 'n512_l1-0.01_s0', 'n512_l1-0.1_s0']
    >>> parse_kinds("matryoshka k=32")[0].ends(512)
    (32, 96, 224, 512)

    Raises:
        InvalidSetting: a kind that is unknown, a key that it does not know, or a value that cannot be.
    """
    name, *items = text.split() or [""]
    known = known_keys(name)
    given: dict[str, list[Any]] = {}
    for item in items:
        key, equals, values = item.partition("=")
        if not equals:
            raise InvalidSetting(f"{name}: '{item}' is not KEY=VALUE; {HELP}")
        if key not in known:
            raise unknown(name, key)
        if key in given:
            raise InvalidSetting(f"{name}: {key} is given twice; separate values with commas, as in {key}=8,16")
        given[key] = _values(name, key, values)
    for key, values in (more or {}).items():
        if key in known and key not in given:
            given[key] = _values(name, key, values)
    if l1 and "l1" in known and "l1" not in given:
        given["l1"] = list(l1)
    order = [key for key in known if key in given]
    return [
        KindSpec(name, **dict(zip(order, chosen, strict=True))) for chosen in product(*(given[key] for key in order))
    ]


def _values(name: str, key: str, text: str) -> list[Any]:
    """The values of a key, each once, numbers ascending."""
    items = text.split(",")
    if key == "groups":
        return [tuple(_fraction(name, key, item) for item in items)]
    if key in WORDS:
        others = [item for item in items if item not in WORDS[key]]
        if others:
            raise wrong(name, key, others[0], " or ".join(WORDS[key]))
        return list(dict.fromkeys(WORDS[key][item] for item in items))
    numbers: set[float] = set()
    for item in items:
        numbers.update(_spaced(name, key, item) if ":" in item else [_real(name, key, item)])
    for number in numbers:
        check_number(name, key, number)
    return sorted(numbers)


def _spaced(name: str, key: str, text: str) -> list[float]:
    """The values of LOW:HIGH:COUNT, log-spaced."""
    parts = text.split(":")
    low, high = (_real(name, key, part) for part in parts[:2])
    count = int(parts[2]) if len(parts) == 3 and re.fullmatch(r"\d{1,4}", parts[2]) else 0
    if not (0 < low < high < math.inf and count >= 2):
        raise wrong(name, key, text, "LOW:HIGH:COUNT with 0 < LOW < HIGH and a count of 2 to 9999")
    return log_spaced(low, high, count)


def _fraction(name: str, key: str, text: str) -> Fraction:
    """A number as it is written: 0.05, 5e-2 or 1/20."""
    top, _, bottom = text.partition("/")
    if _NUMBER.fullmatch(text) and (not bottom or int(bottom)):
        return Fraction(top) / Fraction(bottom or 1)
    raise wrong(name, key, text, "a number, as 0.05 or 1/20")


def _real(name: str, key: str, text: str) -> float:
    """The nearest float, or infinity."""
    try:
        return float(_fraction(name, key, text))
    except OverflowError:
        return math.inf
