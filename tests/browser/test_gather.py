"""What two streaming passes find, beside slow loops over all codes of rows whose features are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fake_run import FakeDataset, dictionary, make_fake_run
from sparsecode.browser import gather as gathering
from sparsecode.browser.gather import BEFORE, BINS_OF_BAND, EXAMPLES, FULL, Gathered, gather, read_text
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.activations import AbsTopK, TopK
from sparsecode.errors import ContextsUnknown
from sparsecode.interpretation.sample import hashed

SETTINGS: dict[str, Any] = {"contexts": 6, "bands": 4, "seed": 3}


@dataclass
class Irregular(FakeDataset):
    """Contexts of documents, some of one row, as a harvest stores them whose special tokens were dropped."""

    def contexts(self) -> Iterator[npt.NDArray[np.int64]]:
        generator = np.random.default_rng(5)
        starts = np.unique(np.append(0, generator.integers(1, self.rows, self.rows // 9)))
        every = np.stack([np.arange(len(starts)), starts, np.append(starts[1:], self.rows)], axis=1)
        yield from np.array_split(every, 7)


class Unknown(FakeDataset):
    def contexts(self) -> Iterator[npt.NDArray[np.int64]]:
        raise ContextsUnknown("it does not say")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Irregular:
    _, made = make_fake_run(tmp_path_factory.mktemp("gather") / "run", sizes=(16,), seeds=(0,))
    return Irregular(made.activations[:1500], made.ids[:1500], made.provenance)


def dictionaries() -> dict[str, Dictionary]:
    plain = dictionary(64, 0)[0]
    bias = torch.zeros(64)
    return {
        "relu": plain,
        "topk": replace(plain, activation=TopK(3), b_enc=bias),
        "abstopk": replace(plain, activation=AbsTopK(5), b_enc=bias),
    }


@pytest.fixture(scope="module", params=["relu", "topk", "abstopk"])
def case(request: pytest.FixtureRequest, dataset: Irregular) -> tuple[Irregular, Dictionary, Gathered]:
    own = dictionaries()[request.param]
    return dataset, own, gather(dataset, own, read_text(dataset, dataset.rows), **SETTINGS)


def test_counts_densities_and_peaks_are_those_of_a_slow_loop(case: tuple[Irregular, Dictionary, Gathered]) -> None:
    dataset, own, found = case
    codes = own.encode(dataset.activations).clamp(min=0).numpy()
    bins = SETTINGS["bands"] * BINS_OF_BAND
    assert found.counts.sum() > 1000
    for f in range(own.dict_size):
        peak = float(codes[:, f].max())
        assert found.peak[f] == pytest.approx(peak, rel=1e-6)
        counts = [0] * bins
        for value in codes[:, f].tolist():
            if value > 0:
                counts[min(bins, math.ceil(value * bins / float(found.peak[f]))) - 1] += 1
        assert found.counts[f].tolist() == counts
        assert found.density[f] == pytest.approx((codes[:, f] > 0).mean())


def test_each_band_has_the_rows_with_the_smallest_hashes(case: tuple[Irregular, Dictionary, Gathered]) -> None:
    dataset, own, found = case
    codes = own.encode(dataset.activations).clamp(min=0).numpy()
    order = hashed(np.arange(dataset.rows), SETTINGS["seed"])
    drawn = 0
    for f in range(own.dict_size):
        for band in range(SETTINGS["bands"]):
            low, high = (edge * found.peak[f] / SETTINGS["bands"] for edge in (band, band + 1))
            rows = [row for row in range(dataset.rows) if low < codes[row, f] <= high + 1e-6]
            wanted = sorted(rows, key=lambda row: int(order[row]))[:EXAMPLES]
            start = found.strongest + band * EXAMPLES
            own_rows = found.rows[f, start : start + EXAMPLES]
            assert own_rows.tolist() == wanted + [-1] * (EXAMPLES - len(wanted))
            drawn += len(wanted)
    assert drawn > 100


def test_strongest_contexts_are_distinct_and_in_order(case: tuple[Irregular, Dictionary, Gathered]) -> None:
    dataset, own, found = case
    codes = own.encode(dataset.activations).numpy()
    text = read_text(dataset, dataset.rows)
    for f in range(own.dict_size):
        rows = [row for row in found.rows[f, : found.strongest].tolist() if row >= 0]
        values = codes[rows, f]
        assert (np.diff(values) <= 1e-6).all()
        assert not rows or values[0] == pytest.approx(codes[:, f].max())
        at, inside = text.around(np.array(rows, np.int64), 4, 0)
        keys = {tuple(np.where(i, dataset.ids[a], -1)) for a, i in zip(at, inside, strict=True)}
        assert len(keys) == len(rows)
        assert found.values[f, : len(rows)] == pytest.approx(values)


def test_every_strength_is_that_of_encode_and_nothing_crosses_a_border(
    case: tuple[Irregular, Dictionary, Gathered],
) -> None:
    dataset, own, found = case
    codes = own.encode(dataset.activations).clamp(min=0).numpy()
    number = np.repeat(*_numbers(dataset))
    shown = outside = 0
    for f, slot in zip(*np.nonzero(found.rows >= 0), strict=True):
        row = int(found.rows[f, slot])
        for place, strength in enumerate(found.strengths[f, slot]):
            at = row - BEFORE + place
            if 0 <= at < dataset.rows and number[at] == number[row]:
                assert abs(strength / FULL - codes[at, f] / found.peak[f]) <= 1 / FULL
                shown += 1
            else:
                assert strength == 0
                outside += 1
    assert shown > 1000 and outside > 1000


def _numbers(dataset: Irregular) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    every = np.concatenate(list(dataset.contexts()))
    return every[:, 0], every[:, 2] - every[:, 1]


def test_the_same_seed_gives_the_same_whatever_the_chunks(dataset: Irregular, monkeypatch: pytest.MonkeyPatch) -> None:
    own, text = dictionary(64, 0)[0], read_text(dataset, dataset.rows)
    one = gather(dataset, own, text, **SETTINGS)
    seen: list[int] = []
    monkeypatch.setattr(gathering, "_CODES", 1)
    monkeypatch.setattr(gathering, "_LEAST_ROWS", 37)
    two = gather(dataset, own, text, **SETTINGS, advance=seen.append)
    for name in ("counts", "rows", "strengths"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert sum(seen) == 2 * dataset.rows and max(seen) == 37
    other = gather(dataset, own, text, **SETTINGS | {"seed": 4})
    assert np.array_equal(one.counts, other.counts) and not np.array_equal(one.rows, other.rows)


def test_fewer_rows_end_the_last_context_and_unknown_contexts_are_one(dataset: Irregular) -> None:
    text = read_text(dataset, 100)
    assert text.rows == 100 and text.starts[-1] == 100 and text.known
    at, inside = text.around(np.array([99]))
    assert not inside[at > 99].any()
    unknown = read_text(Unknown(dataset.activations, dataset.ids, {}), 100)
    assert unknown.starts.tolist() == [0, 100] and not unknown.known


def test_the_feature_of_each_token_is_shown_there(tmp_path: Path) -> None:
    _, dataset = make_fake_run(tmp_path / "run", sizes=(64,), seeds=(0,))
    own, held = dictionary(64, 0)
    found = gather(dataset, own, read_text(dataset, dataset.rows), **SETTINGS)
    checked = 0
    for f in (held >= 0).nonzero().flatten().tolist():
        if found.rows[f, 0] >= 0 and found.values[f, 0] > 1:
            assert int(dataset.ids[found.rows[f, 0]]) % 64 == int(held[f])
            checked += 1
    assert checked > 5
