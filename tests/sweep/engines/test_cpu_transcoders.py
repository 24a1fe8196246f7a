"""Transcoders: what they read and what they write apart, in the reference engine and in the CPU engine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kind_sweeps import normal
from sparsecode.dictionary import Dictionary
from sparsecode.errors import InvalidArgument, InvalidSetting
from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.aligned import Skip
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.engines.gpu.engine import GpuEngine
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.kinds import KindSpec, parse_kinds

TEXTS = [
    "relu l1=0.05", "topk k=3", "batchtopk k=3", "matryoshka k=3 groups=1/2,1/2", "jumprelu l0=4 window=0.5",
    "jumprelu strength=0.02 window=0.5 pre_activation=0.01", "gated l1=0.05",
    "panneal l1=0.05 changes=2 anneal_start=0",
]  # fmt: skip
KINDS = [kind for text in TEXTS for kind in parse_kinds(text)]
READ, WRITTEN, F, B, STEPS = 6, 4, 16, 64, 20


def rows(count: int = B, seed: int = 0) -> Tensor:
    """What is read, and a nonlinear function of it."""
    x = normal(count, READ, seed=seed)
    return torch.cat([x, (x @ normal(READ, WRITTEN, seed=99)).relu() + 0.3], 1)


def sweep_of(loss: LossSettings, dtype: torch.dtype = torch.float64, kinds: list[KindSpec] = KINDS) -> Sweep:
    K = len(kinds)
    sweep = Sweep(READ + WRITTEN, [F] * K, kinds, range(K), 1e-2, loss, inputs=READ, dtype=dtype)
    begin(sweep, Start(density=0.3), rows(256, seed=5).float())
    sweep.state.plan(STEPS)
    return sweep


def outside(sweep: Sweep) -> float:
    parts = [sweep.W_enc[:, READ:], sweep.W_dec[:, :READ]]
    parts += [] if sweep.b_dec is None else [sweep.b_dec[:, :READ]]
    return max(float(part.abs().max()) for part in parts)


@pytest.mark.parametrize("mse", ["mean", "sum"])
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("k", [0, 1, 2, 7], ids=lambda k: TEXTS[k].split()[0])
def test_gradients_are_those_of_the_stated_loss(k: int, pre_bias: bool, mse: str) -> None:
    sweep, both = sweep_of(LossSettings(mse=mse, pre_bias=pre_bias)), rows()
    x, target = both[:, :READ], both[:, READ:]
    at = sweep.rows(k)
    leaves = {"W_enc": sweep.W_enc[at, :READ], "b_enc": sweep.b_enc[at], "W_dec": sweep.W_dec[at, READ:]}
    leaves |= {} if sweep.b_dec is None else {"b_dec": sweep.b_dec[k, READ:]}
    leaves = {name: value.clone().requires_grad_() for name, value in leaves.items()}
    y = x @ leaves["W_enc"].T + leaves["b_enc"]
    z = KINDS[k].kind().codes(y, sweep.weights(k))
    out = z @ leaves["W_dec"] + leaves.get("b_dec", 0)
    error = (out - target).square().sum() / (B * WRITTEN if mse == "mean" else B)
    loss = error + KINDS[k].kind().penalty(y, z, sweep.weights(k))
    torch.autograd.backward(loss)
    stats, found = ReferenceEngine().gradients(sweep, both)
    share = WRITTEN / (READ + WRITTEN) if mse == "mean" else 1.0
    for name, leaf in leaves.items():
        part = found[name][k] if name == "b_dec" else found[name][at]
        part = part if name == "b_enc" else part[..., READ:] if name in ("W_dec", "b_dec") else part[:, :READ]
        assert leaf.grad is not None
        torch.testing.assert_close(part, share * leaf.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(float(stats.sse[k]), float((out - target).detach().square().sum()))


@pytest.mark.parametrize("loss", [LossSettings(), LossSettings(mse="sum", pre_bias=True)], ids=["mean", "sum"])
def test_the_cpu_engine_trains_them_as_the_reference_does(loss: LossSettings) -> None:
    ours, truth = (sweep_of(loss, torch.float32) for _ in range(2))
    engine, reference = CpuEngine(), ReferenceEngine()
    for step in range(STEPS):
        x = rows(seed=step).float()
        got, wanted = engine.step(ours, x, 1.0, 0.5), reference.step(truth, x, 1.0, 0.5)
        torch.testing.assert_close(got.sse, wanted.sse, rtol=1e-3, atol=1e-3)
    assert outside(ours) == outside(truth) == 0
    for name, value in truth.parameters().items():
        torch.testing.assert_close(ours.parameters()[name], value, rtol=0, atol=2e-3)
    torch.testing.assert_close(ours.W_dec.norm(dim=1), torch.ones(ours.total))
    x = rows(seed=77).float()
    torch.testing.assert_close(engine.evaluate(ours, x).sse, reference.evaluate(ours, x).sse, rtol=1e-4, atol=1e-4)
    found = engine.gradients(ours, x)[1]
    for name, value in reference.gradients(ours, x)[1].items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("k", range(len(TEXTS)), ids=lambda k: TEXTS[k].split()[0])
def test_its_dictionary_reads_and_writes_raw_activations(k: int, pre_bias: bool, skip: bool) -> None:
    sweep = sweep_of(LossSettings(pre_bias=pre_bias), torch.float32)
    raw = rows(512, seed=3).float() * 3 + 1
    mean, scale = raw.mean(0), torch.cat([torch.full((READ,), 2.0), torch.full((WRITTEN,), 0.5)])
    both = (raw - mean) / scale
    linear = Skip.of(both, READ) if skip else None
    seen = both if linear is None else linear.take(both)
    engine = CpuEngine()
    for _ in range(STEPS):
        engine.step(sweep, seen, 1.0)
    dictionary = sweep.dictionary(k, mean=mean, scale=scale)
    if linear is not None:
        dictionary = linear.into(dictionary, scale[READ:])
    assert dictionary.transcoder
    assert (dictionary.activation_dim, dictionary.output_dim) == (READ, WRITTEN)
    wrong = (dictionary.reconstruct(raw[:, :READ]) - raw[:, READ:]) / scale[READ:]
    stats = engine.evaluate(sweep, seen)
    torch.testing.assert_close(float(wrong.square().sum()), float(stats.sse[k]), rtol=1e-4, atol=1e-3)
    assert float((dictionary.encode(raw[:, :READ]) > 0).sum()) == pytest.approx(float(stats.l0[k]), rel=0.01)


def test_a_file_holds_it(tmp_path: object) -> None:
    sweep = sweep_of(LossSettings(), torch.float32)
    made = sweep.dictionary(0, mean=torch.arange(10.0), scale=torch.arange(1.0, 11.0))
    made.save(f"{tmp_path}/one")
    again = Dictionary.load(f"{tmp_path}/one")
    x = rows(8).float()[:, :READ]
    assert torch.equal(again.reconstruct(x), made.reconstruct(x))
    assert isinstance(again.scale, Tensor)
    assert again.scale.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_linear_map_is_found() -> None:
    x = normal(400, READ)
    weight, bias = normal(WRITTEN, READ, seed=1), normal(WRITTEN, seed=2)
    skip = Skip.of(torch.cat([x, x @ weight.T + bias], 1).float(), READ)
    torch.testing.assert_close(skip.weight, weight.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(skip.bias, bias.float(), rtol=0, atol=1e-4)


def test_what_cannot_be_is_said() -> None:
    for inputs in (0, 10):
        with pytest.raises(InvalidArgument, match="must be between 0 and the 10 dimensions"):
            Sweep(10, [4], [0.1], [0], inputs=inputs)
    with pytest.raises(InvalidArgument, match="no tied weights"):
        Sweep(10, [4], [0.1], [0], inputs=6, loss=LossSettings(tied=True))
    with pytest.raises(InvalidArgument, match="no loss of dead features"):
        Sweep(10, [4], parse_kinds("topk k=2 aux=1/32"), [0], inputs=6)
    with pytest.raises(InvalidSetting, match="engine 'gpu' does not train transcoders"):
        GpuEngine.check_kinds([], transcoders=True)
    assert choose_engine("cpu", "cpu", transcoders=True).name == "cpu"
