"""Explanations found the obvious way: every predicate as a column of a dense matrix, every count by summing columns.

The rule of `sparsecode.interpretation.rules`, written a second time for tests and as the baseline of a benchmark.
"""

from __future__ import annotations

from math import log

import numpy as np
import numpy.typing as npt

from sparsecode.interpretation.atoms import LEAST_CONTEXTS, LEAST_ROWS, Atoms
from sparsecode.interpretation.rules import CHANCE, RULES, Explanation, Rule


def dense(atoms: Atoms) -> npt.NDArray[np.bool_]:
    """[R, M] whether a predicate holds at a row of the fitting half."""
    table = np.zeros((len(atoms.fitting.matrix), len(atoms.atoms)), bool)
    for number in range(len(atoms.atoms)):
        table[atoms.fitting.rows(number + 1), number] = True
    return table


def slow_explain(atoms: Atoms, z: npt.NDArray[np.float64], table: npt.NDArray[np.bool_]) -> Explanation:
    """The explanation of activations z [R] of the fitting half."""
    bar = log(len(atoms.atoms) / CHANCE)
    free = np.ones(len(z), bool)
    rules: list[Rule] = []
    while len(rules) < RULES:
        options: list[tuple[float, int, int, tuple[int, ...]]] = []
        firsts = passing(table, z, free, free, bar)[:6]
        for gain, atom in firsts:
            options.append((-gain, 1, len(options), (atom,)))
        for _, atom in firsts:
            inside = free & table[:, atom]
            for gain, other in passing(table, z, inside, free, bar)[:3]:
                options.append((-gain, 2, len(options), (atom, other)))
        chosen = None
        for _, _, _, own in sorted(options):
            covered = free & table[:, own].all(axis=1)
            if len(set(atoms.fitting.contexts[covered & (z > 0)].tolist())) >= LEAST_CONTEXTS:
                chosen = own, covered
                break
        if chosen is None:
            break
        own, covered = chosen
        rules.append(Rule(tuple(atoms.atoms[i] for i in own), round(float(z[covered].mean()), 6)))
        free &= ~covered
    return Explanation(tuple(rules), round(float(z[free].mean()), 6) if free.any() else 0.0)


def passing(
    table: npt.NDArray[np.bool_],
    z: npt.NDArray[np.float64],
    among: npt.NDArray[np.bool_],
    free: npt.NDArray[np.bool_],
    bar: float,
) -> list[tuple[float, int]]:
    """(gain, predicate) of those that pass the test among some rows, the largest gain first."""
    held, active = table[among], z[among] > 0
    n, k, sums = held.sum(axis=0), held[active].sum(axis=0), z[among][active] @ held[active]
    count, mean = int(free.sum()), float(z[free].mean()) if free.any() else 0.0
    base = active.mean() if len(active) else 0.0
    found = []
    for atom in np.flatnonzero(k):
        p = k[atom] / n[atom]
        if n[atom] < LEAST_ROWS or n[atom] > count - 1 or p <= base:
            continue
        divergence = p * log(p / base) + ((1 - p) * log((1 - p) / (1 - base)) if p < 1 else 0.0)
        over = max(sums[atom] - n[atom] * mean, 0.0)
        gain = over**2 * count / (n[atom] * (count - n[atom]))
        if n[atom] * divergence >= bar and gain > 0:
            found.append((gain, int(atom)))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))
