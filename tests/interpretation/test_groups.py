"""Which directions are drawn, and that the whole dictionary encodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from planted_text import planted_dataset
from sparsecode.comparison import Comparison, compare
from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.activations import AbsTopK, Gated, JumpRelu, TopK
from sparsecode.interpretation.groups import FEATURES, FOUND, OTHER, Chosen, add_baselines, codes, feature_groups
from sparsecode.interpretation.sample import chunks, draw
from sparsecode.science.claims.evidence import ComparedSweep

D = 8


def dictionary(n: int = 12, seed: int = 0, **more: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(n, D, generator=generator))
    return Dictionary(atoms.clone(), torch.zeros(n), atoms, **more)  # type: ignore[arg-type]


def swept() -> tuple[ComparedSweep, dict[str, Dictionary]]:
    """Two seeds of one size that share features 0 to 5, of which feature 0 is dead."""
    made = {}
    for seed in (0, 1):
        own = dictionary(seed=seed, meta={"l1": 0.1, "seed": seed})
        own.W_dec[:6] = dictionary(6, seed=9).W_dec
        own.features["density"] = torch.full((12,), 0.1)
        own.features["density"][0] = 0
        made[f"s{seed}"] = own
    found: Comparison = compare(made)
    return ComparedSweep("run", found, made), made


def test_features_found_again_and_others() -> None:
    sweep, made = swept()
    chosen = feature_groups(sweep, {"s0": made["s0"]}, 100, 0)
    assert {group.name: dict(group.chosen) for group in chosen.groups} == {
        FOUND: {"s0": [1, 2, 3, 4, 5]}, OTHER: {"s0": [6, 7, 8, 9, 10, 11]},
    }  # fmt: skip
    alone = feature_groups(sweep, {"elsewhere": dictionary(20)}, 100, 0)
    assert [(group.name, len(group.directions)) for group in alone.groups] == [(FEATURES, 20)]


def test_directions_are_drawn_by_seed_and_not_by_what_else_is_drawn() -> None:
    sweep, made = swept()
    one, other = (feature_groups(sweep, {"s0": made["s0"]}, 3, seed).groups for seed in (0, 1))
    assert [len(group.directions) for group in one] == [3, 3]
    assert [group.chosen for group in one] != [group.chosen for group in other]
    both = feature_groups(sweep, {"s0": made["s0"], "elsewhere": dictionary(20)}, 3, 0).groups
    assert [group.chosen for group in one] == [{"s0": group.chosen["s0"]} for group in both[:2]]


def test_of_two_signs_one_is_drawn_and_the_identity_is_left_out() -> None:
    chosen = Chosen()
    signed, plain = dictionary(16, meta={"codes": "signed"}), dictionary(8, meta={"codes": "non-negative"})
    add_baselines(chosen, {"pca": signed, "identity": signed, "neurons": plain}, 100, 0)
    drawn = {group.name: group.chosen[group.name] for group in chosen.groups}
    assert drawn.keys() == {"pca", "neurons"} and drawn["neurons"] == list(range(8))
    assert sorted(feature % 8 for feature in drawn["pca"]) == list(range(8))
    assert {feature // 8 for feature in drawn["pca"]} == {0, 1}


@pytest.mark.parametrize(
    "activation",
    [TopK(3), AbsTopK(3), JumpRelu(torch.full((12,), 0.3)), Gated(torch.zeros(12), torch.zeros(12))],
    ids=lambda one: one.name,
)
def test_codes_are_those_of_the_whole_dictionary(activation: object, tmp_path: Path) -> None:
    dataset = planted_dataset(60)
    dataset.activations = torch.randn(dataset.rows, D, generator=torch.Generator().manual_seed(0))
    sample = draw(dataset, 10**9, 0)
    own = dictionary(activation=activation)
    found = codes({"d": [5, 2]}, {"d": own}, chunks(dataset, sample, 64), sample)["d"]
    expected = own.encode(dataset.activations)[:, [5, 2]].clamp(min=0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found > 0).any() and (found >= 0).all()
