"""Kinds of dictionaries: gradients by hand equal autograd of their losses in float64; what holds for every kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kind_cases import (
    KINDS,
    NAN,
    B,
    D,
    F,
    Jump,
    Step,
    by_autograd,
    check,
    errors,
    pre_activations,
    selected,
    values,
    weights_of,
)
from sparsecode import dictionary
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import (
    AuxK,
    BatchTopK,
    Gated,
    JumpRelu,
    Kind,
    PAnneal,
    Relu,
    TopK,
    Weights,
    forward_and_back,
    largest,
    next_threshold,
)

GROUPS = [(), (F,), (3, F), (1, 2, 9, F)]


def name_of(kind: Kind) -> str:
    return type(kind).__name__


def gradients(
    kind: Kind, weights: Weights, x: Tensor, divisor: float, *more: Any, **named: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its gradients by name."""
    found = forward_and_back(kind, weights, x, divisor, *more, **named)
    return found.loss, found.gradients


@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("kind", [TopK(1), TopK(4), TopK(F - 1), TopK(F), TopK(F + 9), BatchTopK(1), BatchTopK(3.5),
                                  BatchTopK(F), BatchTopK(F + 9)])  # fmt: skip
def test_selecting_kinds_equal_autograd(kind: TopK | BatchTopK, pre_bias: bool) -> None:
    weights, x = weights_of(kind, pre_bias=pre_bias), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        return errors(own, selected(y, kind), centred) / (B * D)

    check(gradients(kind, weights, x, B * D), by_autograd(weights, x, loss))


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("kind", [Relu(0.3), PAnneal(0.3, 1.0), PAnneal(0.3, 0.7), PAnneal(0.3, 0.2)], ids=repr)
def test_relu_and_p_annealing_equal_autograd(kind: Relu, pre_bias: bool, groups: tuple[int, ...]) -> None:
    weights, x = weights_of(kind, pre_bias=pre_bias), values(B, D)
    p = kind.p if isinstance(kind, PAnneal) else 1.0

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        penalty = 0.3 / B * (y[y > 0] ** p).sum()
        return errors(own, y.relu(), centred, groups or (F,)) / (B * D) + penalty

    check(gradients(kind, weights, x, B * D, groups), by_autograd(weights, x, loss))


def test_p_annealing_begins_as_relu_and_its_slope_has_a_bound() -> None:
    x = values(B, D)
    weights = weights_of(Relu(0.3))
    begins, relu = (gradients(kind, weights, x, B) for kind in (PAnneal(0.3, 1.0), Relu(0.3)))
    assert all(torch.equal(begins[1][name], value) for name, value in relu[1].items())
    y, q = torch.tensor([[1e-30, 1e-6, 4.0, 0.0, -1.0]]).double(), torch.zeros(1, 5).double()
    dy = PAnneal(1.0, 0.5).backward(y, y.relu(), q, weights)[0]
    torch.testing.assert_close(dy, torch.tensor([[500.0, 500, 0.25, 0, 0]]).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mse", ["mean", "sum"])
@pytest.mark.parametrize("l1_scale", ["plain", "per-size"])
@pytest.mark.parametrize("pre_bias", [False, True])
def test_relu_is_what_the_reference_engine_trains(mse: str, l1_scale: str, pre_bias: bool) -> None:
    loss = LossSettings(mse=mse, l1_scale=l1_scale, pre_bias=pre_bias)
    sweep = Sweep(D, [F, 2 * F], [0.3, 0.1], [0, 1], lr=1e-3, loss=loss, dtype=torch.float64)
    sweep.b_enc.copy_(values(3 * F) / 4)
    if sweep.b_dec is not None:
        sweep.b_dec.copy_(values(2, D, seed=1))
    x = values(B, D, seed=2)
    stats, packed = ReferenceEngine().gradients(sweep, x)
    for k in range(2):
        rows = sweep.rows(k)
        b_dec = sweep.b_dec[k] if sweep.b_dec is not None else None
        weights = Weights(sweep.W_enc[rows], sweep.b_enc[rows], sweep.W_dec[rows], b_dec)
        found = gradients(Relu(sweep.penalty(k)), weights, x, sweep.error_divisor(B))
        expected = {name: value[k] if name == "b_dec" else value[rows] for name, value in packed.items()}
        total = stats.sse[k] / sweep.error_divisor(B) + sweep.penalty(k) * stats.l1[k] / B
        check(found, (total, expected))


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("pre_bias", [False, True])
def test_gated_equals_autograd(pre_bias: bool, groups: tuple[int, ...]) -> None:
    kind = Gated(0.3)
    weights, x = weights_of(kind, pre_bias=pre_bias), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        projected = centred @ own.W_enc.T
        z = (y > 0) * (projected * own.own("rho").exp() + own.own("b_mag")).relu()
        gate = y.relu()
        both = errors(own, z, centred, groups or (F,)) + errors(own, gate, centred, groups or (F,), frozen=True)
        return both / (B * D) + 0.3 * gate.sum(1).mean()

    check(gradients(kind, weights, x, B * D, groups), by_autograd(weights, x, loss))


def test_the_second_reconstruction_of_gated_leaves_decoder_and_magnitudes_alone() -> None:
    """A gate that is open everywhere with the same magnitudes has the same W_dec gradient, whatever it costs."""
    kind, x = Gated(0.3), values(B, D)
    weights = weights_of(kind)
    first = gradients(kind, weights, x, B)[1]
    second = gradients(Gated(30.0), weights, x, B)[1]
    for name in ("W_dec", "b_mag", "rho"):
        assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["b_enc"], second["b_enc"])


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("kind", [TopK(4), BatchTopK(3)])
def test_nested_groups_equal_autograd(kind: TopK | BatchTopK, groups: tuple[int, ...]) -> None:
    weights, x = weights_of(kind), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        return errors(own, selected(y, kind), centred, groups or (F,)) / B

    found = gradients(kind, weights, x, B, groups)
    check(found, by_autograd(weights, x, loss))
    if len(groups) == 1:
        plain = gradients(kind, weights, x, B)
        assert all(torch.equal(found[1][name], value) for name, value in plain[1].items())


@pytest.mark.parametrize("groups", [(3,), (F + 1,), (0, F), (5, 5, F), (9, 3, F), (-1, F)])
def test_groups_that_leave_features_out_are_refused(groups: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match=f"do not ascend to the {F} features"):
        gradients(TopK(3), weights_of(TopK(3)), values(B, D), B, groups)


@pytest.mark.parametrize("pre_activation", [0.0, 0.03])
@pytest.mark.parametrize("to_input", [False, True])
@pytest.mark.parametrize("window", [0.05, 2.0])
@pytest.mark.parametrize(
    ("penalty", "target"), [("step", None), ("target", 3.0), ("quadratic", 3.0), ("quadratic", 7.5), ("tanh", None)]
)
def test_jumprelu_equals_autograd_of_its_estimator(
    penalty: str, target: float | None, window: float, to_input: bool, pre_activation: float
) -> None:
    kind = JumpRelu(0.2, window, penalty, target, to_input=to_input, pre_activation=pre_activation)
    weights, x = weights_of(kind), values(B, D)

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        theta = own.own("theta")
        z, l0 = Jump.apply(y, theta, window, to_input), Step.apply(y, theta, window, to_input).sum(1)
        wanted = target or 1.0
        more = {
            "step": 0.2 * l0.mean(),
            "target": 0.2 * (l0.mean() / wanted - 1) ** 2,
            "quadratic": (0.2 * (2 / wanted * (l0 - wanted) ** 2)).mean(),
            "tanh": 0.2 * (4 * z).tanh().sum(1).mean(),
        }[penalty]
        silent = pre_activation * (theta - y).relu().sum(1).mean()
        total: Tensor = errors(own, z, centred) / (B * D) + more + silent
        return total

    check(gradients(kind, weights, x, B * D), by_autograd(weights, x, loss))


def test_the_two_penalties_with_a_target_agree_where_every_row_has_the_same_l0() -> None:
    """SAELens's is 2 L0* times dictionary_learning's there; rows that differ cost more."""
    theta, y = torch.zeros(4).double(), torch.tensor([[1.0, 1, 1, -1], [-1, 1, 1, 1]]).double()
    weights = replace(weights_of(TopK(1)), theta=theta)
    rows, mean = JumpRelu(0.5, 0.1, "quadratic", 2.0), JumpRelu(0.5 * 2 * 2, 0.1, "target", 2.0)
    assert rows.penalty(y, y.relu(), weights) == mean.penalty(y, y.relu(), weights) == 0.5
    y[0] = torch.tensor([1.0, 1, 1, 1])
    y[1] = torch.tensor([-1.0, -1, 1, 1])
    assert mean.penalty(y, y.relu(), weights) == 0.5
    assert rows.penalty(y, y.relu(), weights) == 1.0


def test_the_pre_activation_loss_has_a_sparse_form() -> None:
    """All rows less those on which a feature fires: what an engine that walks through codes alone can compute."""
    x, kinds = values(B, D), [JumpRelu(0.2, 0.1, pre_activation=p) for p in (0.0, 0.7)]
    weights = weights_of(kinds[0], pre_bias=False)
    plain, more = (gradients(kind, weights, x, B)[1] for kind in kinds)
    fires = (pre_activations(weights, x) > weights.own("theta")).double()
    torch.testing.assert_close(more["W_enc"], plain["W_enc"] - 0.7 / B * (x.sum(0) - fires.T @ x), rtol=0, atol=1e-12)
    silent = 0.7 / B * (B - fires.sum(0))
    torch.testing.assert_close(more["b_enc"], plain["b_enc"] - silent, rtol=0, atol=1e-12)
    torch.testing.assert_close(more["theta"], plain["theta"] + silent, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [None, 1, 2, F])
@pytest.mark.parametrize("kind", [TopK(3), BatchTopK(2), Relu(0.3)])
def test_the_loss_of_dead_features_equals_autograd_and_is_theirs(kind: Kind, k: int | None) -> None:
    weights, x, aux = weights_of(kind), values(B, D), AuxK(0.3, k)
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[2, 3, 11, 17, 20]] = True

    def loss(own: Weights, y: Tensor, centred: Tensor) -> Tensor:
        z = selected(y, kind) if isinstance(kind, TopK | BatchTopK) else y.relu()
        e = -(z @ own.W_dec - centred).detach()
        e_hat = selected(y[:, dead], TopK(min(k or D // 2, int(dead.sum())))) @ own.W_dec[dead]
        share = (e_hat - e).square().sum() / (e - e.mean(0)).square().sum()
        penalty = 0.3 * z.sum(1).mean() if isinstance(kind, Relu) else 0.0
        return errors(own, z, centred) / B + penalty + aux.alpha * share

    found = gradients(kind, weights, x, B, aux=aux, dead=dead)
    check(found, by_autograd(weights, x, loss))
    plain = gradients(kind, weights, x, B)[1]
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(found[1][name][~dead], plain[name][~dead])
        assert not torch.equal(found[1][name][dead], plain[name][dead])


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_the_loss_of_dead_features_is_nothing_without_any_or_where_nothing_varies(kind: Kind) -> None:
    weights, x = weights_of(kind), values(B, D)
    nobody, everybody = torch.zeros(F, dtype=torch.bool), torch.ones(F, dtype=torch.bool)
    for rows, dead in ((x, nobody), (x[:1], everybody), (x[:1].expand(B, D), everybody)):
        plain, more = gradients(kind, weights, rows, 1), gradients(kind, weights, rows, 1, aux=AuxK(), dead=dead)
        assert all(torch.equal(plain[1][name], more[1][name]) for name in plain[1])
        assert torch.equal(plain[0], more[0])
    assert gradients(kind, weights, x, 1, aux=AuxK(), dead=everybody)[0] > gradients(kind, weights, x, 1)[0]
    with pytest.raises(InvalidArgument, match="told which are dead"):
        gradients(kind, weights, x, 1, aux=AuxK())


@pytest.mark.parametrize(
    ("k", "row", "kept"),
    [
        (2, [3.0, -4, 1, 2], [3.0, 0, 0, 2]),
        (2, [3.0, 1, 1, 1], [3.0, 1, 1, 1]),  # all that equal the second
        (2, [1.0, 1, 1, 1], [1.0, 1, 1, 1]),
        (2, [0.0, 0, 0, -1], [0.0, 0, 0, 0]),  # equal, but not positive
        (3, [3.0, -4, -1, 0], [3.0, 0, 0, 0]),  # fewer than k are positive
        (2, [-3.0, -4, -1, 0], [0.0, 0, 0, 0]),
        (4, [3.0, -4, 1, 2], [3.0, 0, 1, 2]),
        (9, [3.0, -4, 1, 2], [3.0, 0, 1, 2]),
        (1, [3.0, NAN, 1, 2], [0.0, NAN, 0, 0]),
        (2, [3.0, NAN, 1, 2], [3.0, NAN, 0, 0]),
        (9, [3.0, NAN, 1, 2], [3.0, NAN, 1, 2]),
        (2, [NAN, NAN, NAN, 2], [NAN, NAN, NAN, 0]),
    ],
)
def test_which_codes_are_kept(k: int, row: list[float], kept: list[float]) -> None:
    y, expected, weights = torch.tensor([row]), torch.tensor([kept]), weights_of(TopK(k))
    for found in (largest(y, k), TopK(k).codes(y, weights), BatchTopK(k).codes(y, weights)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_batch_shares_its_codes_among_its_rows() -> None:
    y, weights = torch.tensor([[5.0, 4, 3], [2, 1, -1], [-1, -1, -1]]), weights_of(BatchTopK(1))
    assert BatchTopK(1).codes(y, weights).tolist() == [[5, 4, 3], [0, 0, 0], [0, 0, 0]]
    assert BatchTopK(1.4).codes(y, weights).tolist() == [[5, 4, 3], [2, 0, 0], [0, 0, 0]]
    assert BatchTopK(0.1).codes(y, weights).tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_one_row_is_a_batch_of_one() -> None:
    """On one row the k B largest of a batch are the k largest of the row."""
    x, weights = values(1, D), weights_of(TopK(3))
    for k in (1, 3, F, F + 9):
        row, batch = (gradients(kind, weights, x, 1)[1] for kind in (TopK(k), BatchTopK(k)))
        assert all(torch.equal(row[name], value) for name, value in batch.items())


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_every_row_alone_adds_up_to_the_batch(kind: Kind) -> None:
    """One row is enough; the gradients of a batch are the mean of those of its rows, but for the batch's largest."""
    if isinstance(kind, BatchTopK):
        kind = BatchTopK(F)
    weights, x = weights_of(kind), values(B, D)
    found = gradients(kind, weights, x, B)
    alone = [gradients(kind, weights, row[None], 1) for row in x]
    torch.testing.assert_close(torch.stack([loss for loss, _ in alone]).mean(), found[0], rtol=1e-12, atol=1e-12)
    for name, value in found[1].items():
        mean = torch.stack([own[name] for _, own in alone]).mean(0)
        torch.testing.assert_close(mean, value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_nan_shows_in_all_gradients_and_silence_in_none(kind: Kind) -> None:
    weights, x = weights_of(kind), values(B, D)
    x[2, 1] = NAN
    loss, found = gradients(kind, weights, x, B)
    assert bool(loss.isnan())
    shown = [name for name, value in found.items() if bool(value.isnan().any())]
    assert {"W_enc", "b_enc", "W_dec", "b_dec"} <= set(shown)
    with_dead = gradients(kind, weights, x, B, aux=AuxK(), dead=torch.ones(F, dtype=torch.bool))
    assert bool(with_dead[0].isnan())
    silent = weights_of(kind, b_enc=torch.full((F,), -99.0).double())
    found = gradients(kind, silent, values(B, D), B)[1]
    assert [name for name, value in found.items() if bool(value.any())] == ["b_dec"]


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_nan_in_one_parameter_shows(kind: Kind) -> None:
    for name, value in vars(weights_of(kind)).items():
        if value is None or name == "theta":  # nothing is above a threshold of NaN: `Sweep.diverged` is told by it
            continue
        broken = value.clone()
        broken.view(-1)[3] = NAN
        assert bool(gradients(kind, replace(weights_of(kind), **{name: broken}), values(B, D), B)[0].isnan()), name


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_gradients_change_nothing_and_have_the_shapes_of_the_parameters(kind: Kind) -> None:
    weights, x = weights_of(kind), values(B, D)
    before = {name: value.clone() for name, value in vars(weights).items() if value is not None}
    found = gradients(kind, weights, x, B, (3, F), AuxK(), torch.ones(F, dtype=torch.bool))[1]
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in before.items()}
    assert all(torch.equal(value, getattr(weights, name)) for name, value in before.items())
    assert torch.equal(x, values(B, D))


def test_what_is_trained_is_what_a_dictionary_of_the_kind_encodes() -> None:
    y, none = values(B, F), torch.zeros(F).double()
    jump, gated = weights_of(JumpRelu(0.1, 0.1)), weights_of(Gated(0.1))
    assert torch.equal(Relu(0.1).codes(y, jump), dictionary.Relu().encode(y, none))
    assert torch.equal(TopK(4).codes(y, jump), dictionary.TopK(4).encode(y, none))
    theta = dictionary.JumpRelu(jump.own("theta"))
    assert torch.equal(JumpRelu(0.1, 0.1).codes(y, jump), theta.encode(y, none))
    both = dictionary.Gated(gated.own("rho"), gated.own("b_mag"))
    found = Gated(0.1).codes(y + gated.b_enc, gated)
    torch.testing.assert_close(found, both.encode(y, gated.b_enc), rtol=1e-12, atol=1e-12)
    assert 0.1 < float((found > 0).double().mean()) < 0.9
    z = BatchTopK(4).codes(y, jump)
    threshold = next_threshold(None, z)
    assert threshold is not None
    after = dictionary.BatchTopK(torch.full((F,), threshold, dtype=torch.float64) * (1 - 1e-12), 4).encode(y, none)
    assert torch.equal(after, z)


def test_the_running_threshold() -> None:
    silent = torch.zeros(2, 3)
    assert next_threshold(None, silent) is None
    first = next_threshold(None, torch.tensor([[0.0, 3, 5]]))
    assert first == 3
    assert next_threshold(first, silent) == 3
    assert next_threshold(first, torch.tensor([[0.0, 4, 5]])) == pytest.approx(3.01)


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(InvalidSetting, match="penalty must be one of step, target, quadratic, tanh, not 'l1'"):
        JumpRelu(0.1, 0.1, "l1")
    for penalty, target in (("target", None), ("quadratic", None), ("step", 3.0), ("tanh", 3.0)):
        with pytest.raises(InvalidSetting, match="belongs to the penalties target and quadratic"):
            JumpRelu(0.1, 0.1, penalty, target)
    for make, words in (
        (lambda: JumpRelu(0.1, 0.0), "window is 0.0"),
        (lambda: JumpRelu(0.1, 0.1, "target", 0.0), "target L0 is 0.0"),
        (lambda: TopK(0), "k is 0, not a whole number"),
        (lambda: BatchTopK(NAN), "k is nan"),
        (lambda: PAnneal(0.1, 0.0), "p is 0.0"),
    ):
        with pytest.raises(InvalidSetting, match=words):
            make()
