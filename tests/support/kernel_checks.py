"""Checks of every Triton kernel, as functions of the kernels' modules: tests run them on the real kernels, the
mutation test on kernels with a planted bug.

Needs TRITON_INTERPRET=1 and the shim. Buffers stand between red zones of NaN, and accesses outside them fail.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries, S splits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import torch
from torch import Tensor

from interpreter_shim import check_red_zones, guard, guarded, install, reversed_programs
from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import Segments, tiles_in

install()

FORWARD, BACKWARD = Tile(16, 32), Tile(32, 16)  # unequal in both directions
MODULES = ("forward", "backward", "reduce", "prebias", "adam", "lists", "sparse")
Gradients = dict[str, Tensor]


@dataclass
class Kernels:
    """The kernels' modules, each of which a mutant may replace."""

    modules: dict[str, ModuleType] = field(
        default_factory=lambda: {name: importlib.import_module(f"sparsecode.kernels.{name}") for name in MODULES}
    )

    def __getattr__(self, name: str) -> ModuleType:
        return self.modules[name]

    def with_mutant(self, name: str, module: ModuleType) -> Kernels:
        return Kernels(self.modules | {name: module})


@dataclass(frozen=True)
class Problem:
    """A batch and a packed sweep with nothing at zero."""

    x: Tensor  # [B, D]
    w_enc: Tensor  # [N, D]
    b_enc: Tensor  # [N]
    w_dec: Tensor  # [N, D], unit rows
    pre: Tensor | None  # [K, D]
    l1: tuple[float, ...]
    bounds: tuple[int, ...]

    @classmethod
    def random(
        cls, B: int, D: int, sizes: Sequence[int], *, pre: bool = False, dtype: torch.dtype = torch.float64
    ) -> Problem:
        generator = torch.Generator().manual_seed(B + D)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        N = sum(sizes)
        bounds = [0]
        for size in sizes:
            bounds.append(bounds[-1] + size)
        return cls(
            normal(B, D),
            normal(N, D) / D**0.5,
            normal(N) * 0.3,
            torch.nn.functional.normalize(normal(N, D), dim=1),
            normal(len(sizes), D) * 0.3 if pre else None,
            tuple(0.01 + 0.03 * k for k in range(len(sizes))),
            tuple(bounds),
        )

    def to(self, dtype: torch.dtype) -> Problem:
        pre = self.pre.to(dtype) if self.pre is not None else None
        x, w_enc, b_enc, w_dec = (one.to(dtype) for one in (self.x, self.w_enc, self.b_enc, self.w_dec))
        return Problem(x, w_enc, b_enc, w_dec, pre, self.l1, self.bounds)

    def rows(self, k: int) -> slice:
        return slice(self.bounds[k], self.bounds[k + 1])


def autograd(problem: Problem) -> Gradients:
    """Loss sums and gradients from the definition, by torch, in float64."""
    p = problem.to(torch.float64)
    leaves = {"d_enc": p.w_enc, "d_bias": p.b_enc, "d_dec": p.w_dec} | ({"d_pre": p.pre} if p.pre is not None else {})
    leaves = {name: value.clone().requires_grad_() for name, value in leaves.items()}
    loss = torch.zeros((), dtype=torch.float64)
    sums, fired = [], []
    for k, l1 in enumerate(p.l1):
        own = p.rows(k)
        pre = leaves["d_pre"][k] if "d_pre" in leaves else torch.zeros(p.x.shape[1], dtype=torch.float64)
        z = torch.relu((p.x - pre) @ leaves["d_enc"][own].T + leaves["d_bias"][own])
        r = z @ leaves["d_dec"][own] + pre - p.x
        loss = loss + r.square().mean() + l1 * z.sum(1).mean()
        sums.append(torch.stack([r.square().sum(), z.sum(), (z > 0).sum()]).detach())
        fired.append((z > 0).sum(0))
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return found | {"sums": torch.stack(sums, 1), "fired": torch.cat(fired)}


def run_step(
    kernels: Kernels,
    problem: Problem,
    *,
    forward: Tile = FORWARD,
    backward: Tile = BACKWARD,
    splits: int = 1,
    parts: tuple[int, ...] = (3,),
    operands: torch.dtype | None = None,
) -> Gradients:
    """These numbers from the kernels; `operands` is the type of the products' operands where it is narrower."""
    dtype = problem.x.dtype
    narrow = operands or dtype
    (B, D), N, K = problem.x.shape, problem.w_enc.shape[0], len(problem.l1)
    segments = Segments.of(problem.bounds, "cpu")
    tiles = segments.feature_tiles(backward.features)
    x, w_enc, w_dec = (guard(one.to(narrow)) for one in (problem.x, problem.w_enc, problem.w_dec))
    bias = guard(problem.b_enc)
    pre = guard(problem.pre) if problem.pre is not None else None
    scale = 2 / (B * D)
    scales = guard(torch.tensor([[scale, l1 / (B * scale)] for l1 in problem.l1], dtype=dtype))
    T = tiles_in(B, forward.batch)
    residual = guarded(K, B, D, dtype=narrow)
    sums, totals = guarded(T, 2, K, dtype=dtype), guarded(3, K, dtype=torch.float64)
    columns, column_sums = guarded(T, K, D, dtype=dtype), guarded(K, D, dtype=dtype)
    if pre is not None:
        folded = guarded(N, dtype=dtype)
        kernels.prebias.fold(w_enc, bias, pre, segments, segments.feature_tiles(16), folded=folded)
        bias = folded
    kernels.forward.forward(
        x, guard(problem.x), w_enc, bias, w_dec, pre, segments, forward, residual=residual, sums=sums, columns=columns
    )
    kernels.reduce.reduce_parts(sums, totals[:2])

    # One buffer per split, as the engine lays them out, so that one launch adds up all gradients.
    M = N * (2 * D + 1)
    partial, fired = guarded(splits, M, dtype=dtype), guarded(splits, N, dtype=torch.int32)
    flat = guarded(M, dtype=dtype)
    total_fired = guard(torch.arange(N))
    first = partial[0]
    for part in parts:
        kernels.backward.backward(
            x,
            residual,
            w_enc,
            bias,
            w_dec,
            pre,
            segments,
            tiles,
            scales,
            backward,
            parts=part,
            d_enc=first[: N * D],
            d_bias=first[2 * N * D :],
            d_dec=first[N * D : 2 * N * D],
            fired=fired,
            splits=splits,
            split_stride=M,
        )
    kernels.reduce.reduce_parts(partial, flat)
    kernels.reduce.reduce_parts(fired, total_fired, accumulate=True)
    kernels.reduce.reduce_segments(fired, totals[2], segments)
    found = {
        "d_enc": flat[: N * D].view(N, D),
        "d_bias": flat[2 * N * D :],
        "d_dec": flat[N * D : 2 * N * D].view(N, D),
        "sums": totals,
        "fired": total_fired - torch.arange(N),
    }
    if pre is not None:
        kernels.reduce.reduce_parts(columns, column_sums)
        d_pre = guarded(K, D, dtype=dtype)
        kernels.prebias.prebias_gradient(column_sums, found["d_bias"], w_enc, scales, segments, d_pre=d_pre)
        found["d_pre"] = d_pre
    found = {name: value.clone() for name, value in found.items()}
    check_red_zones()
    return found


def compare(found: Gradients, expected: Gradients, tolerance: float) -> None:
    """Every gradient by name: relative error of its norm, per tensor."""
    for name, value in expected.items():
        if name == "fired":
            assert torch.equal(found[name], value), "fired"
            continue
        error = (found[name].double() - value.double()).norm() / value.double().norm().clamp(min=1e-300)
        assert error < tolerance, f"{name}: relative error {float(error):.1e}"


def check_gradients(kernels: Kernels) -> None:
    """float64 under the interpreter: exact up to rounding, ragged in every direction, pre-bias folded."""
    problem = Problem.random(37, 24, [17, 1, 33], pre=True)
    compare(run_step(kernels, problem), autograd(problem), 1e-13)


def check_plain(kernels: Kernels) -> None:
    """Full tiles: the paths without masks, no pre-bias, encoder and decoder apart."""
    problem = Problem.random(32, 32, [16, 32])
    found = run_step(kernels, problem, parts=(2, 1))
    compare(found, autograd(problem), 1e-13)


def check_splits(kernels: Kernels) -> None:
    """The batch in three parts, the last one short."""
    problem = Problem.random(70, 16, [20, 5], pre=True)
    compare(run_step(kernels, problem, backward=Tile(16, 16), splits=3), autograd(problem), 1e-13)


def check_zero_preactivation(kernels: Kernels) -> None:
    """A pre-activation of exactly 0 does not fire and has no gradient."""
    problem = Problem.random(20, 16, [20])
    problem.w_enc[:7] = 0
    problem.b_enc[:7] = 0
    found, expected = run_step(kernels, problem), autograd(problem)
    assert found["fired"][:7].eq(0).all()
    assert found["d_bias"][:7].eq(0).all()
    compare(found, expected, 1e-13)


def check_nan_stays_in_its_dictionary(kernels: Kernels) -> None:
    """A dictionary that diverged shows NaN everywhere; its neighbours keep their bits."""
    problem = Problem.random(20, 16, [18, 16, 5], dtype=torch.float32)
    before = run_step(kernels, problem)
    w_enc = problem.w_enc.clone()
    w_enc[18 + 3, 2] = float("nan")
    after = run_step(kernels, replace(problem, w_enc=w_enc))
    for name in ("d_enc", "d_bias", "d_dec"):
        assert after[name][18 + 3].isnan().all(), name
        for rows in (slice(0, 18), slice(34, 39)):
            assert torch.equal(before[name][rows], after[name][rows]), name
    assert after["sums"][:2, 1].isnan().all()
    assert torch.equal(before["sums"][:, [0, 2]], after["sums"][:, [0, 2]])


def check_order(kernels: Kernels) -> None:
    """Programs in reverse order give the same bits: nothing depends on who comes first."""
    problem = Problem.random(37, 16, [17, 5], pre=True, dtype=torch.float32)
    forward = run_step(kernels, problem, backward=Tile(16, 16), splits=2)
    with reversed_programs():
        backward = run_step(kernels, problem, backward=Tile(16, 16), splits=2)
    for name, value in forward.items():
        assert torch.equal(value, backward[name]), name


def check_counting(kernels: Kernels) -> None:
    """Only the firings, without a residual."""
    problem = Problem.random(37, 24, [17, 20])
    segments, tile = Segments.of(problem.bounds, "cpu"), Tile(16, 16)
    fired = guarded(2, 37, dtype=torch.int32)
    x, w_enc, b_enc, w_dec = (guard(one) for one in (problem.x, problem.w_enc, problem.b_enc, problem.w_dec))
    tiles = segments.feature_tiles(16)
    kernels.backward.backward(
        x, None, w_enc, b_enc, w_dec, None, segments, tiles, None, tile, parts=0, fired=fired, splits=2
    )
    assert torch.equal(fired.sum(0), autograd(problem)["fired"])
    check_red_zones()


def check_adam(kernels: Kernels, *, tied: bool = False, project: bool = True) -> None:
    """Three steps against torch.optim.Adam in float64 with projection and renormalisation beside it."""
    D, sizes = 24, [17, 5]
    problem = Problem.random(1, D, sizes, dtype=torch.float32)
    N, segments = sum(sizes), Segments.of(problem.bounds, "cpu")
    rates = [3e-2, 1e-2]
    generator = torch.Generator().manual_seed(5)
    w_dec, b_enc = guard(problem.w_dec), guard(problem.b_enc)
    w_enc = w_dec if tied else guard(problem.w_enc)
    own = [w_enc, b_enc, w_dec]
    moments = [(guard(torch.zeros_like(one)), guard(torch.zeros_like(one))) for one in own]
    if tied:
        moments[0] = moments[2]
    dec_operand = guarded(N, D, dtype=torch.bfloat16)
    enc_operand = dec_operand if tied else guarded(N, D, dtype=torch.bfloat16)
    truth = [one.clone().double().requires_grad_() for one in own]
    optimisers = [
        torch.optim.Adam([{"params": [part]} for part in [one[problem.rows(k)].detach().requires_grad_()]], lr=rates[k])
        for one in truth
        for k in range(2)
    ]
    pieces = [optimiser.param_groups[0]["params"][0] for optimiser in optimisers]
    for t in range(1, 4):
        gradients = [guard(torch.randn(one.shape, generator=generator)) for one in own]
        kernels.adam.adam_step(
            tuple(own),
            moments,
            tuple(gradients),
            (enc_operand, dec_operand),
            guard(torch.tensor([rate * 0.5 / (1 - 0.9**t) for rate in rates])),
            segments,
            segments.feature_tiles(8),
            root=(1 - 0.999**t) ** 0.5,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            project=project,
        )
        exact = [one.double() for one in gradients]
        if tied:
            exact[2] = exact[2] + exact[0]
        atoms = torch.cat(pieces[4:6]).detach()
        if project:
            exact[2] = exact[2] - (exact[2] * atoms).sum(1, keepdim=True) * atoms
        for index, (piece, optimiser) in enumerate(zip(pieces, optimisers, strict=True)):
            optimiser.param_groups[0]["lr"] = rates[index % 2] * 0.5
            piece.grad = exact[index // 2][problem.rows(index % 2)]
            optimiser.step()
        for piece in pieces[4:6]:
            piece.data /= piece.data.norm(dim=1, keepdim=True)
    for index, name in enumerate(("W_enc", "b_enc", "W_dec")):
        if tied and index == 0:
            continue
        expected = torch.cat(pieces[2 * index : 2 * index + 2]).detach()
        torch.testing.assert_close(own[index].double(), expected, rtol=2e-6, atol=2e-7, msg=name)
        for place, key in enumerate(("exp_avg", "exp_avg_sq")):
            kept = torch.cat([optimisers[2 * index + k].state[pieces[2 * index + k]][key] for k in range(2)])
            torch.testing.assert_close(moments[index][place].double(), kept, rtol=5e-6, atol=2e-7, msg=f"{name} {key}")
    torch.testing.assert_close(w_dec.norm(dim=1), torch.ones(N), rtol=1e-6, atol=0)
    assert torch.equal(dec_operand, w_dec.bfloat16())
    assert torch.equal(enc_operand, w_enc.bfloat16())
    check_red_zones()


def check_adam_rows(kernels: Kernels) -> None:
    """The pre-bias's Adam: one step is a step of its rate against the gradient's sign."""
    weight, gradient = guard(torch.zeros(3, 21)), guard(torch.randn(3, 21, generator=torch.Generator().manual_seed(1)))
    m, v = guard(torch.zeros(3, 21)), guard(torch.zeros(3, 21))
    rates = guard(torch.tensor([0.1, 0.2, 0.3]))
    kernels.adam.adam_rows(weight, (m, v), gradient, rates / 0.1, root=0.001**0.5, beta1=0.9, beta2=0.999, eps=1e-8)
    torch.testing.assert_close(weight, -rates[:, None] * gradient.sign(), rtol=1e-4, atol=0)
    torch.testing.assert_close(m, 0.1 * gradient)
    torch.testing.assert_close(v, 0.001 * gradient**2)
    check_red_zones()


CHECKS: tuple[Callable[[Kernels], None], ...] = (
    check_gradients,
    check_plain,
    check_zero_preactivation,
    check_splits,
    check_counting,
    check_nan_stays_in_its_dictionary,
    check_adam,
    check_adam_rows,
    check_order,
)
