"""A sweep's start and saved state; no two dictionaries share atoms."""

from __future__ import annotations

import pytest
import torch

from sparsecode.errors import CheckpointCorrupt, InvalidArgument, InvalidSetting
from sparsecode.sweep import LossSettings, Sweep, choose_engine, grid, initial_atoms
from sparsecode.sweep.engines.reference import ReferenceEngine


def test_no_two_dictionaries_share_atoms() -> None:
    D, sizes, l1, seeds = 32, [64, 128, 65], [1e-3, 2e-3], [0, 1]
    entries = grid(sizes, l1, seeds)
    atoms = [initial_atoms(size, coefficient, seed, D) for size, coefficient, seed in entries]
    for i, ours in enumerate(atoms):
        for theirs in atoms[:i]:
            assert (ours @ theirs.T).abs().max() < 0.95
    again = initial_atoms(*entries[3], D)
    assert torch.equal(again, atoms[3])


def test_sweep_starts_from_the_atoms_of_its_keys() -> None:
    sweep = Sweep(5, [3, 4], [0.1, 0.2], [7, 8], lr=[1e-3, 2e-3])
    assert (sweep.offsets, sweep.total, len(sweep), sweep.lr) == ([0, 3, 7], 7, 2, [1e-3, 2e-3])
    assert torch.equal(sweep.W_dec[3:], initial_atoms(4, 0.2, 8, 5))
    assert torch.equal(sweep.W_enc, sweep.W_dec)
    assert sweep.W_enc is not sweep.W_dec
    assert not sweep.b_enc.any()
    torch.testing.assert_close(sweep.W_dec.norm(dim=1), torch.ones(7))
    assert sweep.names == ["n3_l1-0.1_s7", "n4_l1-0.2_s8"]


def test_initial_cosine_tells_how_far_atoms_moved() -> None:
    sweep = Sweep(4, [2, 3], [0.1, 0.1], [0, 0])
    torch.testing.assert_close(sweep.initial_cosine(1), torch.ones(3))
    start = sweep.W_dec[2].clone()
    orthogonal = torch.linalg.qr(torch.stack([start, torch.ones(4)], dim=1)).Q[:, 1]
    sweep.W_dec[2] = orthogonal
    sweep.W_dec[3] *= -1
    torch.testing.assert_close(sweep.initial_cosine(1), torch.tensor([0.0, -1.0, 1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True, pre_bias=True)], ids=str)
def test_state_comes_back_in_place_and_training_goes_on_with_the_same_bits(loss: LossSettings) -> None:
    engine, generator = ReferenceEngine(), torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 6, generator=generator) for _ in range(6)]
    sweep, other = (Sweep(6, [4, 9], [0.1, 0.2], [0, 0], loss=loss) for _ in range(2))
    for x in batches[:3]:
        engine.step(sweep, x, 1.0)
    other.load_state_dict({name: value.clone() for name, value in sweep.state_dict().items()})
    for x in batches[3:]:
        engine.step(sweep, x, 1.0)
        engine.step(other, x, 1.0)
    for name, value in sweep.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert torch.equal(other.fired, sweep.fired)
    assert (other.step, other.W_enc is other.W_dec) == (6, loss.tied)


def test_a_state_of_another_sweep_is_refused() -> None:
    state = Sweep(6, [4], [0.1], [0]).state_dict()
    with pytest.raises(CheckpointCorrupt, match="'W_enc' is torch"):
        Sweep(6, [5], [0.1], [0]).load_state_dict(state)
    with pytest.raises(CheckpointCorrupt, match="'b_dec' is missing"):
        Sweep(6, [4], [0.1], [0], loss=LossSettings(pre_bias=True)).load_state_dict(state)


@pytest.mark.parametrize(
    ("width", "sizes", "l1", "seeds"), [(4, [], [], []), (4, [2], [0.1, 0.2], [0]), (0, [2], [0.1], [0])]
)
def test_lists_that_do_not_fit_are_named(width: int, sizes: list[int], l1: list[float], seeds: list[int]) -> None:
    with pytest.raises(InvalidArgument):
        Sweep(width, sizes, l1, seeds)


def test_engines_are_chosen_by_name_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("reference", "cpu").name == "reference"
    monkeypatch.setenv("SPARSECODE_ENGINE", "reference")
    assert choose_engine("auto", "cpu").name == "reference"
    monkeypatch.setenv("SPARSECODE_ENGINE", "abacus")
    with pytest.raises(InvalidSetting, match="engine 'abacus' is unknown"):
        choose_engine("auto", "cpu")
    with pytest.raises(InvalidSetting, match="cannot be used here"):
        choose_engine("reference", "abacus")


def test_loss_settings_are_checked() -> None:
    with pytest.raises(InvalidSetting, match="mse"):
        LossSettings(mse="median")
    with pytest.raises(InvalidSetting, match="l1-scale"):
        LossSettings(l1_scale="old")
