"""From clusters to a dictionary: folding of normalisations and norms, thresholds, medoids."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from sparsecode.comparison import compare
from sparsecode.comparison.comparing import compare_members
from sparsecode.comparison.members import member_of
from sparsecode.comparison.records import CompareSettings
from sparsecode.consensus import averaged, cluster, voter_of
from sparsecode.dictionary import Activation, Dictionary, JumpRelu, Relu
from sparsecode.errors import NotExpressible


def made(seed: int = 0, *, norms: bool = True, **more: object) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    atoms = normalize(torch.randn(24, 16, generator=generator))
    length = 0.5 + 1.5 * torch.rand(24, 1, generator=generator) if norms else torch.ones(24, 1)
    encoder = atoms + 0.2 * torch.randn(24, 16, generator=generator)
    bias = 0.3 * torch.randn(24, generator=generator)
    return Dictionary(encoder, bias, atoms * length, **more)  # type: ignore[arg-type]


MEAN, PRE = torch.linspace(-1, 1, 16), torch.linspace(0.5, -0.2, 16)
FORMS: dict[str, dict[str, Any]] = {
    "none": {},
    "rms": {"scale": 0.2},
    "center": {"mean": MEAN, "scale": 3.0},
    "pre-bias": {"b_dec": PRE},
    "all": {"mean": MEAN, "scale": 0.7, "b_dec": PRE},
    "b_dec to the output alone": {"mean": MEAN, "scale": 0.7, "b_dec": PRE, "apply_b_dec_to_input": False},
    "jumprelu": {"mean": MEAN, "scale": 0.7, "b_dec": PRE, "activation": JumpRelu(torch.linspace(0, 1, 24))},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scaled", [None, (0.3 * MEAN, 2.0)], ids=["own", "another normalisation"])
def test_the_consensus_of_one_dictionary_is_that_dictionary(form: str, scaled: object) -> None:
    own = made(**FORMS[form])
    comparison = compare_members([member_of(own, "a")], [None], CompareSettings(), match_all=False)
    voter = voter_of(own, "a")
    found = cluster(comparison, [voter], 0.8)
    assert bool((found.support == 1).all()) and len(found) == 24
    again = averaged(found, torch.arange(24), [voter], scaled=scaled)  # type: ignore[arg-type]
    x = 2 * torch.randn(500, 16, generator=torch.Generator().manual_seed(3))
    codes = own.encode(x) * own.W_dec.norm(dim=1) * own.scale / again.scale  # in units of what they add
    assert torch.allclose(again.encode(x)[:, found.label], codes, atol=1e-5)
    assert torch.allclose(again.reconstruct(x), own.reconstruct(x), atol=1e-5)
    assert isinstance(again.activation, JumpRelu if form == "jumprelu" else Relu)


def test_members_with_other_scales_average_as_if_they_had_the_same() -> None:
    """A dictionary, and the same one written for activations in other units, are the same to their consensus."""
    own = made(norms=False, scale=1.0)
    other = Dictionary(own.W_enc * 0.5, own.b_enc * 0.5, own.W_dec * 2.0)
    named = {"a": own, "b": other}
    voters = [voter_of(one, name) for name, one in named.items()]
    found = cluster(compare(named), voters, 0.8)
    assert bool((found.support == 2).all())
    both = averaged(found, torch.arange(24), voters)
    x = torch.randn(200, 16)
    assert torch.allclose(both.reconstruct(x), own.reconstruct(x), atol=1e-5)


def test_a_medoid_is_a_members_own_feature() -> None:
    named = {}
    for k in range(3):
        noisy = made()
        noise = 0.1 * torch.randn(24, 16, generator=torch.Generator().manual_seed(k))
        named[str(k)] = Dictionary(noisy.W_enc, noisy.b_enc, normalize(noisy.W_dec) + noise)
    voters = [voter_of(one, name) for name, one in named.items()]
    found = cluster(compare(named), voters, 0.8)
    chosen = torch.nonzero(found.support == 3).flatten()
    medoids = averaged(found, chosen, voters, centre="medoid")
    every = torch.cat([one.atoms for one in voters])
    assert torch.allclose(medoids.W_dec, every[found.medoid[chosen]], atol=1e-6)
    for number, label in enumerate(chosen.tolist()):
        members = every[found.label == label]
        assert float(members[int((members @ members.T).sum(1).argmax())] @ medoids.W_dec[number]) > 1 - 1e-6


def test_thresholds_of_members_with_other_activations_are_not_averaged() -> None:
    activations: list[Activation] = [Relu(), JumpRelu(torch.zeros(24))]
    named = {str(k): made(activation=own) for k, own in enumerate(activations)}
    voters = [voter_of(one, name) for name, one in named.items()]
    assert isinstance(averaged(cluster(compare(named), voters), torch.arange(24), voters).activation, Relu)


@pytest.mark.parametrize("more", [{"input_norm": "layer_norm"}, {"W_skip": torch.eye(16)}])
def test_what_has_no_form_in_raw_activations_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(NotExpressible, match="theirs: a consensus is of"):
        voter_of(made(**more), "theirs")
