"""Excerpts that are shown of a direction: where it is active, and where it is not, of either half.

An excerpt is a token with the 23 before it and the 8 after it, as far as its context has them. Those of the fitting
half are for whoever explains, those of the scoring half for whoever is asked about the explanation. Excerpts of one
list do not overlap. Where none of its tokens are active an excerpt counts as not active, and not otherwise.

Shape letters: R rows of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsecode.interpretation.groups import Direction, generator
from sparsecode.interpretation.sample import Mask, Numbers, Sample

BEFORE, AFTER = 23, 8  # tokens of an excerpt beside the one that it was drawn for
BANDS = 4  # of strength, with as many active excerpts in each
SHOWN, ASKED = 20, 20  # active excerpts that explain, and that are asked about
LEAST = 5  # active excerpts of a half
_ALIKE, _HARD, _RANDOM = 5, 10, 30  # excerpts without activity: with a token that is active elsewhere, and any

Show = Callable[[Sequence[int], int], list[str]]  # texts of tokens, of which one stands out


@dataclass(frozen=True)
class Excerpt:
    """Tokens in a row.

    Attributes:
        tokens: their texts; joined they are the text.
        strengths: how active the direction is at each, as a share of the strongest of the fitting half.
        place: which of them it was drawn for.
    """

    tokens: tuple[str, ...]
    strengths: tuple[float, ...]
    place: int

    @property
    def active(self) -> bool:
        """Whether the direction is active at any of its tokens."""
        return max(self.strengths) > 0


@dataclass(frozen=True)
class Material:
    """All excerpts of a direction.

    Attributes:
        shown, alike, other: of the fitting half: active ones, ones with a token that is active there but not here, and
            any without activity.
        active, marked: of the scoring half: active ones to ask about, and other ones, in which another token is asked
            about.
        random, hard: of the scoring half, not active: any, and ones with a token that is active elsewhere.
    """

    shown: list[Excerpt]
    alike: list[Excerpt]
    other: list[Excerpt]
    active: list[Excerpt]
    marked: list[Excerpt]
    random: list[Excerpt]
    hard: list[Excerpt]


def material(direction: Direction, z: npt.NDArray[np.float64], sample: Sample, show: Show, seed: int) -> Material | str:
    """Excerpts of a direction, drawn by seed; why there are none, where it is active in too few places.

    Args:
        direction: which; what is drawn for it does not depend on others.
        z: [R] its activations, reduced to the strongest.
        sample: the rows.
        show: texts of tokens.
        seed: of the draw.
    """
    draw = generator(f"{direction.group} {direction.dictionary} {direction.feature}", seed)
    quiet = _quiet(z, sample)
    found: dict[bool, tuple[Numbers, Numbers, Numbers]] = {}
    for half, name, most in ((True, "fitting", SHOWN), (False, "scoring", 2 * ASKED)):
        own = sample.fitting == half
        active = _apart(_by_strength(z, np.flatnonzero(own & (z > 0)), draw), most)
        free = draw.permutation(np.flatnonzero(own & quiet))
        random, alike = _apart(free, _RANDOM), free[np.isin(sample.ids[free], sample.ids[active])]
        if min(len(active), len(random)) < LEAST:
            return f"active, or not active, in fewer than {LEAST} separate places of the {name} half"
        found[half] = active, random, _apart(alike, _ALIKE if half else _HARD)

    def excerpts(rows: Numbers) -> list[Excerpt]:
        return [_excerpt(int(row), z, sample, show) for row in rows]

    active, random, hard = found[False]
    asked = min(ASKED, (len(active) + 1) // 2)
    return Material(
        excerpts(found[True][0]), excerpts(found[True][2]), excerpts(found[True][1][:SHOWN]), excerpts(active[:asked]),
        [_moved(one, draw) for one in excerpts(active[asked:])], excerpts(random), excerpts(hard),
    )  # fmt: skip


def _by_strength(z: npt.NDArray[np.float64], rows: Numbers, draw: np.random.Generator) -> Numbers:
    """Active rows: one of each band of strength in turn, at random within it."""
    bands = np.array_split(rows[np.argsort(-z[rows], kind="stable")], BANDS)
    turns = np.concatenate([draw.permutation(len(band)) for band in bands] or [rows])
    return np.concatenate(bands)[np.argsort(turns, kind="stable")]


def _apart(rows: Numbers, most: int) -> Numbers:
    """The first of some rows whose excerpts do not overlap."""
    taken: list[int] = []
    for row in rows.tolist():
        if len(taken) == most:
            break
        if all(abs(row - other) > BEFORE + AFTER for other in taken):
            taken.append(row)
    return np.array(taken, np.int64)


def _bounds(sample: Sample) -> tuple[Numbers, Numbers]:
    """[R] first row of each row's excerpt, and the row after its last."""
    rows = np.arange(sample.rows)
    ends = np.cumsum(np.bincount(sample.context))[sample.context]
    return rows - np.minimum(sample.place, BEFORE), np.minimum(rows + AFTER + 1, ends)


def _quiet(z: npt.NDArray[np.float64], sample: Sample) -> Mask:
    """[R] whether a direction is active at no token of a row's excerpt."""
    first, behind = _bounds(sample)
    before = np.concatenate([[0], np.cumsum(z > 0)])
    found: Mask = before[first] == before[behind]
    return found


def _excerpt(row: int, z: npt.NDArray[np.float64], sample: Sample, show: Show) -> Excerpt:
    first = row - min(int(sample.place[row]), BEFORE)
    behind = min(row + AFTER + 1, int(np.searchsorted(sample.context, sample.context[row], side="right")))
    texts = show(sample.ids[first:behind].tolist(), row - first)
    return Excerpt(tuple(texts), tuple(np.round(z[first:behind], 6).tolist()), row - first)


def _moved(excerpt: Excerpt, draw: np.random.Generator) -> Excerpt:
    """An active excerpt, drawn for one of its tokens that are not active; as it is where all are."""
    others = [i for i, strength in enumerate(excerpt.strengths) if strength == 0 and excerpt.tokens[i].strip()]
    place = others[int(draw.integers(len(others)))] if others else excerpt.place
    return Excerpt(excerpt.tokens, excerpt.strengths, place)
