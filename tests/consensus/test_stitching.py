"""Novel features and paths between dictionaries, against brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from sparsecode.consensus import voter_of
from sparsecode.consensus.measure import quality
from sparsecode.consensus.stitching import stitch, stitched
from sparsecode.dictionary import Dictionary, TopK
from sparsecode.errors import InvalidSetting

ROWS = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))


def made(seed: int, size: int, **more: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    atoms = normalize(torch.randn(size, 16, generator=generator))
    encoder = 0.4 * atoms + 0.05 * torch.randn(size, 16, generator=generator)
    bias = -0.2 * torch.rand(size, generator=generator)
    return Dictionary(encoder, bias, atoms * (0.5 + torch.rand(size, 1, generator=generator)), **more)  # type: ignore[arg-type]


def test_novelty_equals_inserting_each_feature() -> None:
    small = voter_of(made(1, 12), "s")
    large = voter_of(made(2, 30, mean=torch.linspace(-0.2, 0.2, 16), scale=0.5), "l")
    found = stitch(small, large, ROWS)
    residual = (ROWS - small.dictionary.reconstruct(ROWS)).double()
    error = float(residual.square().sum())
    for b in range(30):
        other = large.dictionary
        added = other.encode(ROWS).double()[:, b, None] * other.W_dec[b].double() * other.scale
        change = float((residual - added).square().sum()) - error
        assert float(found.novelty[b]) == pytest.approx(-change / error, abs=1e-6)
    for a in range(12):
        own = small.dictionary
        left = own.encode(ROWS).double()[:, a, None] * own.W_dec[a].double()
        change = float((residual + left).square().sum()) - error
        assert float(found.missed[a]) == pytest.approx(change / error, abs=1e-6)


def test_a_copy_is_not_novel_and_what_is_missing_is_first() -> None:
    atoms = torch.eye(16)
    codes = (torch.rand(2000, 8, generator=torch.Generator().manual_seed(2)) < 0.2).float()
    rows = codes @ atoms[:8]
    small = voter_of(Dictionary(atoms[:7], torch.zeros(7), atoms[:7]), "s")
    large = voter_of(Dictionary(atoms[[3, 7, 12]], torch.zeros(3), atoms[[3, 7, 12]]), "l")
    found = stitch(small, large, rows)
    assert float(found.novelty[0]) < 0 < float(found.novelty[1]) == pytest.approx(1)
    assert found.auc == 0.75 or found.auc == 1.0
    first, then = found.steps[0], found.steps[1]
    assert (first[0].tolist(), first[1].tolist()) == ([3], [0]) and then[1].tolist() == [1]


def test_a_path_goes_from_one_to_the_other_and_can_be_written() -> None:
    small = voter_of(made(1, 12), "s")
    wider = made(5, 20)
    both = Dictionary(
        torch.cat([small.dictionary.W_enc, wider.W_enc]), torch.cat([small.dictionary.b_enc, wider.b_enc]),
        torch.cat([small.dictionary.W_dec, wider.W_dec]),
    )  # fmt: skip
    large = voter_of(both, "l")
    found = stitch(small, large, ROWS)
    first, last = found.path[0], found.path[-1]
    assert first.fvu == pytest.approx(quality("", small.dictionary, ROWS).fvu, rel=1e-5)
    assert last.fvu == pytest.approx(quality("", both, ROWS).fvu, rel=1e-5)
    assert (first.features, last.features) == (12, 32) and first.swapped == 0
    for stop in (0, 5, len(found.steps)):
        own = stitched(small, large, found.steps[:stop])
        point = quality("", own, ROWS)
        near = min(found.path, key=lambda one: abs(one.features - own.dict_size))
        if near.features == own.dict_size:
            assert point.fvu == pytest.approx(near.fvu, rel=1e-4)


def test_features_that_compete_are_refused() -> None:
    small = made(1, 12)
    with pytest.raises(InvalidSetting, match="s: the codes of a topk depend"):
        stitch(voter_of(replace(small, activation=TopK(3)), "s"), voter_of(small, "l"), ROWS)
