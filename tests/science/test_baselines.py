"""Each baseline against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsecode.errors import InvalidArgument
from sparsecode.science.baselines.kinds import BASELINES, Array, Fit, ica, identity, neurons, nmf, pca, random
from sparsecode.sweep import Dictionary
from sparsecode.sweep.reconstruction import evaluate, fvu_of_strongest

D = 6


def fit(x: Array, *, iterative_rows: int = 100_000, ica_iterations: int = 200, nmf_iterations: int = 400) -> Fit:
    return Fit(np.asarray(x, dtype=np.float64), iterative_rows, ica_iterations, nmf_iterations, seed=0)


def gaussian(rows: int = 20_000, spread: tuple[float, ...] = (3.0, 2.0, 1.5, 1.0, 0.5, 0.25)) -> tuple[Array, Array]:
    """Rows with covariance V diag(spread²) V^T about a mean of 1, and the rows of V^T."""
    generator = np.random.default_rng(0)
    axes = np.linalg.qr(generator.standard_normal((D, D)))[0].T
    return generator.standard_normal((rows, D)) * spread @ axes + 1.0, axes


def values(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(a: Array, b: Tensor) -> Array:
    """[rows of a, rows of b]."""
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    found: Array = unit @ b.double().numpy().T
    return found


def test_pca_finds_the_axes_of_a_known_covariance_and_their_variances() -> None:
    x, axes = gaussian()
    made = pca(fit(x))
    both = cosines(axes, made.W_dec)
    assert np.abs(np.diag(both[:, :D])).min() > 0.999
    np.testing.assert_allclose(both[:, :D], -both[:, D:], atol=1e-6)
    np.testing.assert_allclose(made.features["variance"][:D], np.square([3, 2, 1.5, 1, 0.5, 0.25]), rtol=0.05)


def test_fvu_of_leading_components_is_the_tail_of_the_spectrum() -> None:
    x, _ = gaussian()
    made = pca(fit(x))
    kept = [0, 1, D, D + 1]  # both signs of the first two
    first = Dictionary(made.W_enc[kept], made.b_enc[kept], made.W_dec[kept], mean=made.mean)
    found = evaluate(first, torch.split(torch.from_numpy(x).float(), 4096))
    variances = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert found.fvu == pytest.approx(variances[2:].sum() / variances.sum(), rel=1e-3)
    assert found.l0 == pytest.approx(2)


def test_ica_recovers_independent_sources() -> None:
    generator = np.random.default_rng(0)
    sources = generator.laplace(size=(20_000, D))
    mixing = generator.standard_normal((D, D))  # row j: where source j goes
    x = sources @ mixing + 2.0
    made = ica(fit(x))
    assert made.meta["fit"]["converged"]
    found = cosines(mixing, made.W_dec)
    assert found.max(axis=1).min() > 0.995, "each source's direction is an atom, with either sign"
    assert len(set(found.argmax(axis=1) % D)) == D, "of its own"
    codes = made.encode(torch.from_numpy(x[:500]).float())
    signed = (codes[:, :D] - codes[:, D:]).double().numpy()
    agree = np.abs(np.corrcoef(signed.T, sources[:500].T)[:D, D:])
    assert agree.max(axis=0).min() > 0.99, "and its code is the source"


def test_ica_says_where_it_did_not_converge_and_leaves_flat_directions_out() -> None:
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.laplace(size=(2000, 3)) @ generator.standard_normal((3, 4)), np.ones((2000, 2))], 1)
    made = ica(fit(x, ica_iterations=1))
    assert made.dict_size == 2 * 3, "three directions vary"
    assert not made.meta["fit"]["converged"]
    assert evaluate(made, [torch.from_numpy(x).float()]).fvu < 1e-9


def test_nmf_recovers_non_negative_parts() -> None:
    generator = np.random.default_rng(0)
    # Each part has a dimension of its own, which makes the factors unique (Donoho and Stodden 2003).
    parts = np.concatenate([np.eye(D), generator.random((D, D)) * (generator.random((D, D)) < 0.5)], axis=1)
    codes = generator.exponential(size=(3000, D)) * (generator.random((3000, D)) < 0.3)
    x = np.concatenate([codes @ parts, np.zeros((1, 12))])  # nothing is subtracted: each part's least is 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "dim", D)
        made = nmf(fit(x))
    assert cosines(parts, made.W_dec).max(axis=1).min() > 0.97
    assert made.meta["fit"]["own_fvu"] < 1e-2
    found = evaluate(made, [torch.from_numpy(x).float()])
    # The map from rows to codes is linear here (the parts are independent), so the encoder loses next to nothing.
    assert found.fvu < 2e-2
    assert bool((made.W_dec >= 0).all())


def test_neurons_are_the_identity_and_lose_what_is_below_zero() -> None:
    x = values(1000, D)
    made = neurons(fit(x.double().numpy()))
    assert torch.equal(made.W_dec, torch.eye(D)) and torch.equal(made.W_enc, torch.eye(D))
    found = evaluate(made, [x])
    below = x.clamp(max=0)
    assert found.fvu == pytest.approx(float(below.square().sum() / (x - x.mean(0)).square().sum()), rel=1e-5)
    torch.testing.assert_close(found.density, (x > 0).float().mean(0))


def test_identity_loses_nothing() -> None:
    x = values(1000, D)
    x[0] = 0.0
    found = evaluate(identity(fit(x.double().numpy())), [x])
    assert found.fvu == 0.0 == found.mse
    assert found.l0 == D * 999 / 1000
    assert found.l1 == pytest.approx(float(x.abs().sum()) / 1000)


def test_random_is_a_rotation_that_its_seed_decides() -> None:
    x = values(50, D).double().numpy()
    made = random(fit(x))
    torch.testing.assert_close(made.W_dec[:D] @ made.W_dec[:D].T, torch.eye(D))
    assert torch.equal(made.W_dec, random(fit(x)).W_dec)
    other = random(Fit(x, 10, 1, 1, seed=1))
    assert float((made.W_dec - other.W_dec).abs().max()) > 0.1
    assert evaluate(made, [torch.from_numpy(x).float()]).fvu < 1e-12


@pytest.mark.parametrize("kind", ["identity", "random", "pca", "ica"])
def test_the_two_signs_of_a_direction_exclude_each_other_and_reconstruct(kind: str) -> None:
    x, _ = gaussian(4000)
    rows = torch.from_numpy(x[:300]).float()
    made = BASELINES[kind](fit(x, ica_iterations=20))
    codes = made.encode(rows)
    half = made.dict_size // 2
    assert not bool(((codes[:, :half] > 0) & (codes[:, half:] > 0)).any())
    torch.testing.assert_close(made.decode(codes), rows, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(made.dict_size))
    assert made.meta["kind"] == kind and made.meta["codes"] == "signed"


def silent() -> Dictionary:
    """Never fires: reconstructs the mean that it holds."""
    return Dictionary(torch.zeros(2, D), torch.full((2,), -1.0), torch.eye(D)[:2], mean=values(500, D).mean(0))


def test_the_mean_predictor_explains_nothing() -> None:
    found = evaluate(silent(), [values(500, D)])
    assert found.fvu == pytest.approx(1.0, abs=1e-6)
    assert (found.l0, found.l1, found.dead, found.density.tolist()) == (0.0, 0.0, 2, [0.0, 0.0])
    with pytest.raises(InvalidArgument, match="no rows"):
        evaluate(silent(), [])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_batches_or_order(batch: int, shuffle: object) -> None:
    x = values(60, D, seed=3) + 1
    made = Dictionary(values(9, D, seed=4), values(9, seed=5) - 1, torch.nn.functional.normalize(values(9, D, seed=6)))
    order = list(range(60))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    found = evaluate(made, torch.split(x[order], batch))
    whole = evaluate(made, [x])
    assert found.as_json() == pytest.approx(whole.as_json(), rel=1e-5)
    assert torch.equal(found.density, whole.density)


def test_the_strongest_codes_are_the_strongest() -> None:
    x = values(40, D, seed=7)
    made = Dictionary(values(9, D, seed=4), values(9, seed=5), torch.nn.functional.normalize(values(9, D, seed=6)))
    spread = float((x - x.mean(0)).square().sum())
    points = fvu_of_strongest(made, x, [1, 3, 100])
    assert [point["codes"] for point in points] == [1, 3, 9]
    for point in points:
        error = active = 0.0
        for row in x:
            codes = made.encode(row).tolist()
            kept = sorted(range(9), key=lambda j: -codes[j])[: point["codes"]]
            rebuilt = sum((codes[j] * made.W_dec[j] for j in kept), start=torch.zeros(D))
            error += float((rebuilt - row).square().sum())
            active += sum(codes[j] > 0 for j in kept)
        assert point["fvu"] == pytest.approx(error / spread, rel=1e-4)
        assert point["l0"] == pytest.approx(active / 40)
    assert points[-1]["fvu"] == pytest.approx(evaluate(made, [x]).fvu, rel=1e-5)
