"""The CPU engine on every kind of dictionary: near the float64 reference, and the same bits however it computes.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, K dictionaries.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine_cases import assert_near, in_float64, same_bits, state
from kind_sweeps import KINDS, SWITCHES, TEXTS, make_kinds, normal
from sparsecode import _core
from sparsecode.sweep import LossSettings, Sweep
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import KindSpec, parse_kinds

PATHS = _core.CpuEngine.paths()
WAYS = [(path, codes) for path in PATHS for codes in ("lists", "dense")]
ANNEALED = "panneal l1=0.3 changes=2 anneal_start=0"


def rows(count: int, width: int = 10, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * normal(count, width, seed=seed).float()


def made(
    kinds: list[KindSpec] = KINDS, loss: LossSettings | None = None, width: int = 10, size: int = 24, steps: int = 40
) -> Sweep:
    sizes = [size + 8 * (k % 5) for k in range(len(kinds))]  # no two begin alike in a vector
    sweep = make_kinds(loss or LossSettings(), kinds, torch.float32, width=width, sizes=sizes)
    sweep.state.plan(steps)
    return sweep


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("loss", SWITCHES, ids=str)
def test_gradients_are_the_reference_engines(loss: LossSettings, path: str) -> None:
    """Also of p-annealing once its exponent has fallen, and of a loss of dead features."""
    for step, count in ((0, 33), (39, 200)):
        sweep, x = made(loss=loss), rows(count, seed=9)
        sweep.step = step
        exact = in_float64(sweep)
        exact.state.plan(40)
        expected_stats, expected = ReferenceEngine().gradients(exact, x.double())
        stats, found = CpuEngine(threads=2, path=path, codes="lists").gradients(sweep, x)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            for k, text in enumerate(TEXTS):
                if (at := sweep.place(name, k)) is not None:
                    assert bool(gradient[at].any()), (text, name)
                    # z^(p-1) of codes near 0 multiplies what float32 rounds away of them: see the next test.
                    assert_near(found[name][at], gradient[at], 3e-3 if text == ANNEALED else 3e-5, f"{text} {name}")
        torch.testing.assert_close(stats.sse, expected_stats.sse, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stats.l1, expected_stats.l1, rtol=1e-5, atol=1e-5)
        assert torch.equal(stats.l0, expected_stats.l0)


@pytest.mark.parametrize("path", PATHS)
def test_powers_of_codes_away_from_zero(path: str) -> None:
    sweep = Sweep(10, [32], parse_kinds(ANNEALED), [0])
    sweep.b_enc.fill_(3.0)
    sweep.state.plan(40)
    sweep.step = 39
    exact, x = in_float64(sweep), rows(200, scale=0.5)
    exact.state.plan(40)
    assert exact.state.exponent(0, 39) < 0.5
    _, expected = ReferenceEngine().gradients(exact, x.double())
    _, found = CpuEngine(threads=2, path=path).gradients(sweep, x)
    for name, gradient in expected.items():
        assert_near(found[name], gradient, 3e-6, name)


@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(tied=True, pre_bias=True)], ids=str)
def test_every_way_gives_the_same_bits(loss: LossSettings) -> None:
    """State included; sizes of several blocks, steps in which p falls and features die."""
    results = []
    for i, (path, codes) in enumerate([(PATHS[0], "measured"), *WAYS]):
        sweep = made(loss=loss, width=20, size=130, steps=12)
        engine = CpuEngine(threads=(1, 3)[i % 2], path=path, codes=codes)
        found: dict[str, Tensor] = {}
        for step in range(12):
            stats = engine.step(sweep, rows(300, 20, seed=step), 1.0, min(1.0, (step + 1) / 4))
            found |= {f"{name}{step}": getattr(stats, name) for name in ("sse", "l1", "l0")}
        last = engine.evaluate(sweep, rows(100, 20, seed=99))
        results.append(state(sweep) | found | {"last": torch.stack([last.sse, last.l1, last.l0])})
    for way, result in zip(WAYS, results[1:], strict=True):
        for name in result:
            assert same_bits({"": result[name]}, {"": results[0][name]}), (way, name)
    annealed = results[0]["annealed"][TEXTS.index(ANNEALED)]
    assert annealed[0] not in (0.0, 0.3)
    assert bool((results[0]["since"] == 0).any()) and bool((results[0]["since"] > 300).any())


def test_alone_or_in_a_sweep() -> None:
    loss = LossSettings(pre_bias=True)
    together, xs = made(loss=loss), [rows(150, seed=seed) for seed in range(5)]
    before = state(together)
    engine = CpuEngine(threads=3)
    for x in xs:
        engine.step(together, x, 1.0)
    for k, kind in enumerate(KINDS):
        alone = Sweep(10, [together.sizes[k]], [kind], [k], lr=1e-2, loss=loss)
        alone.state.plan(40)
        for name, value in alone.state_dict().items():
            name_of, whole = name.removeprefix("m.").removeprefix("v."), before[name]
            if name_of in alone.parameters():
                at = together.place(name_of, k)
                value.copy_(whole[k : k + 1] if isinstance(at, int) else whole[at])
            elif name != "step":
                value.copy_(whole[together.rows(k)] if name in ("since", "fired") else whole[k : k + 1])
        single = CpuEngine(threads=1)
        for x in xs:
            single.step(alone, x, 1.0)
        for name, value in alone.parameters().items():
            at = together.place(name, k)
            whole = together.parameters()[name]
            assert torch.equal(value, whole[k : k + 1] if isinstance(at, int) else whole[at]), (kind, name)


def test_a_training_follows_the_reference_engines() -> None:
    """Thresholds, rows since features fired, and what p-annealing has come to."""
    sweep = made(size=16)
    exact = in_float64(sweep)
    exact.state.plan(40)
    engine = CpuEngine(threads=2)
    for step in range(40):
        x = rows(64, seed=step)
        engine.step(sweep, x, 0.1, min(1.0, (step + 1) / 10))
        ReferenceEngine().step(exact, x.double(), 0.1, min(1.0, (step + 1) / 10))
    found, expected = sweep.state.tensors(), exact.state.tensors()
    assert float((found["since"] != expected["since"]).double().mean()) < 0.02
    for name in ("threshold", "annealed"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4, equal_nan=True)
    for name, value in sweep.parameters().items():
        assert float((value - exact.parameters()[name]).abs().mean()) < 1e-3, name


def poisoned(engine: CpuEngine, sweep: Sweep, scale: float, bias: float = 0.0) -> CpuEngine:
    """An engine whose last batch was of another scale, its features of other biases, and so are its floors."""
    other = made(list(sweep.kinds), sweep.loss, sweep.activation_dim)
    other.load_state_dict(state(sweep))
    other.b_enc += bias
    engine.step(other, rows(200, sweep.activation_dim, seed=77, scale=scale), 0.0)
    return engine


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("scale", "bias"), [(1e-3, 0.0), (1e3, 0.0), (1.0, 0.6), (1.0, 9.0), (1.0, -9.0)])
def test_a_bad_floor_changes_no_result(path: str, scale: float, bias: float) -> None:
    """Also of rows and features that no screen can leave out: without a norm, or with a huge one."""
    kinds = [kind for kind in KINDS if kind.k is not None]
    found = []
    x = rows(300, seed=5)
    x[70] = 0.0
    for spoil in (False, True):
        sweep, engine = made(kinds), CpuEngine(threads=2, path=path, codes="lists")
        for k in range(len(kinds)):
            sweep.W_enc[sweep.rows(k)][5] *= 1e10
        if spoil:
            poisoned(engine, sweep, scale, bias)
        sums = engine.step(sweep, x, 1.0)
        found.append(state(sweep) | {"sse": sums.sse, "l0": sums.l0})
    assert not bool(found[0]["W_dec"].isnan().any())
    assert same_bits(*found)


@pytest.mark.parametrize("codes", ["lists", "measured"])
def test_features_that_rest_have_the_bits_of_those_that_do_not(codes: str) -> None:
    """400 steps, after which most features of some dictionaries have stopped firing, and some fire again."""
    kinds = [kind for kind in KINDS if not kind.aux]
    found, resting = [], {}
    for rest in (True, False):
        sweep = made(kinds, steps=400)
        sweep.b_enc -= torch.where(torch.arange(sweep.total) % 2 == 0, 9.0, 0.0)
        if sweep.own:
            sweep.own["theta"] += 0.1
        engine = CpuEngine(threads=1, codes=codes, rest=rest)
        for step in range(400):
            engine.step(sweep, rows(20, seed=step, scale=9.0 if step in (300, 390) else 1.0), 1.0 if step < 2 else 1e-3)
            if rest and step == 299:
                assert engine._view is not None
                lag = engine._view.lag
                resting = {str(kind): int((lag[sweep.rows(k)] > 0).sum()) for k, kind in enumerate(kinds)}
        found.append(state(sweep))
    assert same_bits(*found)
    for text, count in resting.items():
        # A loss on all rows lets nobody rest.
        assert (count == 0) == ("pre_activation" in text), (text, resting)


@pytest.mark.parametrize(("path", "codes"), WAYS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_diverging_dictionary_shows_and_leaves_the_others(path: str, codes: str, text: str) -> None:
    kinds = [*parse_kinds(text), *parse_kinds("relu l1=0.1"), *parse_kinds("batchtopk k=3")]
    sick, well = made(kinds), made(kinds)
    sick.W_enc[sick.rows(0)].view(-1)[3:5] = float("nan")
    engine, other = (CpuEngine(threads=2, path=path, codes=codes) for _ in range(2))
    for step in range(3):
        broken = engine.step(sick, rows(100, seed=step), 1.0)
        other.step(well, rows(100, seed=step), 1.0)
    assert bool(broken.sse[0].isnan())
    assert 0 in sick.diverged()
    for k in (1, 2):
        for name, value in sick.parameters().items():
            if (at := sick.place(name, k)) is not None:
                assert torch.equal(value[at], well.parameters()[name][at]), name


EDGES = [
    ("topk k=24", {}), ("topk k=1", {}), ("batchtopk k=24", {}), ("batchtopk k=0.01", {}), ("topk k=3", {"bias": -9.0}),
    ("batchtopk k=3", {"bias": -9.0}), ("topk k=20", {"bias": -1.0}), ("batchtopk k=20", {"bias": -1.0}),
    ("topk k=3", {"rows": 1}), ("batchtopk k=3", {"rows": 1}), ("topk k=3", {"equal": 1.0}),
    ("batchtopk k=3", {"equal": 1.0}), ("topk k=3 aux=0.1 dead_after=1000", {}),
    ("topk k=3 aux=0.1 aux_k=30 dead_after=1", {"bias": -9.0}), ("topk k=3 aux=0.1 dead_after=1", {"rows": 1}),
    ("topk k=3 aux=0.1 dead_after=1", {"equal": 1.0}), ("jumprelu strength=0.1", {"bias": -9.0}),
    ("gated l1=0.1", {"bias": -9.0}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "case"), EDGES, ids=str)
def test_edges(text: str, case: dict[str, float]) -> None:
    """All features kept, fewer than k positive, none, equal rows, one row, nobody or everybody dead."""
    x = rows(int(case.get("rows", 40)))
    if "equal" in case:
        x = x[:1].expand(40, 10).contiguous()
    sweep = made(parse_kinds(text))
    sweep.b_enc += case.get("bias", 0.0)
    expected_stats, expected = ReferenceEngine().gradients(in_float64(sweep), x.double())
    for path, codes in WAYS:
        stats, found = CpuEngine(threads=2, path=path, codes=codes).gradients(sweep, x)
        for name, gradient in expected.items():
            assert_near(found[name], gradient, 3e-5, f"{path} {name}")
        assert torch.equal(stats.l0, expected_stats.l0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gap", [1e-6, 1e-4, 1e-3])
@pytest.mark.parametrize(
    "text", ["relu l1=0.1", "matryoshka k=1 groups=1/2,1/2", "batchtopk k=1", "jumprelu strength=0.1 window=0.001",
             "jumprelu strength=0.1 window=0.5", "gated l1=0.1", "panneal l1=0.1", "topk k=1"]
)  # fmt: skip
def test_no_screen_loses_a_code(path: str, gap: float, text: str) -> None:
    """Rows of numbers halfway between two bfloat16 numbers, rounded towards zero, and features parallel to them: the
    rounding is as wrong as its bound. Each feature is above where its codes begin by a relative `gap`. In bfloat16 a
    bound that is a tenth smaller loses them."""
    pairs, width = 48, 64
    kind = parse_kinds(text)[0]
    scales = 2.0 ** torch.randint(-1, 2, (pairs, 1), generator=torch.Generator().manual_seed(1))
    if kind.name == "topk":
        scales = torch.ones(pairs, 1)  # else another row's feature may be the largest
    x = rows(pairs, width).sign() * (1 + 1 / 256) * scales
    squares = x.double().square().sum(1)
    sweep = Sweep(width, [pairs], [kind], [0], loss=LossSettings(mse="sum"))
    sweep.W_enc.copy_(x)
    sweep.b_enc.copy_((gap - 1) * squares)
    if kind.name == "jumprelu":
        half = float(kind.window or 0.0) / 2
        sweep.own["theta"].copy_(squares / 2)
        sweep.b_enc.add_((squares / 2 - half).float())
    if kind.name == "gated":
        sweep.own["b_mag"].fill_(1e4)
    found = []
    for engine in (CpuEngine(threads=1, path="scalar", codes="lists"), CpuEngine(threads=1, path=path, codes="lists")):
        engine.gradients(sweep, x)  # the next batch's floor is this one's
        found.append(engine.gradients(sweep, x))
    (expected, expected_gradients), (stats, gradients) = found
    assert torch.equal(stats.l0, expected.l0)
    fires = gradients["b_enc"] != 0
    if kind.name == "jumprelu":
        fires |= gradients["theta"] != 0  # in the window, or above it
    assert bool(fires.all())
    assert same_bits(gradients, expected_gradients)
