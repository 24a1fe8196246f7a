"""Excerpts: of the right half, apart from each other, and active or not as they are said to be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from planted_text import fires, noise, planted_dataset
from sparsecode.interpretation.examples import ASKED, BANDS, LEAST, SHOWN, Excerpt, Material, material
from sparsecode.interpretation.groups import Direction
from sparsecode.interpretation.sample import Sample, draw

DATASET = planted_dataset()
SAMPLE = draw(DATASET, 10**9, 0)
NUMBERED = dataclasses.replace(SAMPLE, ids=np.arange(SAMPLE.rows))  # each token says which row it is
ONE = Direction("features", "d", 3)


def made(z: np.ndarray, direction: Direction = ONE, seed: int = 0, sample: Sample = SAMPLE) -> Material:
    found = material(direction, z, sample, lambda ids, _: [str(i) for i in ids], seed)
    assert isinstance(found, Material)
    return found


def rows_of(excerpts: list[Excerpt]) -> list[int]:
    """The rows that excerpts of `NUMBERED` were drawn for."""
    return [int(one.tokens[one.place]) for one in excerpts]


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    return noise(SAMPLE.rows, 1).astype(np.float64)


def test_excerpts_are_of_their_half_and_apart(z: np.ndarray) -> None:
    found = made(z, sample=NUMBERED)
    assert (len(found.shown), len(found.active), len(found.marked)) == (SHOWN, ASKED, ASKED)
    for half, lists in ((True, (found.shown,)), (False, (found.active, found.random))):
        for own in lists:
            rows = sorted(rows_of(own))
            assert min(np.diff(rows)) >= 32 and set(SAMPLE.fitting[rows]) == {half}
    for one in [*found.shown, *found.active]:
        row = rows_of([one])[0]
        assert one.strengths[one.place] == pytest.approx(z[row], abs=1e-6) and z[row] > 0
    for one in found.marked:
        assert one.active and one.strengths[one.place] == 0
    assert not set(rows_of(found.active)) & set(rows_of(found.marked))


def test_what_is_not_active_is_so_at_every_token(z: np.ndarray) -> None:
    found = made(z)
    assert found.alike and found.hard and found.random
    assert not any(one.active for one in [*found.alike, *found.random, *found.hard])
    for alike, active in ((found.alike, found.shown), (found.hard, [*found.active, *found.marked])):
        # Marked ones were drawn for another of their tokens.
        tokens = {text for one in active for text, strength in zip(one.tokens, one.strengths, strict=True) if strength}
        assert {one.tokens[one.place] for one in alike} <= tokens


def test_excerpts_stay_within_their_context(z: np.ndarray) -> None:
    for one in made(z, sample=NUMBERED).active:
        row = rows_of([one])[0]
        first, behind = np.flatnonzero(SAMPLE.context == SAMPLE.context[row])[[0, -1]] + [0, 1]
        assert [int(text) for text in one.tokens] == list(range(max(first, row - 23), min(behind, row + 9)))


def test_every_band_of_strength_is_shown(z: np.ndarray) -> None:
    strengths = np.sort(z[SAMPLE.fitting & (z > 0)])[::-1]
    bands = np.array_split(strengths, BANDS)
    shown = [one.strengths[one.place] for one in made(z).shown]
    for band in bands:
        inside = sum(band.min() - 1e-6 <= value <= band.max() + 1e-6 for value in shown)
        assert SHOWN // BANDS - 2 <= inside <= SHOWN // BANDS + 2


def test_what_is_drawn_depends_on_the_direction_and_the_seed_alone(z: np.ndarray) -> None:
    assert made(z) == made(z.copy())
    assert made(z) != made(z, Direction("features", "d", 4)) and made(z) != made(z, seed=1)
    changed = np.where(SAMPLE.fitting, z, noise(SAMPLE.rows, 2))
    assert made(changed).shown == made(z).shown, "what explains does not depend on the scoring half"


def test_too_few_places() -> None:
    z = np.zeros(SAMPLE.rows)
    z[np.flatnonzero(SAMPLE.fitting)[:40]] = 1
    found = material(ONE, z, SAMPLE, lambda ids, _: [str(i) for i in ids], 0)
    assert found == f"active, or not active, in fewer than {LEAST} separate places of the fitting half"
    everywhere = material(ONE, z + 1, SAMPLE, lambda ids, _: [str(i) for i in ids], 0)
    assert isinstance(everywhere, str)


def test_a_rare_direction_has_fewer() -> None:
    rare = np.flatnonzero(fires(DATASET, "after alarm"))
    z = np.zeros(SAMPLE.rows)
    for half in (True, False):
        own = rare[SAMPLE.fitting[rare] == half]
        z[own[np.unique(SAMPLE.context[own], return_index=True)[1]][:9]] = 1
    found = made(z)
    assert (len(found.active), len(found.marked)) == (5, 4)
