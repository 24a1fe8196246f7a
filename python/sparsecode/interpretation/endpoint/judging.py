"""Explains directions with a language model, and scores the explanations with it on excerpts of the other half.

detection   in which excerpts is the direction active: balanced accuracy (the mean of the shares of active and of other
            excerpts that are told right), 0.5 for whoever always says the same
fuzzing     at which marked tokens it is active: balanced accuracy
simulation  how strongly it is active at each token of active and other excerpts: correlation
intruder    which of five excerpts is the one without activity: share told right, 0.2 by chance; asks for no explanation

A score counts only answers that could be read, and is there only where those are at least `ENOUGH` of its calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from sparsecode.interpretation.endpoint.budget import AROUND, Tokens, expected_tokens, most_tokens
from sparsecode.interpretation.endpoint.calls import Answer, Calls, Ledger
from sparsecode.interpretation.endpoint.questions import (
    LONGEST,
    OF_CALL,
    Question,
    Unreadable,
    to_detect,
    to_explain,
    to_find_the_intruder,
    to_fuzz,
    to_simulate,
)
from sparsecode.interpretation.examples import ASKED, Excerpt, Material
from sparsecode.interpretation.groups import Direction, generator
from sparsecode.interpretation.scores import correlation
from sparsecode.interpretation.words import NOTHING
from sparsecode.watch import UNWATCHED, Watch

SCORERS = ("detection", "fuzzing", "simulation", "intruder")
ENOUGH = 0.8  # share of a scorer's calls
_SIMULATED, _TRIALS, _OTHERS = 5, 10, 4  # excerpts of either kind; intruders, and active excerpts beside each
_MOST_BYTES = 4  # of a letter

Ask = Callable[[Question], Answer]
_Told = list[tuple[Question, list[float]]]  # questions that were answered, with what was said


@dataclass(frozen=True)
class Judged:
    """What a language model said of a direction.

    Attributes:
        explanation: its words; `words.NOTHING` where it found nothing, and empty where there is none for a `reason`.
        reason: why the direction is incomplete; empty where it is not.
        scores: by measure, those that there are.
        calls: by scorer, how many calls could be read, and of how many.
        unread: why others could not, and how many.
    """

    explanation: str = ""
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    calls: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For interpretations.json."""
        about = {"reason": self.reason, "unread": dict(sorted(self.unread.items()))}
        return {
            "explanation": self.explanation or None,
            "scores": {name: round(value, 6) for name, value in self.scores.items()},
            "calls": {name: list(counts) for name, counts in self.calls.items()},
        } | {name: value for name, value in about.items() if value}


class Forecast:
    """Answers questions without asking anybody, to know how many there are, how long, and how many were answered.

    Attributes:
        calls, kept: questions to be asked, and those whose answers are kept; each once, as it is asked once.
        expected, most: tokens of the former.
    """

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self._ledger, self._limit = ledger, limit
        self.calls, self.kept = 0, 0
        self._seen: set[str] = set()
        self.expected, self.most = Tokens(), Tokens()

    def ask(self, question: Question) -> Answer:
        """The kept answer, or one as it may be."""
        call = self._ledger.digest(question.message, self._limit)
        known, again = self._ledger.answers.get(call), call in self._seen
        self._seen.add(call)
        if known is not None:
            self.kept += not again
            return known
        if again:
            return Answer(question.typical)
        self.calls += 1
        longer = _MOST_BYTES * LONGEST * question.explained  # than the explanation that stands in it now
        self.expected += Tokens(expected_tokens(question.message) + AROUND, question.expected_answer)
        self.most += Tokens(most_tokens(question.message) + longer, self._limit)
        return Answer(question.typical)


def judge(direction: Direction, material: Material, scorers: Sequence[str], seed: int, ask: Ask) -> Judged:
    """Has a direction explained, and the explanation scored.

    Args:
        direction: which.
        material: its excerpts.
        scorers: some of `SCORERS`.
        seed: of the order of excerpts.
        ask: answers questions.
    """
    said, why = _told(to_explain(material.shown, material.alike), ask)
    reason = f"no explanation: {why}" if why else ""
    unread, calls, scores = Counter([why] if why else []), dict[str, tuple[int, int]](), dict[str, float]()
    for scorer in scorers:
        if said is None and scorer != "intruder":
            scores |= {} if why else {scorer: _CHANCE[scorer]}
            continue
        draw = generator(f"{direction.group} {direction.dictionary} {direction.feature} {scorer}", seed)
        found = [(question, *_told(question, ask)) for question in _QUESTIONS[scorer](said, material, draw)]
        read = [(question, numbers) for question, numbers, failed in found if not failed]
        unread.update(failed for *_, failed in found if failed)
        calls[scorer] = len(read), len(found)
        if len(read) >= ENOUGH * len(found):
            scores |= _SCORES[scorer](read)
        reason = reason or (f"{scorer}: too few answers" if scorer not in scores else "")
    return Judged(NOTHING if said is None and not why else said or "", reason, scores, calls, unread)


def judge_all(
    materials: Mapping[Direction, Material | str],
    scorers: Sequence[str],
    seed: int,
    calls: Calls,
    limit: int,
    concurrency: int,
    watch: Watch = UNWATCHED,
) -> dict[Direction, Judged]:
    """`judge` for many directions, side by side; what each comes to depends on no other, nor on their order.

    Args:
        materials: excerpts, or why there are none.
        scorers, seed: see `judge`.
        calls: answers questions.
        limit: tokens of an answer.
        concurrency: calls that run at the same time.
        watch: what it is watched with.

    Raises:
        EndpointFailed: there is no use in asking.
    """

    def one(direction: Direction, found: Material | str) -> Judged:
        if isinstance(found, str):
            return Judged(reason=found)
        return judge(direction, found, scorers, seed, lambda question: calls.ask(question.message, limit))

    judged = {}
    with watch.task("interpret: asking", len(materials), "directions") as progress:
        pool = ThreadPoolExecutor(concurrency)
        try:
            for direction, found in zip(materials, pool.map(one, materials, materials.values()), strict=True):
                judged[direction] = found
                progress.advance(1)
        finally:
            calls.stop()
            pool.shutdown(cancel_futures=True)
    return judged


def forecast(
    materials: Mapping[Direction, Material | str], scorers: Sequence[str], seed: int, ledger: Ledger, limit: int
) -> Forecast:
    """How many calls `judge_all` will make, and of how many tokens."""
    found = Forecast(ledger, limit)
    for direction, own in materials.items():
        if isinstance(own, Material):
            judge(direction, own, scorers, seed, found.ask)
    return found


def _told(question: Question, ask: Ask) -> tuple[Any, str]:
    """What an answer says, and why nothing can be made of it."""
    answer = ask(question)
    if answer.reason:
        return None, answer.reason
    try:
        return question.read(answer.text), ""
    except Unreadable as error:
        return None, str(error)


def _detections(explanation: str, own: Material, draw: np.random.Generator) -> list[Question]:
    items = [*_named("active", own.active), *_named("random", own.random[:ASKED]), *_named("hard", own.hard)]
    return [to_detect(explanation, part) for part in _parts(items, draw)]


def _fuzzings(explanation: str, own: Material, draw: np.random.Generator) -> list[Question]:
    items = [*_named("active", own.active), *_named("marked", own.marked), *_named("hard", own.hard)]
    return [to_fuzz(explanation, part) for part in _parts(items, draw)]


def _simulations(explanation: str, own: Material, draw: np.random.Generator) -> list[Question]:
    return [to_simulate(explanation, one) for one in [*own.active[:_SIMULATED], *_spare(own)[:_SIMULATED]]]


def _intruders(_: str | None, own: Material, draw: np.random.Generator) -> list[Question]:
    questions = []
    for other in _spare(own)[:_TRIALS]:
        chosen = [own.active[i] for i in draw.permutation(len(own.active))[:_OTHERS]]
        place = int(draw.integers(len(chosen) + 1))
        questions.append(to_find_the_intruder([*chosen[:place], other, *chosen[place:]], place))
    return questions


def _spare(own: Material) -> list[Excerpt]:
    """Excerpts without activity that detection does not ask about, where there are so many."""
    return own.random[ASKED:] or own.random


def _named(kind: str, excerpts: Iterable[Excerpt]) -> Iterator[tuple[str, Excerpt]]:
    return ((kind, one) for one in excerpts)


def _parts(items: Sequence[tuple[str, Excerpt]], draw: np.random.Generator) -> list[list[tuple[str, Excerpt]]]:
    """Items in an order that tells nothing, in parts of about the same size for a call each."""
    order = np.array_split(draw.permutation(len(items)), -(-len(items) // OF_CALL))
    return [[items[i] for i in part] for part in order]


def _balanced(read: _Told, against: str | None = None) -> float | None:
    """Mean share of what is true and of what is false that was told right; None where there is only one of them.

    Args:
        read: answered questions.
        against: only this kind beside what is active; None: all.
    """
    right: dict[float, list[bool]] = {}
    for question, numbers in read:
        for kind, true, said in zip(question.kinds, question.truth, numbers, strict=True):
            if against is None or kind in ("active", against):
                right.setdefault(true, []).append(true == said)
    return None if len(right) < 2 else sum(sum(own) / len(own) for own in right.values()) / 2


def _told_right(scorer: str, kinds: Sequence[str]) -> Callable[[_Told], dict[str, float]]:
    """The scores of a scorer of yes and no: over all excerpts, and against each kind of those without activity."""

    def score(read: _Told) -> dict[str, float]:
        found = {scorer: _balanced(read)} | {f"{scorer}_{kind}": _balanced(read, kind) for kind in kinds}
        return {name: value for name, value in found.items() if value is not None}

    return score


def _simulated(read: _Told) -> dict[str, float]:
    truth, said = (
        np.array(list(chain.from_iterable(own))) for own in zip(*((q.truth, n) for q, n in read), strict=True)
    )
    return {"simulation": correlation(said, truth)}


def _found_out(read: _Told) -> dict[str, float]:
    return {"intruder": sum(numbers == list(question.truth) for question, numbers in read) / len(read)}


_QUESTIONS: dict[str, Callable[[Any, Material, np.random.Generator], list[Question]]] = {
    "detection": _detections, "fuzzing": _fuzzings, "simulation": _simulations, "intruder": _intruders,
}  # fmt: skip
_SCORES: dict[str, Callable[[_Told], dict[str, float]]] = {
    "detection": _told_right("detection", ("random", "hard")), "fuzzing": _told_right("fuzzing", ("marked", "hard")),
    "simulation": _simulated, "intruder": _found_out,
}  # fmt: skip
_CHANCE = {"detection": 0.5, "fuzzing": 0.5, "simulation": 0.0}  # where nothing was found to ask about
