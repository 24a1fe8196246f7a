"""Starts: exact quantiles, one dictionary alone or in a sweep, the seed's own draws, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparsecode import _core
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.sweep import LossSettings, Start, Sweep, begin, initial_atoms
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import parse_kinds
from sparsecode.sweep.start import AUTO_DENSITY, STARTS

D, ROWS = 24, 600
SIZES, L1, SEEDS = [40, 7, 100], [0.01, 0.01, 0.02], [0, 0, 3]


def sample(rows: int = ROWS, width: int = D) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(5)) + 0.3


def begun(start: Start, loss: LossSettings | None = None, threads: int = 1) -> Sweep:
    sweep = Sweep(D, SIZES, L1, SEEDS, loss=loss, orthogonal=start.orthogonal)
    begin(sweep, start, sample(), threads)
    return sweep


def kth(x: torch.Tensor, encoder: torch.Tensor, k: int, path: str = "auto", threads: int = 1) -> torch.Tensor:
    out = torch.empty(len(encoder))
    _core.kth_largest(x.numpy(), encoder.numpy(), k, out=out.numpy(), path=path, threads=threads)
    return out


@pytest.mark.parametrize(("rows", "width", "features"), [(1, 1, 1), (5, 3, 2), (130, 20, 33), (67, 128, 65)])
def test_the_kth_largest_product_is_that_of_a_sort(rows: int, width: int, features: int) -> None:
    x, encoder = sample(rows, width), initial_atoms(features, 0.1, 0, width)
    expected = (x.double() @ encoder.double().T).sort(dim=0, descending=True).values
    for k in {1, (rows + 1) // 2, rows}:
        torch.testing.assert_close(kth(x, encoder, k).double(), expected[k - 1], rtol=1e-5, atol=1e-6)


def test_the_kth_largest_has_the_same_bits_on_every_path_for_any_threads_and_alone() -> None:
    x, encoder = sample(300, 50), initial_atoms(70, 0.1, 0, 50)
    expected = kth(x, encoder, 20)
    for path in _core.CpuEngine.paths():
        for threads in (1, 3):
            assert torch.equal(kth(x, encoder, 20, path, threads), expected), path
    for j in (0, 33, 69):
        assert torch.equal(kth(x, encoder[j : j + 1].clone(), 20), expected[j : j + 1])


def test_exactly_the_larger_products_fire() -> None:
    """The products are those of the engine, bit for bit: a bias of the k-th lets k - 1 rows through, not one more."""
    x, sweep = sample(), Sweep(D, [50], [0.01], [0])
    sweep.b_enc[:] = -kth(x, sweep.W_enc, 31)
    CpuEngine(threads=1).evaluate(sweep, x)
    assert sweep.fired.tolist() == [30] * 50


def test_infinities_and_nan_do_not_crash() -> None:
    x, encoder = sample(20, 4), initial_atoms(3, 0.1, 0, 4)
    x[3], x[7] = math.inf, math.nan
    assert kth(x, encoder, 10).shape == (3,)


@pytest.mark.parametrize("density", [None, 0.02, 0.5])
def test_every_feature_fires_on_the_same_share_of_rows(density: float | None) -> None:
    start = Start(density=density)
    sweep = begun(start)
    CpuEngine(threads=1).evaluate(sweep, sample())
    assert set(sweep.fired.tolist()) == {round((density or AUTO_DENSITY) * ROWS)}
    products = (sweep.W_enc * sweep.W_dec).sum(1)
    norms = [float(own.mean()) for own in sweep.per_dictionary(products)]
    assert norms == pytest.approx([min(1, (D / size) ** (1 / 3)) for size in SIZES])
    both = [start.record(begun(start, LossSettings(tied=tied)), 0)["encoder_norm"] for tied in (False, True)]
    assert both == [pytest.approx(norms[0]), 1]
    fixed = begun(Start(encoder_norm=0.25, whitening=0))
    torch.testing.assert_close(fixed.W_enc, 0.25 * fixed.W_dec)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_the_encoder_is_the_atoms_times_a_power_of_the_covariance(power: float) -> None:
    stretch = torch.linspace(0.5, 3, D) ** 2
    rows = sample() * stretch * torch.linspace(1, 0.9, ROWS)[:, None]
    sweep = Sweep(D, SIZES, L1, SEEDS)
    begin(sweep, Start(encoder_norm=0.25, whitening=power), 7 * rows, 1)
    variances, directions = np.linalg.eigh(np.cov(rows.double().numpy().T, bias=True))
    lowest = 0.01 * variances.mean()
    assert variances.min() < lowest, "the floor is to be seen"
    encoder = sweep.W_dec.double().numpy() @ (directions * np.maximum(variances, lowest) ** -power) @ directions.T
    encoder *= 0.25 / (encoder * sweep.W_dec.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(sweep.W_enc, encoder, rtol=1e-3, atol=1e-5)


def test_a_whitened_encoder_does_not_fire_on_the_rows_of_one_direction() -> None:
    """What whitening is for: with a strong direction, copies of the atoms fire on the same rows."""
    rows, overlap = sample() * torch.tensor([12.0] + [1.0] * (D - 1)), []
    for whitening in (0.0, 0.5):
        sweep = Sweep(D, [200], [0.01], [0])
        begin(sweep, Start(whitening=whitening), rows, 1)
        fires = (rows @ sweep.W_enc.T + sweep.b_enc > 0).double()
        overlap.append(float((fires.T @ fires / fires.sum(0)).fill_diagonal_(0).sum(0).mean() / 199))
    assert overlap[1] < 0.5 * overlap[0], "the share of a feature's rows on which another fires too"


def test_torch_sums_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several, the order of a sum, and with it the start, may depend on how many there are."""
    before, eigh, threads = torch.get_num_threads(), torch.linalg.eigh, []

    def noted(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        threads.append(torch.get_num_threads())
        return tuple(eigh(values))

    monkeypatch.setattr(torch.linalg, "eigh", noted)
    try:
        torch.set_num_threads(3)
        begun(Start(), threads=3)
        assert torch.get_num_threads() == 3, "left as it was"
    finally:
        torch.set_num_threads(before)
    assert threads == [1]


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf])
def test_rows_without_a_covariance_leave_copies_of_the_atoms(value: float) -> None:
    sweep = Sweep(D, SIZES, L1, SEEDS)
    begin(sweep, Start(encoder_norm=1.0), torch.full((20, D), value), 1)
    torch.testing.assert_close(sweep.W_enc, sweep.W_dec)


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True), LossSettings(pre_bias=True)], ids=str)
def test_a_dictionary_begins_alone_as_it_does_in_a_sweep(kind: str, loss: LossSettings) -> None:
    start = Start(kind)
    whole, threaded = begun(start, loss), begun(start, loss, threads=3)
    for name, values in whole.parameters().items():
        assert torch.equal(values, threaded.parameters()[name])
    for k in range(3):
        alone = Sweep(D, SIZES[k : k + 1], L1[k : k + 1], SEEDS[k : k + 1], loss=loss, orthogonal=start.orthogonal)
        begin(alone, start, sample(), 1)
        for name, values in alone.parameters().items():
            assert torch.equal(values, whole.parameters()[name][k : k + 1] if name == "b_dec" else
                               whole.parameters()[name][whole.rows(k)])  # fmt: skip
        torch.testing.assert_close(whole.initial_cosine(k), torch.ones(SIZES[k]))
    assert (whole.W_enc is whole.W_dec) == loss.tied


def test_the_linear_start_is_that_of_torch_linear_and_an_orthogonal_decoder() -> None:
    sweep = begun(Start("linear"))
    bound = 1 / math.sqrt(D)
    for values in (sweep.W_enc, sweep.b_enc):
        assert values.abs().max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    few, many = (sweep.W_dec[sweep.rows(k)].double() for k in (1, 2))
    torch.testing.assert_close(few @ few.T, torch.eye(7).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(many.norm(dim=1), torch.ones(100).double(), atol=1e-6, rtol=0)
    # What torch.nn.init.orthogonal_ makes of a decoder [D, F], with columns of norm 1: nearly a tight frame.
    generator = torch.Generator().manual_seed(0)
    theirs = torch.nn.init.orthogonal_(torch.empty(D, 100), generator=generator).T
    independent = torch.randn(100, D, generator=generator)
    spreads = [
        torch.linalg.svdvals(torch.nn.functional.normalize(rows.double())) for rows in (many, theirs, independent)
    ]
    evenness = [float(spread.min() / spread.max()) for spread in spreads]
    assert evenness[0] == pytest.approx(evenness[1], abs=0.1)
    assert evenness[2] < 0.7 * min(evenness[:2])


def test_no_two_dictionaries_share_orthogonal_atoms_or_draws() -> None:
    keys = [(size, l1, seed) for size in (D, 48) for l1 in (1e-3, 2e-3) for seed in (0, 1)]
    atoms = [initial_atoms(*key, D, orthogonal=True) for key in keys]
    for i, ours in enumerate(atoms):
        for theirs in atoms[:i]:
            assert (ours @ theirs.T).abs().max() < 0.95
    sweep = Sweep(D, *zip(*keys, strict=True), orthogonal=True)  # type: ignore[arg-type]
    begin(sweep, Start("linear"))
    assert len({own[0, 0].item() for own in sweep.per_dictionary(sweep.W_enc)}) == len(keys)


def test_how_other_kinds_begin() -> None:
    texts = ("topk k=3", "batchtopk k=20", "jumprelu l0=4 window=0.1", "gated l1=0.1", "relu l1=0.1")
    kinds = [kind for text in texts for kind in parse_kinds(text)]
    loss, size = LossSettings(pre_bias=True), 120
    x = sample() + 3
    sweep = Sweep(D, [size] * 5, kinds, [0] * 5, loss=loss)
    start = Start()
    begin(sweep, start, x, threads=1)
    assert sweep.b_dec is not None
    assert not sweep.b_dec[4].any()
    for own in sweep.b_dec[:4]:
        torch.testing.assert_close(own, x.double().mean(0).float(), rtol=1e-6, atol=0)
    for k in range(4):
        y = (x - sweep.b_dec[k]) @ sweep.W_enc[sweep.rows(k)].T + sweep.b_enc[sweep.rows(k)]
        above = (y > 0).sum(0)
        density = (AUTO_DENSITY, 1 / 3, AUTO_DENSITY, AUTO_DENSITY)[k]  # of k = 20, twice that by 120
        torch.testing.assert_close(above, torch.full_like(above, round(density * ROWS)), rtol=0, atol=1)
        assert start.record(sweep, k)["density"] == pytest.approx(density)
    assert sweep.own["theta"].tolist() == pytest.approx([0.05] * size)  # half of the window
    assert torch.equal(sweep.own["b_mag"], sweep.b_enc[sweep.rows(3)])
    assert not sweep.own["rho"].any()
    plain = Sweep(D, [size] * 5, kinds, [0] * 5)
    assert not Start("atoms").needs_rows(plain)
    begin(plain, Start("atoms"))
    assert plain.own["theta"].tolist() == pytest.approx([0.05] * size)
    assert not plain.b_enc.any()
    with pytest.raises(InvalidArgument, match="a start 'atoms' needs a sample"):
        begin(Sweep(D, [size], kinds[:1], [0], loss=loss), Start("atoms"))


def test_what_cannot_be_used_is_named() -> None:
    for wrong in ({"kind": "warm"}, {"encoder_norm": 0.0}, {"density": 1.0}, {"density": math.nan},
                  {"whitening": -0.1}, {"whitening": math.nan}):  # fmt: skip
        with pytest.raises(InvalidSetting, match="must be"):
            Start(**wrong)
    with pytest.raises(InvalidSetting, match="initial-density must be a number or auto, not 'low'"):
        Start.parse("calibrated", "auto", "low", "auto")
    assert Start.parse("calibrated", "0.5", "auto", "0") == Start(encoder_norm=0.5, whitening=0)
    sweep = Sweep(D, SIZES, L1, SEEDS)
    for rows, message in ((None, "not none"), (sample(1), "2 or more"), (sample(width=D + 1), "2 or more, 24")):
        with pytest.raises(InvalidArgument, match=message):
            begin(sweep, Start(), rows)
    with pytest.raises(InvalidArgument, match="before its first step"):
        begin(sweep, Start("linear"))
    ReferenceEngine().step(sweep, sample(), 1.0)
    with pytest.raises(InvalidArgument, match="before its first step"):
        begin(sweep, Start(), sample())
    for k, x in ((0, np.ones((2, 3), np.float32)), (3, np.ones((2, 3), np.float32)), (1, np.ones(4, np.float32))):
        with pytest.raises(InvalidArgument, match="are not rows of 3"):
            _core.kth_largest(x, np.ones((2, 3), np.float32), k, out=np.zeros(2, np.float32))
