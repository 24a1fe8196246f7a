"""What is kept from step to step: frozen atoms, and encoders aligned with their atoms."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from sparsecode import _core
from sparsecode.comparison import chance, mmcs
from sparsecode.errors import InvalidSetting
from sparsecode.sweep import Sweep, fit
from sparsecode.sweep.engines import Engine, choose_engine
from sparsecode.sweep.settings import LossSettings

ENGINES = ["reference", *_core.CpuEngine.paths()]
D = 24


def sweep_of(loss: LossSettings) -> Sweep:
    return Sweep(D, [16, 40], [0.01, 0.02], [0, 1], 5e-3, loss)


def batch(step: int, rows: int = 64) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(step))


def trained(engine: Engine, loss: LossSettings, steps: int) -> Sweep:
    sweep = sweep_of(loss)
    for step in range(steps):
        engine.step(sweep, batch(step), 1.0)
    return sweep


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("pre_bias", [False, True])
def test_frozen_atoms_do_not_change(name: str, pre_bias: bool) -> None:
    loss = LossSettings(frozen=True, pre_bias=pre_bias)
    before = sweep_of(loss).W_dec.clone()
    sweep = trained(choose_engine(name), loss, 1000 if name == "reference" or not pre_bias else 50)
    assert torch.equal(sweep.W_dec, before)
    assert not torch.equal(sweep.W_enc, before) and bool((sweep.b_enc != 0).any())


def test_every_path_trains_the_same_encoder() -> None:
    found = [trained(choose_engine(name), LossSettings(frozen=True), 60) for name in _core.CpuEngine.paths()]
    for other in found[1:]:
        assert torch.equal(other.W_enc, found[0].W_enc) and torch.equal(other.b_enc, found[0].b_enc)
    reference = trained(choose_engine("reference"), LossSettings(frozen=True), 60)
    assert float((reference.W_enc - found[0].W_enc).abs().mean()) < 1e-4


def test_encoder_gradients_are_those_of_free_atoms() -> None:
    engine = choose_engine("reference")
    frozen, free = (engine.gradients(sweep_of(LossSettings(frozen=one)), batch(0))[1] for one in (True, False))
    assert torch.equal(frozen["W_enc"], free["W_enc"]) and torch.equal(frozen["b_enc"], free["b_enc"])


def test_frozen_random_atoms_agree_by_chance_alone() -> None:
    rows = torch.randn(4000, D, generator=torch.Generator().manual_seed(0))
    found = fit(rows, [64], 0.01, 4, samples=20_000, batch_size=256, loss=LossSettings(frozen=True))
    values = [mmcs(a.W_dec, b.W_dec) for one, other in combinations(found, 2) for a, b in ((one, other), (other, one))]
    assert sum(values) / len(values) == pytest.approx(chance.expected_mmcs(64, D), abs=0.01)
    assert found[0].meta["loss"]["frozen"] is True


@pytest.mark.parametrize("name", ENGINES)
def test_aligned_encoders_have_a_product_of_1_with_their_atoms(name: str) -> None:
    engine, sweep = choose_engine(name), sweep_of(LossSettings(aligned=True))
    for step in range(40):
        engine.step(sweep, batch(step), 1.0)
        product = (sweep.W_enc.double() * sweep.W_dec.double()).sum(1)
        assert float((product - 1).abs().max()) < 1e-6
    assert not torch.allclose(sweep.W_enc, sweep.W_dec, atol=1e-3)


def test_the_bias_of_one_aligned_feature_makes_up_for_l1() -> None:
    """Of one feature x = s t with a large s, the gain stays 1 and the bias goes to -l1 D / 2."""
    l1, truth = 0.05, torch.nn.functional.normalize(torch.randn(1, D, generator=torch.Generator().manual_seed(1)))
    sweep = Sweep(D, [1], [l1], [0], 1e-2, LossSettings(aligned=True))
    sweep.W_dec.copy_(truth)
    sweep.W_enc.copy_(truth)
    engine = choose_engine("reference")
    for step in range(4000):
        strength = 4 + torch.rand(256, 1, generator=torch.Generator().manual_seed(step))
        engine.step(sweep, strength * truth, 1.0 if step < 2000 else 0.02)
    assert float(sweep.b_enc[0]) == pytest.approx(-l1 * D / 2, rel=0.01)


def test_what_is_off_is_not_recorded() -> None:
    assert LossSettings().record().keys() == LossSettings(mse="sum").record().keys()
    assert not {"frozen", "aligned"} & LossSettings().record().keys()
    with pytest.raises(InvalidSetting, match="frozen atoms need an encoder of their own"):
        LossSettings(frozen=True, tied=True)
