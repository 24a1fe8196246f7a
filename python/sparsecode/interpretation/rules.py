"""An explanation: a short list of rules, found on the fitting half, that says how active a direction will be.

A rule is one or two predicates of the grammar (`atoms`) and a level. The first rule that holds at a row predicts its
level; where none holds, the level elsewhere is predicted.

Rules are chosen one after the other on the rows that no earlier one covers, each time the one that reduces the squared
error most. A predicate may be used only where chance hardly explains it: that k of the n rows at which it holds are
active, where K of all N are, has for independent rows a probability of at most exp(-n KL(k/n || K/N)) (Hoeffding 1963,
theorem 1, which holds without replacement too). This must be below `CHANCE` divided by the number of predicates. The
second predicate of a rule is tested in the same way among the rows of the first. Where no predicate passes, nothing is
found: of directions that are active at random, that is so for at least 95 %.

Shape letters: R rows of the fitting half, M predicates, W most predicates that hold at one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecode.interpretation.atoms import LEAST_CONTEXTS, LEAST_ROWS, Atom, Atoms, Cover
from sparsecode.interpretation.sample import Numbers

Array = npt.NDArray[np.float64]
RULES = 5  # most rules of an explanation: more than a reader keeps in mind
CHANCE = 0.05
_BEAM, _SECOND = 6, 3  # first predicates that are refined by a second one, and how many of these are tried


@dataclass(frozen=True)
class Rule:
    """Predicates that hold together, and the mean activation then, as a share of the strongest."""

    atoms: tuple[Atom, ...]
    level: float


@dataclass(frozen=True)
class Explanation:
    """Rules in their order, and the level where none holds; no rule: nothing was found."""

    rules: tuple[Rule, ...]
    elsewhere: float

    def as_json(self) -> dict[str, Any]:
        """For interpretations.json."""
        rules = [{"atoms": [[one.kind, one.value] for one in rule.atoms], "level": rule.level} for rule in self.rules]
        return {"rules": rules, "elsewhere": self.elsewhere}


@dataclass(frozen=True)
class _Option:
    """A possible rule: its predicates by number, the rows it covers, and by how much it reduces the squared error."""

    atoms: tuple[int, ...]
    gain: float
    rows: Numbers


def explain(atoms: Atoms, z: Array) -> Explanation:
    """The explanation of activations z [R] of the fitting half, none of them negative."""
    cover, bar = atoms.fitting, log(max(1, len(atoms.atoms)) / CHANCE)
    free = np.ones(len(z), bool)
    held = cover.counts()
    found: list[Rule] = []
    while len(found) < RULES:
        option = _best(cover, z, free, held, bar)
        if option is None:
            break
        names = tuple(atoms.atoms[number - 1] for number in option.atoms)
        found.append(Rule(names, _rounded(z[option.rows].mean())))
        free[option.rows] = False
        held = held - cover.counts(option.rows)
    return Explanation(tuple(found), _rounded(z[free].mean()) if free.any() else 0.0)


def simulate(atoms: Atoms, cover: Cover, explanation: Explanation) -> tuple[Array, Numbers]:
    """What an explanation predicts for each row of a half, and the number of the rule that does, -1 for none."""
    number = {atom: place for place, atom in enumerate(atoms.atoms, 1)}
    predicted = np.full(len(cover.matrix), explanation.elsewhere)
    which = np.full(len(cover.matrix), -1, np.int64)
    for place, rule in enumerate(explanation.rules):
        rows = cover.rows(number[rule.atoms[0]])
        for other in rule.atoms[1:]:
            rows = np.intersect1d(rows, cover.rows(number[other]), assume_unique=True)
        rows = rows[which[rows] < 0]
        predicted[rows], which[rows] = rule.level, place
    return predicted, which


def _best(cover: Cover, z: Array, free: npt.NDArray[np.bool_], held: Numbers, bar: float) -> _Option | None:
    """The rule with the largest gain among the free rows, if any passes."""
    active = np.flatnonzero(free & (z > 0))
    count, total = int(free.sum()), float(z[active].sum())
    if not len(active):
        return None
    options: list[_Option] = []
    best = 0.0
    firsts = _candidates(cover, z, active, held, count, count, total, bar, _BEAM)
    for atom, gain in firsts:
        rows = cover.rows(atom)
        rows = rows[free[rows]]
        options.append(_Option((atom,), gain, rows))
        best = max(best, gain)
    for option in tuple(options):
        within = option.rows[z[option.rows] > 0]
        # Nothing can gain more than a second predicate that keeps the active rows and no others.
        if _gain(float(z[within].sum()), max(len(within), LEAST_ROWS), count, total) <= best:
            continue
        inside = cover.counts(option.rows)
        seconds = _candidates(cover, z, within, inside, len(option.rows), count, total, bar, _SECOND)
        for atom, gain in seconds:
            if gain > best:
                best = gain
            options.append(
                _Option((*option.atoms, atom), gain, np.intersect1d(option.rows, cover.rows(atom), assume_unique=True))
            )
    options.sort(key=lambda option: -option.gain)  # stable: of equal ones the shorter rule
    for option in options:
        if len(np.unique(cover.contexts[option.rows[z[option.rows] > 0]])) >= LEAST_CONTEXTS:
            return option
    return None


def _candidates(
    cover: Cover, z: Array, active: Numbers, held: Numbers, among: int, count: int, total: float, bar: float, most: int
) -> list[tuple[int, float]]:
    """Predicates that pass the test, those with the largest gain first.

    Args:
        cover: where they hold.
        z: activations.
        active: the rows among which they are sought that are active.
        held: [M + 1] at how many of all these rows each holds.
        among: how many rows that are.
        count, total: number of all free rows and the sum of their activations, which gains are measured on.
        bar: least n KL.
        most: how many to give.
    """
    numbers = cover.matrix[active]
    flat = numbers.ravel()
    hits = np.bincount(flat, minlength=len(held))
    atoms = np.flatnonzero(hits)
    atoms = atoms[atoms > 0]
    n, k = held[atoms].astype(np.float64), hits[atoms].astype(np.float64)
    base = len(active) / among
    usual = (n >= LEAST_ROWS) & (count - n >= 1) & (k > n * base)
    atoms, n, k = atoms[usual], n[usual], k[usual]
    passing = n * _divergence(k / n, base) >= bar
    atoms, n = atoms[passing], n[passing]
    if not len(atoms):
        return []
    sums = np.bincount(flat, np.repeat(z[active], numbers.shape[1]), len(held))[atoms]
    gains = _gain(sums, n, count, total)
    order = np.argsort(-gains, kind="stable")[:most]
    return [(int(atoms[i]), float(gains[i])) for i in order if gains[i] > 0]


def _gain(sums: Any, n: Any, count: int, total: float) -> Any:
    """By how much two means, of n rows and of the others, have less squared error than one; 0 where n have less."""
    over = np.maximum(sums - n * total / count, 0)
    return over**2 * count / (n * np.maximum(count - n, 1))


def _divergence(p: Array, q: float) -> Array:
    """KL(p || q) of two coins, for p >= q."""
    rest = 1 - p
    safe = np.where(rest > 0, rest, 1)
    tail = np.where(rest > 0, rest * np.log(safe / max(1 - q, 1e-300)), 0.0)
    found: Array = p * np.log(p / q) + tail
    return found


def _rounded(value: float) -> float:
    return round(float(value), 6)
