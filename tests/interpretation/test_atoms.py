"""Predicates against the same ones as loops over a context."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from planted_text import RULES, VOCABULARY, fires, planted_dataset
from sparsecode.interpretation.atoms import LEAST_CONTEXTS, LEAST_ROWS, Atom, Atoms, find_atoms
from sparsecode.interpretation.sample import draw

DATASET = planted_dataset(500)
SAMPLE = draw(DATASET, 10**9, 0)


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    return find_atoms(SAMPLE, VOCABULARY)


def held(atoms: Atoms, atom: Atom) -> np.ndarray:
    """[R] at which rows of the whole sample a predicate holds."""
    number = atoms.atoms.index(atom) + 1
    found = np.zeros(SAMPLE.rows, bool)
    for half, cover in ((SAMPLE.fitting, atoms.fitting), (~SAMPLE.fitting, atoms.scoring)):
        own = np.zeros(int(half.sum()), bool)
        own[cover.rows(number)] = True
        np.testing.assert_array_equal(own, (cover.matrix == number).any(axis=1))
        found[half] = own
    return found


@pytest.mark.parametrize(
    ("rule", "atom"),
    [
        ("token self", Atom("token", " self")),
        ("word import", Atom("word", "import")),
        ("number", Atom("class", "number")),
        ("-ing", Atom("class", "word in -ing")),
        ("upper case", Atom("class", "upper-case word")),
        ("new line", Atom("state", "first on its line")),
        ("in quotes", Atom("state", "inside double quotes")),
        ("after alarm", Atom("last", "alarm")),
    ],
)
def test_they_hold_where_a_loop_says(atoms: Atoms, rule: str, atom: Atom) -> None:
    assert rule in RULES
    np.testing.assert_array_equal(held(atoms, atom), fires(DATASET, rule))


def test_what_is_told_by_position_and_repetition(atoms: Atoms) -> None:
    loops: dict[Atom, list[bool]] = {
        Atom("previous", "("): [], Atom("before", "("): [], Atom("after", "number"): [],
        Atom("state", "among the first four of its context"): [], Atom("state", "seen before in its context"): [],
        Atom("state", "with the token before it, a pair seen before in its context"): [],
        Atom("state", "inside brackets"): [], Atom("state", "second on its line"): [],
    }  # fmt: skip
    for texts in DATASET.texts():
        for i in range(len(texts)):
            before = texts[:i]
            pairs = set(pairwise(before))
            starts = [0] + [k + 1 for k in range(i) if texts[k] == "\n"]
            depth = 0
            for text in before:
                depth = max(depth + (text == "(") - (text == ")"), 0)
            values = [
                i > 0 and texts[i - 1] == "(", i > 1 and texts[i - 2] == "(",
                i > 0 and texts[i - 1].strip().isdigit(), i < 4, texts[i] in before,
                i > 0 and (texts[i - 1], texts[i]) in pairs, depth > 0, i - starts[-1] == 1,
            ]  # fmt: skip
            for own, value in zip(loops.values(), values, strict=True):
                own.append(value)
    for atom, expected in loops.items():
        np.testing.assert_array_equal(held(atoms, atom), expected, err_msg=str(atom))


def test_rare_predicates_are_left_out(atoms: Atoms) -> None:
    counts = atoms.fitting.counts()[1:]
    assert counts.min() >= LEAST_ROWS and counts.max() <= SAMPLE.fitting.sum() - LEAST_ROWS
    np.testing.assert_array_equal(counts, atoms.fitting.counts(np.arange(SAMPLE.fitting.sum()))[1:])
    for number in range(1, len(atoms.atoms) + 1):
        assert len(np.unique(atoms.fitting.contexts[atoms.fitting.rows(number)])) >= LEAST_CONTEXTS
    assert len(set(atoms.atoms)) == len(atoms.atoms)
