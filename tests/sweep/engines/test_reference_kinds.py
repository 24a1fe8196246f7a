"""The reference engine on sweeps of all kinds: gradients by autograd in float64, state, and the same bits alone.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, K dictionaries.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from engine_cases import same_bits
from kind_cases import Jump, Step, selected
from sparsecode.errors import InvalidSetting
from sparsecode.sweep import LossSettings, Start, Sweep, begin, choose_engine
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import BatchTopK, KindSpec, TopK, parse_kinds

B, D, F = 33, 10, 24
AUX = "aux=0.3 aux_k=2 dead_after=100"
TEXTS = [
    "relu l1=0.3", "relu l1=0.3 groups=1/4,3/4", "topk k=3", f"topk k=3 {AUX}", "batchtopk k=2.5",
    f"batchtopk k=3 {AUX}", "matryoshka k=3", f"matryoshka k=3 groups=1/2,1/2 {AUX}", "jumprelu l0=4 window=0.5",
    "jumprelu strength=0.2 window=0.5 groups=1/4,3/4 pre_activation=0.1",
    "jumprelu strength=0.2 window=0.5 penalty=tanh to_input=yes", "jumprelu l0=3 window=0.5 penalty=quadratic",
    "gated l1=0.3", "gated l1=0.3 groups=1/4,3/4", "panneal l1=0.3 changes=2 anneal_start=0", "relu l1=0.1",
]  # fmt: skip
KINDS = [kind for text in TEXTS for kind in parse_kinds(text)]
SWITCHES = [
    LossSettings(mse=mse, l1_scale=l1_scale, tied=tied, pre_bias=pre_bias)
    for (mse, l1_scale), tied, pre_bias in product(
        (("mean", "plain"), ("sum", "per-size")), (False, True), (False, True)
    )
]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(loss: LossSettings, kinds: list[KindSpec] = KINDS, dtype: torch.dtype = torch.float64) -> Sweep:
    """Nothing is at zero, thresholds are where pre-activations are, and every third feature is dead."""
    K = len(kinds)
    sweep = Sweep(D, [F] * K, kinds, range(K), lr=1e-2, loss=loss, dtype=dtype)
    for k in range(K):
        for seed, (name, value) in enumerate(sweep.parameters().items()):
            at = sweep.place(name, k)
            if name != "W_dec" and at is not None:
                value[at] += (0.2 * values(*value[at].shape, seed=seed)).to(dtype)
        if sweep.state.since is not None:
            sweep.state.since[sweep.rows(k)] = torch.where(torch.arange(F) % 3 == 0, 100, 0)
    if "theta" in sweep.own:
        sweep.own["theta"].abs_()
    return sweep


def losses(sweep: Sweep, own: dict[str, Tensor], x: Tensor, k: int) -> Tensor:
    """The loss of dictionary k, from the definitions of docs/kinds.md."""
    spec, size = sweep.kinds[k], sweep.sizes[k]

    def part(name: str) -> Tensor:
        return own[name][sweep.place(name, k)]

    W_dec = part("W_dec")
    W_enc = part("W_enc") if "W_enc" in own else W_dec
    b_dec = part("b_dec") if "b_dec" in own else torch.zeros(D, dtype=x.dtype)
    projected = (x - b_dec) @ W_enc.T
    y = projected + part("b_enc")
    l1 = (spec.l1 or 0.0) / (size if sweep.loss.l1_scale == "per-size" else 1)
    second, penalty = None, torch.zeros((), dtype=x.dtype)
    if spec.name in ("relu", "panneal"):
        z = y.relu()
        penalty = l1 * z.sum(1).mean()
    elif spec.k is not None:
        z = selected(y, TopK(int(spec.k)) if spec.name == "topk" else BatchTopK(spec.k))
    elif spec.name == "gated":
        z = (y > 0) * (projected * part("rho").exp() + part("b_mag")).relu()
        second = y.relu()
        penalty = l1 * second.sum(1).mean()
    else:
        theta, window, to_input = part("theta"), spec.window, bool(spec.to_input)
        z, l0 = Jump.apply(y, theta, window, to_input), Step.apply(y, theta, window, to_input).sum(1)
        target = spec.l0 or 1.0
        penalty = (spec.strength or 0.0) * {
            "step": l0.mean(),
            "target": (l0.mean() / target - 1) ** 2,
            "quadratic": (2 / target * (l0 - target) ** 2).mean(),
            "tanh": (4 * z).tanh().sum(1).mean(),
        }[str(spec.penalty)]
        penalty = penalty + (spec.pre_activation or 0.0) * (theta - y).relu().sum(1).mean()

    def error(codes: Tensor, W: Tensor, b: Tensor) -> Tensor:
        ends = spec.ends(size) or (size,)
        several = torch.stack([(codes[:, :end] @ W[:end] + b - x).square().sum() for end in ends])
        return several.mean() / sweep.error_divisor(len(x))

    total = error(z, W_dec, b_dec) + penalty
    if second is not None:
        total = total + error(second, W_dec.detach(), b_dec.detach())
    if spec.aux:
        dead = torch.arange(size) % 3 == 0
        e = (x - z @ W_dec - b_dec).detach()
        e_hat = selected(y[:, dead], TopK(int(spec.aux_k or D // 2))) @ W_dec[dead]
        total = total + spec.aux * (e_hat - e).square().sum() / (e - e.mean(0)).square().sum()
    return total


@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_gradients_are_those_of_autograd(loss: LossSettings) -> None:
    sweep, x = make(loss), values(B, D, seed=9)
    leaves = {name: value.clone().requires_grad_() for name, value in sweep.parameters().items()}
    total = torch.stack([losses(sweep, leaves, x, k) for k in range(len(sweep))]).sum()
    expected = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    before = {name: value.clone() for name, value in sweep.state_dict().items()}
    stats, found = ReferenceEngine().gradients(sweep, x)
    assert found.keys() == expected.keys() == sweep.parameters().keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-12, msg=name)
        assert all(bool(found[name][at].any()) for k in range(len(sweep)) if (at := sweep.place(name, k)) is not None)
    assert float(stats.l0.min()) > 0
    assert same_bits(sweep.state_dict(), before)


def trained(sweep: Sweep, steps: range, total: int = 40) -> Sweep:
    sweep.state.plan(total)
    for step in steps:
        x = values(64, D, seed=100 + step).float() @ torch.diag(torch.linspace(0.3, 2, D))
        ReferenceEngine().step(sweep, x, 1.0, min(1.0, (step + 1) / 10))
    return sweep


@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True), LossSettings(pre_bias=True)], ids=str)
def test_every_kind_alone_or_in_a_sweep_has_the_same_bits(loss: LossSettings) -> None:
    sizes = [F + 3 * k for k in range(len(KINDS))]  # no dictionary lies where it lies alone

    def begun(ks: range) -> Sweep:
        sweep = Sweep(D, [sizes[k] for k in ks], [KINDS[k] for k in ks], list(ks), lr=1e-2, loss=loss)
        begin(sweep, Start(), values(200, D, seed=7).float(), threads=1)
        return trained(sweep, range(30))

    together = begun(range(len(KINDS)))
    for k in range(len(KINDS)):
        alone = begun(range(k, k + 1))
        assert alone.names == [together.names[k]]
        for name, value in alone.parameters().items():
            whole, at = together.parameters()[name], together.place(name, k)
            assert torch.equal(value, whole[k : k + 1] if isinstance(at, int) else whole[at]), (KINDS[k], name)
        for name, value in alone.state.tensors().items():
            whole = together.state.tensors()[name]
            own = whole[together.rows(k)] if name == "since" else whole[k : k + 1]
            assert torch.equal(value.nan_to_num(-1), own.nan_to_num(-1)), (KINDS[k], name)


@pytest.mark.parametrize("stop", [0, 7, 13, 20, 27, 39])
def test_a_state_that_was_saved_goes_on_with_the_same_bits(stop: int) -> None:
    """Before the first change of p, within the window of sums before one, and after both."""
    whole, first, second = (make(LossSettings(pre_bias=True), dtype=torch.float32) for _ in range(3))
    trained(whole, range(40))
    trained(first, range(stop))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    trained(second, range(stop, 40))
    assert same_bits(whole.state_dict(), second.state_dict())
    k = TEXTS.index("panneal l1=0.3 changes=2 anneal_start=0")
    assert whole.state.exponent(k, 40) == pytest.approx(0.2)
    assert whole.state.strength(k).strength not in (0.0, whole.penalty(k))


def test_a_sweep_without_other_kinds_has_no_more_state() -> None:
    plain = Sweep(D, [4, 5], [0.1, KindSpec("relu", l1=0.2)], [0, 0])
    assert list(plain.state_dict()) == [
        "W_enc", "b_enc", "W_dec", "m.W_enc", "v.W_enc", "m.b_enc", "v.b_enc", "m.W_dec", "v.W_dec", "fired", "step",
    ]  # fmt: skip
    mixed = Sweep(D, [4, 5, 6], [0.1, *parse_kinds("jumprelu l0=2"), *parse_kinds("gated l1=0.1")], [0, 0, 0])
    assert {name: len(value) for name, value in mixed.own.items()} == {"theta": 5, "b_mag": 6, "rho": 6}
    assert [mixed.place("theta", k) for k in range(3)] == [None, slice(0, 5), None]
    assert [mixed.place("rho", k) for k in range(3)] == [None, None, slice(0, 6)]
    assert mixed.state.tensors() == {}


def test_evaluation_and_files_use_the_threshold_and_training_the_batch() -> None:
    kinds = [kind for kind in KINDS if kind.name != "relu"]
    sweep = trained(make(LossSettings(pre_bias=True), kinds, torch.float32), range(40))
    x, engine = values(500, D, seed=3).float(), ReferenceEngine()
    state = {name: value.clone() for name, value in sweep.state_dict().items()}
    found = engine.evaluate(sweep, x)
    for k, kind in enumerate(kinds):
        dictionary = sweep.dictionary(k)
        codes = dictionary.encode(x)
        assert float((codes > 0).sum()) == pytest.approx(float(found.l0[k]), rel=1e-3)
        error = float((dictionary.decode(codes) - x).double().square().sum())
        assert error == pytest.approx(float(found.sse[k]), rel=1e-3)
        assert dictionary.meta["kind"] == str(kind)
        assert dictionary.meta.get("l1") == kind.l1
    both = engine.gradients(sweep, x)[0]
    for k, kind in enumerate(kinds):
        if kind.keeps_threshold:
            assert float(both.l0[k]) == round(float(kind.k or 0) * len(x))
            assert float(found.l0[k]) != float(both.l0[k])
            one = engine.evaluate(sweep, x[:1]), engine.evaluate(sweep, x[1:])
            assert float(one[0].l0[k] + one[1].l0[k]) == float(found.l0[k])  # no row depends on the others
    assert same_bits({name: value for name, value in sweep.state_dict().items() if name != "fired"}, state)


def test_the_factor_of_penalties_is_for_kinds_that_have_one() -> None:
    loss, x = LossSettings(), values(B, D, seed=4).float()
    found = []
    for factor in (1.0, 0.0):
        sweep = make(loss, dtype=torch.float32)
        ReferenceEngine().step(sweep, x, 1.0, factor)
        found.append(sweep)
    for k, kind in enumerate(KINDS):
        same = torch.equal(found[0].b_enc[found[0].rows(k)], found[1].b_enc[found[1].rows(k)])
        if (at := found[0].place("theta", k)) is not None:
            same = same and torch.equal(found[0].own["theta"][at], found[1].own["theta"][at])
        assert same == (kind.k is not None), kind


def test_thresholds_stay_at_zero_or_above() -> None:
    (kind,) = parse_kinds("jumprelu l0=9 window=4")
    sweep = Sweep(D, [F], [kind], [0], lr=0.5)
    seen = 0
    for step in range(20):
        ReferenceEngine().step(sweep, values(B, D, seed=step).float(), 1.0)
        assert not bool((sweep.own["theta"] < 0).any())
        seen += int((sweep.own["theta"] == 0).sum())
    assert seen


def test_rows_since_a_feature_fired_are_those_of_kinds_with_aux() -> None:
    kinds = [*parse_kinds("topk k=2"), *parse_kinds("topk k=2 aux=1/32 dead_after=30")]
    sweep, x = Sweep(D, [4, 4], kinds, [0, 0], lr=1e-9), values(20, D).float()
    sweep.b_enc[[1, 5]] = -99
    engine, since = ReferenceEngine(), sweep.state.tensors()["since"]
    for steps in (1, 2):
        engine.step(sweep, x, 1.0)
        assert since.tolist() == [0, 0, 0, 0, 0, 20 * steps, 0, 0]
        dead = sweep.state.dead(1, sweep.rows(1))
        assert dead is not None
        assert dead.tolist() == [False, steps == 2, False, False]
    assert sweep.state.dead(0, sweep.rows(0)) is None
    sweep.b_enc[5] = 99
    engine.step(sweep, x, 1.0)
    assert not bool(since.any())


def test_a_nan_in_a_parameter_of_a_kind_is_a_dictionary_that_diverged() -> None:
    kinds = [*parse_kinds("jumprelu l0=2"), *parse_kinds("gated l1=0.1"), *parse_kinds("jumprelu l0=3")]
    for name, at, k in (("theta", 5, 2), ("rho", 0, 1), ("b_mag", 3, 1)):
        sweep = Sweep(D, [4, 4, 4], kinds, [0, 0, 0])
        sweep.own[name][at] = float("nan")
        assert sweep.diverged() == {k}


def test_an_engine_that_does_not_train_a_kind_says_so_and_auto_takes_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SPARSECODE_ENGINE", raising=False)
    kinds = parse_kinds("relu l1=0.1") + parse_kinds("relu l1=0.1 groups=1/2,1/2")
    lacking = [kind for kind in kinds if not CpuEngine.trains(kind)]
    notes: list[str] = []
    chosen = choose_engine("auto", "cpu", kinds=kinds, note=notes.append)
    assert choose_engine("auto", "cpu", kinds=kinds[:1]).name == "cpu"
    assert choose_engine("reference", "cpu", kinds=kinds).name == "reference"
    if not lacking:
        assert chosen.name == "cpu" and not notes
        return
    assert chosen.name == "reference"
    assert notes == ["engine 'cpu' does not train 'relu l1=0.1 groups=1/2,1/2': the reference engine does, more slowly"]
    with pytest.raises(InvalidSetting, match="engine 'cpu' does not train 'relu"):
        choose_engine("cpu", "cpu", kinds=kinds)
    with pytest.raises(InvalidSetting, match="does not train"):
        CpuEngine(threads=1).step(Sweep(D, [4, 4], kinds, [0, 0]), torch.zeros(3, D), 1.0)
