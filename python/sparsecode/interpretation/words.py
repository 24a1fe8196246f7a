"""Explanations in English: "` self` after `(`, most; else any word in -ing"."""

from __future__ import annotations

from collections.abc import Sequence

from sparsecode.interpretation.atoms import LAST, Atom
from sparsecode.interpretation.rules import Explanation, Rule

NOTHING = "nothing found"
_LESS, _LITTLE = 0.6, 0.3  # shares of the highest level below which a rule's is said to be less, or little
_HEADS = ("token", "word", "class")  # what can stand alone; everything else says more of it


def text_of(explanation: Explanation) -> str:
    """An explanation as a sentence without its end; `NOTHING` where it has no rule."""
    if not explanation.rules:
        return NOTHING
    top = max(rule.level for rule in explanation.rules)
    varied = min(rule.level for rule in explanation.rules) < _LESS * top
    return "; else ".join(_rule(rule, top if varied else 0.0) for rule in explanation.rules)


def quoted(text: str) -> str:
    """A token or a word between back quotes, with line ends and other unprintable characters spelled."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    mark = "``" if "`" in shown else "`"
    return f"{mark}{shown}{mark}"


def _rule(rule: Rule, top: float) -> str:
    heads = [_HEAD[one.kind].format(_value(one)) for one in rule.atoms if one.kind in _HEADS]
    more = [_MORE[one.kind].format(_value(one)) for one in rule.atoms if one.kind not in _HEADS]
    phrase = " ".join([" that is ".join(_one_any(heads)) or "anything", " and ".join(more)]).strip()
    return phrase + _strength(rule.level, top)


def _one_any(heads: Sequence[str]) -> list[str]:
    """The heads, those after the first as what the first one is: "any word in -s that is a capitalised word"."""
    return [head if not place else head.replace("any ", _article(head.removeprefix("any ")), 1)
            for place, head in enumerate(heads)]  # fmt: skip


def _article(noun: str) -> str:
    return "an " if noun[:1] in "aeiou" else "a "


def _strength(level: float, top: float) -> str:
    if not top:
        return ""
    if level >= _LESS * top:
        return ", most"
    return ", less" if level >= _LITTLE * top else ", a little"


def _value(atom: Atom) -> str:
    return atom.value if atom.kind in ("class", "after", "state") else quoted(atom.value)


_HEAD = {"token": "{}", "word": "the word {}", "class": "any {}"}
_MORE = {
    "previous": "after {}",
    "before": "two after {}",
    "last": "with {} among the last " + str(LAST) + " tokens",
    "after": "after any {}",
    "state": "{}",
}
