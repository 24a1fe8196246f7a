"""Behaviour of pairs of features: closed forms against brute force, and what they are in simple cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sparsecode.comparison import compare
from sparsecode.consensus import cluster, voter_of
from sparsecode.consensus.functional import codes, functional, nearest_by_codes, pair_sums
from sparsecode.consensus.groups import groups_of
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import Dictionary

ROWS = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
EVERY = torch.arange(24)


def made(seed: int, **more: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    atoms = normalize(torch.randn(24, 16, generator=generator))
    encoder = atoms + 0.1 * torch.randn(24, 16, generator=generator)
    length = 0.5 + torch.rand(24, 1, generator=generator)
    return Dictionary(encoder, -0.2 * torch.rand(24, generator=generator), atoms * length, **more)  # type: ignore[arg-type]


def contribution(one: Voter, feature: int) -> Tensor:
    """[R, d] float64: what a feature adds to raw rows."""
    dictionary = one.dictionary
    code = dictionary.encode(ROWS).double()[:, feature, None]
    return code * dictionary.W_dec[feature].double() * dictionary.scale


def test_closed_forms_equal_brute_force() -> None:
    one = voter_of(made(1), "a")
    other = voter_of(made(2, mean=torch.linspace(-0.2, 0.2, 16), scale=0.4), "b")
    partner = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    sums = pair_sums(one, other, EVERY, partner, ROWS)
    for a, b in enumerate(partner.tolist()):
        x, y = contribution(one, a), contribution(other, b)
        on, also = x.abs().sum(1) > 0, y.abs().sum(1) > 0
        assert float(sums.jaccard[a]) == pytest.approx(float((on & also).sum() / (on | also).sum()))
        z = torch.stack([codes(one, ROWS)[:, a], codes(other, ROWS)[:, b]]).double()
        assert float(sums.correlation[a]) == pytest.approx(float(torch.corrcoef(z)[0, 1]), abs=1e-6)
        similarity = 2 * float((x * y).sum()) / float(x.square().sum() + y.square().sum())
        assert float(sums.similarity[a]) == pytest.approx(similarity, abs=1e-6)
        substitution = float((y - x).square().sum() / x.square().sum())
        assert float(sums.substitution[a]) == pytest.approx(substitution, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("times", "turned", "similarity", "substitution"),
    [(1.0, 1.0, 1.0, 0.0), (2.0, 1.0, 0.8, 1.0), (1.0, -1.0, -1.0, 4.0)],
    ids=["the same", "codes doubled", "opposite atoms"],
)
def test_simple_cases(times: float, turned: float, similarity: float, substitution: float) -> None:
    own, order = made(1), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    other = Dictionary((times * own.W_enc)[order], (times * own.b_enc)[order], (turned * own.W_dec)[order])
    sums = pair_sums(voter_of(own, "a"), voter_of(other, "b"), order, EVERY, ROWS)
    assert torch.allclose(sums.jaccard, torch.ones(24, dtype=torch.float64))
    assert torch.allclose(sums.correlation, torch.ones(24, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(sums.similarity, torch.full((24,), similarity, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(sums.substitution, torch.full((24,), substitution, dtype=torch.float64), atol=1e-6)


def test_independent_features_have_the_jaccard_of_their_rates() -> None:
    p, q, R = 0.3, 0.2, 40_000
    rows = (torch.rand(R, 2, generator=torch.Generator().manual_seed(1)) < torch.tensor([p, q])).float()
    eye = Dictionary(torch.eye(2), torch.zeros(2), torch.eye(2))
    sums = pair_sums(voter_of(eye, "a"), voter_of(eye, "b"), torch.tensor([0]), torch.tensor([1]), rows)
    share = p * q / (p + q - p * q)
    error = (share * (1 - share) / (R * (p + q - p * q))) ** 0.5
    assert float(sums.jaccard) == pytest.approx(share, abs=3 * error)


def test_the_nearest_by_codes_is_found_whatever_the_order() -> None:
    own, order = made(1), torch.randperm(24, generator=torch.Generator().manual_seed(5))
    other = Dictionary(own.W_enc[order] * 3, own.b_enc[order] * 3, own.W_dec[order])
    assert torch.equal(order[nearest_by_codes(voter_of(own, "a"), voter_of(other, "b"), ROWS)], EVERY)


def test_features_that_are_found_behave_alike_and_others_do_not() -> None:
    named = {str(seed): made(1 + seed // 2) for seed in range(3)}  # the first two are the same
    voters = [voter_of(one, name) for name, one in named.items()]
    found = functional(compare(named), voters, 0.8, ROWS)
    parts = {(one.what, one.quartile): one for one in found.parts}
    same, others, control = (parts[what, None] for what in ("found", "not found", "as frequent, at random"))
    assert same.features == 24 and same.jaccard == 1 and same.substitution == pytest.approx(0, abs=1e-6)
    assert others.substitution is not None and others.substitution > 0.5
    assert control.jaccard is not None and control.jaccard < 0.9
    assert found.agree == 1 and found.tested + found.not_tested == 72
    assert sum(one.features for one in found.parts if one.what == "found" and one.quartile) == same.features


def test_groups_kept_and_dropped_make_the_whole() -> None:
    from sparsecode.evaluation.groups import masked

    named = {"a": made(1), "b": made(1), "c": made(2)}
    voters = [voter_of(one, name) for name, one in named.items()]
    groups = groups_of(cluster(compare(named), voters), 2, voters[2], 2, ROWS)
    assert int(groups["in no other"].sum()) == 24 and not bool(groups["recurring"].any())
    first = groups_of(cluster(compare(named), voters), 0, voters[0], 2, ROWS)
    assert int(first["recurring"].sum()) == 24
    keep = torch.arange(24) % 3 == 0
    own = named["a"]
    both = masked(own, keep).encode(ROWS) + masked(own, ~keep).encode(ROWS)
    assert torch.equal(both, own.encode(ROWS))
    assert torch.equal(masked(own, torch.zeros(24, dtype=torch.bool)).reconstruct(ROWS), torch.zeros_like(ROWS))
