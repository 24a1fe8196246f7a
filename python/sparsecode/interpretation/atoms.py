"""The grammar's predicates: everything that an explanation may say of a token from the text up to it.

    token, word          the token itself, and with spaces and capitals folded
    previous, before     the token before it, and the one before that
    last                 a word among the eight tokens before it
    class, after         a class that the token, or the one before it, is in (see `vocabulary`)
    state                where it stands: on its line, in quotes or brackets, and what is repeated

No predicate looks at activations, nor beyond a context or at later tokens. Only predicates that hold often enough on
the fitting half are kept.

Shape letters: R rows, V vocabulary, M predicates, W most predicates that hold at one row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsecode.interpretation.sample import Mask, Numbers, Sample
from sparsecode.interpretation.vocabulary import Vocabulary

LAST = 8  # tokens looked back on
LEAST_ROWS, LEAST_CONTEXTS = 8, 4  # of the fitting half in which a predicate, or a rule, holds
STATES = (
    "first in its context", "among the first four of its context", "first on its line", "second on its line",
    "inside double quotes", "inside brackets", "after # on its line", "seen before in its context",
    "with the token before it, a pair seen before in its context",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Atom:
    """A predicate: its kind, and the token, word, class or state as text."""

    kind: str
    value: str


@dataclass(frozen=True, eq=False)
class Cover:
    """Which predicates hold at which rows of a half.

    Attributes:
        matrix: [R, W] the predicates that hold at each row, in falling order, filled up with 0.
        order: rows by predicate, rising for each.
        starts: [M + 2] where the rows of each predicate begin in `order`; 0 stands for none.
        contexts: [R] which context each row belongs to.
    """

    matrix: Numbers
    order: Numbers
    starts: Numbers
    contexts: Numbers

    def rows(self, atom: int) -> Numbers:
        """The rows at which a predicate holds."""
        return self.order[self.starts[atom] : self.starts[atom + 1]]

    def counts(self, rows: Numbers | None = None) -> Numbers:
        """[M + 1] at how many of some rows (None: all) each predicate holds; of 0 it means nothing."""
        if rows is None:
            return np.diff(self.starts)
        return np.bincount(self.matrix[rows].ravel(), minlength=len(self.starts) - 1)


@dataclass(frozen=True, eq=False)
class Atoms:
    """The predicates by number from 1 on, and where they hold in both halves."""

    atoms: list[Atom]
    fitting: Cover
    scoring: Cover


def find_atoms(sample: Sample, vocabulary: Vocabulary) -> Atoms:
    """All predicates of the grammar that hold at `LEAST_ROWS` rows and in `LEAST_CONTEXTS` contexts of the fitting
    half, and not at nearly all of its rows.
    """
    columns, atoms = _columns(sample, vocabulary)
    fitting = columns[sample.fitting]
    own = sample.context[sample.fitting]
    held = fitting >= 0
    count = np.bincount(fitting[held], minlength=len(atoms))
    pairs = np.unique(fitting[held] * np.int64(own.max() + 1) + np.broadcast_to(own[:, None], fitting.shape)[held])
    contexts = np.bincount(pairs // (own.max() + 1), minlength=len(atoms))
    kept = (count >= LEAST_ROWS) & (contexts >= LEAST_CONTEXTS) & (count <= len(own) - LEAST_ROWS)
    number = np.zeros(len(atoms) + 1, np.int64)  # the last stands for none, and is 0
    number[np.flatnonzero(kept)] = np.arange(1, int(kept.sum()) + 1)
    matrix = -np.sort(-number[columns], axis=1)
    matrix = np.ascontiguousarray(matrix[:, : max(1, int((matrix > 0).sum(axis=1).max(initial=0)))])
    chosen = [atoms[i] for i in np.flatnonzero(kept)]
    halves = [_cover(matrix[half], sample.context[half], len(chosen)) for half in (sample.fitting, ~sample.fitting)]
    return Atoms(chosen, *halves)


def _cover(matrix: Numbers, contexts: Numbers, count: int) -> Cover:
    flat = matrix.ravel()
    order = np.argsort(flat, kind="stable") // matrix.shape[1]
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=count + 1))])
    return Cover(matrix, order, starts, contexts)


def _columns(sample: Sample, vocabulary: Vocabulary) -> tuple[Numbers, list[Atom]]:
    """[R, w] numbers of predicates, -1 where a column has none, and all predicates, also those that never hold."""
    words, word_of = vocabulary.words
    classes, in_class = vocabulary.classes
    ids, back = sample.ids, {step: _back(sample, step) for step in range(1, LAST + 1)}
    folded = np.append(word_of, -1)  # of a token that is not there, too
    last = np.stack([folded[one] for one in back.values()], axis=1)
    for column in range(1, LAST):  # a word counts once
        last[(last[:, :column] == last[:, column, None]).any(axis=1), column] = -1
    listed = _listed(in_class)
    families: list[tuple[str, list[str] | tuple[str, ...], Numbers]] = [
        ("token", list(vocabulary.texts), ids[:, None]),
        ("word", words, word_of[ids][:, None]),
        ("previous", list(vocabulary.texts), back[1][:, None]),
        ("before", list(vocabulary.texts), back[2][:, None]),
        ("last", words, last),
        ("class", classes, listed[ids]),
        ("after", classes, np.concatenate([listed, np.full((1, listed.shape[1]), -1)])[back[1]]),
        ("state", STATES, _states(sample, vocabulary)),
    ]
    atoms: list[Atom] = []
    columns = []
    for kind, values, found in families:
        columns.append(np.where(found >= 0, found + len(atoms), -1))
        atoms += [Atom(kind, value) for value in values]
    return np.concatenate(columns, axis=1), atoms


def _back(sample: Sample, step: int) -> Numbers:
    """[R] the token so many places before each in its context; -1 where there is none."""
    found = np.full(sample.rows, -1, np.int64)
    found[step:] = sample.ids[:-step]
    found[sample.place < step] = -1
    return found


def _listed(table: npt.NDArray[np.bool_]) -> Numbers:
    """[V, w] the columns that are true in each row, filled up with -1."""
    width = max(1, int(table.sum(axis=1).max(initial=0)))
    numbers = np.where(table, np.arange(table.shape[1]), -1)
    return -np.sort(-numbers, axis=1)[:, :width]


def _states(sample: Sample, vocabulary: Vocabulary) -> Numbers:
    """[R, number of states] each state's number where it is true, else -1."""
    previous = _back(sample, 1)
    found = _walked(sample, vocabulary) | {
        "first in its context": sample.place == 0,
        "among the first four of its context": sample.place < 4,
        "seen before in its context": _seen(sample.context, sample.ids),
        "with the token before it, a pair seen before in its context": (
            (sample.place > 0) & _seen(sample.context, previous * (len(vocabulary.texts) + 1) + sample.ids)
        ),
    }
    true = np.stack([found[name] for name in STATES], axis=1)
    return np.where(true, np.arange(len(STATES)), -1)


def _seen(context: Numbers, values: Numbers) -> Mask:
    """[R] whether a value was in the same context before."""
    order = np.lexsort((values, context))  # stable: equal ones stay in the order of the text
    same = (np.diff(values[order], prepend=-2) == 0) & (np.diff(context[order], prepend=-1) == 0)
    found = np.empty(len(values), bool)
    found[order] = same
    return found


def _walked(sample: Sample, vocabulary: Vocabulary) -> dict[str, Mask]:
    """States that depend on all tokens before: one step for every position, over all contexts at once."""
    line = vocabulary.counts(lambda text: "\n" in text).astype(bool)
    quote = vocabulary.counts(lambda text: text.count('"') % 2).astype(bool)
    opened = vocabulary.counts(lambda text: sum(c in "([{" for c in text))
    closed = vocabulary.counts(lambda text: sum(c in ")]}" for c in text))
    hash = vocabulary.counts(lambda text: "#" in text and not text.startswith("##")).astype(bool)
    count = len(sample.contexts)
    since, depth = np.zeros(count, np.int64), np.zeros(count, np.int64)
    quoted, after = np.zeros(count, bool), np.zeros(count, bool)
    found = {name: np.zeros(sample.rows, bool) for name in STATES[2:7]}
    order = np.argsort(sample.place, kind="stable")
    borders = np.searchsorted(sample.place[order], np.arange(int(sample.place.max(initial=0)) + 2))
    for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        rows = order[start:stop]
        own, ids = sample.context[rows], sample.ids[rows]
        for name, true in zip(STATES[2:7], (since[own] == 0, since[own] == 1, quoted[own], depth[own] > 0, after[own]),
                              strict=True):  # fmt: skip
            found[name][rows] = true
        ends = line[ids]
        since[own] = np.where(ends, 0, since[own] + 1)
        quoted[own] = ~ends & (quoted[own] ^ quote[ids])
        after[own] = ~ends & (after[own] | hash[ids])
        depth[own] = np.maximum(depth[own] + opened[ids] - closed[ids], 0)
    return found
