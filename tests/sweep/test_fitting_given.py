"""Dictionaries that begin near given atoms, and what a comparison makes of their agreement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from sparsecode.comparison.comparing import compare_members
from sparsecode.comparison.members import member_of
from sparsecode.comparison.records import CompareSettings
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidSetting
from sparsecode.pipeline.compare import compare_dicts
from sparsecode.pipeline.train_dicts import train_dicts
from sparsecode.store import DatasetWriter
from sparsecode.sweep import Sweep, fit
from sparsecode.sweep.initial import Given

ATOMS = normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)))


def test_features_begin_near_the_atoms_each_seed_in_its_own_way() -> None:
    given = Given(ATOMS, jitter=0.3, mark="m")
    plain, near = Sweep(16, [10], [0.1], [0]), Sweep(16, [10, 10], [0.1, 0.1], [0, 1], given=given)
    first, second = near.per_dictionary(near.W_dec)
    assert torch.equal(first[6:], plain.W_dec[6:])  # what is left is random, as it is without
    cosine = (first[:6] * ATOMS).sum(1)
    assert float(cosine.mean()) == pytest.approx(1 / math.sqrt(1.09), abs=0.06)
    assert not torch.equal(first[:6], second[:6])
    assert torch.allclose(near.initial_cosine(0), torch.ones(10))
    assert torch.allclose(Sweep(16, [4], [0.1], [0], given=Given(ATOMS, 0.0)).W_dec, ATOMS[:4], atol=1e-6)


def test_seeds_of_one_start_do_not_count_for_each_other() -> None:
    rows = torch.randn(4000, 16, generator=torch.Generator().manual_seed(1))
    found = fit(rows, [6], 0.01, 3, samples=4000, batch_size=200, given=Given(ATOMS, mark="m"))
    assert found[0].meta["init"] == {"fingerprint": "m", "jitter": 0.3, "atoms": 6}
    members = [member_of(one, str(k)) for k, one in enumerate(found)]
    compared = compare_members(members, [None] * 3, CompareSettings(), match_all=True)
    assert compared.contents.by_seed is None
    assert compared.contents.akin is not None and len(compared.contents.akin) == 3
    for pair in compared.contents.akin:
        assert pair.start_cosine == pytest.approx(1 / 1.09)
        a, b = found[int(pair.first)].W_dec, found[int(pair.second)].W_dec
        assert pair.end_cosine == pytest.approx(float((a * b).sum(1).mean()), abs=1e-5)
    assert all(float(values.max()) == 0 for values in compared.stability.values())


def test_a_sweep_of_a_run_begins_near_a_dictionary(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", activation_dim=16, dtype="float32", provenance={"hook_point": "x"}) as writer:
        rows = torch.randn(4096, 16, generator=torch.Generator().manual_seed(2))
        writer.append(rows, torch.zeros(4096, dtype=torch.int32))
        writer.finish()
    Dictionary(ATOMS, torch.zeros(6), ATOMS).save(tmp_path / "start")
    settings: dict[str, Any] = {
        "sizes": [8],
        "seeds": 2,
        "samples": 2000,
        "batch_size": 200,
        "dataset": str(tmp_path / "data"),
    }
    train_dicts(tmp_path / "run", init=str(tmp_path / "start"), quiet=True, **settings)
    compared = compare_dicts(tmp_path / "run", quiet=True)
    assert compared.contents.akin is not None and compared.contents.akin[0].members == ["a start"]
    own = Dictionary.load(tmp_path / "run/dictionaries" / compared.names[0])
    assert own.meta["init"]["jitter"] == 0.3 and own.meta["init"]["fingerprint"]
    wide = normalize(torch.randn(3, 20))
    Dictionary(wide, torch.zeros(3), wide).save(tmp_path / "wide")
    with pytest.raises(InvalidSetting, match="its atoms have 20 dimensions, the activations 16"):
        train_dicts(tmp_path / "other", init=str(tmp_path / "wide"), quiet=True, **settings)
