"""The cross-entropy that never holds all logits, against torch's own in float64; every gradient by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecode import _core
from sparsecode.errors import InvalidArgument
from sparsecode.gpt.loss import chunked_cross_entropy, cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES = {"chunked": chunked_cross_entropy, "chosen": cross_entropy}
SHAPES = [
    (1, 1, 1),
    (1, 2, 1),
    (7, 3, 5),
    (13, 17, 33),
    (48, 32, 512),
    (49, 32, 513),
    (100, 8, 4096),
    (1025, 40, 700),
    (600, 32, 4099),
]


def problem(M: int, D: int, V: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, embedding and targets; every vocabulary end is a target where there are rows enough."""
    generator = torch.Generator().manual_seed(M * 1_000_003 + D * 1009 + V)
    h = torch.randn(M, D, generator=generator) * scale
    weight = torch.randn(V, D, generator=generator)
    targets = torch.randint(0, V, (M,), generator=generator)
    targets[0], targets[-1] = V - 1, 0
    return h, weight, targets


def reference(h: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    h, weight = h.double().requires_grad_(), weight.double().requires_grad_()
    loss = F.cross_entropy(h @ weight.T, targets)
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None and weight.grad is not None
    return loss.detach(), h.grad, weight.grad


def check(name: str, got: Tensor | None, expected: Tensor, tolerance: float) -> None:
    assert got is not None, name
    error = (got.double() - expected).norm() / expected.norm().clamp_min(1e-30)
    assert error <= tolerance, f"{name}: relative error {error:.3g}"


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("M, D, V", SHAPES, ids=lambda n: str(n))
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_loss_and_gradients_equal_float64(loss: Loss, M: int, D: int, V: int, scale: float) -> None:
    h, weight, targets = problem(M, D, V, scale)
    h.requires_grad_()
    weight.requires_grad_()
    value = loss(h, weight, targets)
    (value * 2.5).backward()  # type: ignore[no-untyped-call]
    expected, dh, dweight = reference(h.detach(), weight.detach(), targets, 2.5)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    if V > 1:  # with one token there is nothing to predict: gradients are zero but for rounding
        check("h", h.grad, dh, 1e-5)
        check("weight", weight.grad, dweight, 1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_huge_logits_neither_overflow_nor_lose_the_target(loss: Loss) -> None:
    h, weight, targets = problem(60, 16, 1100, scale=300.0)  # logits of some thousands: exp of them is infinite
    weight[700] *= 5  # the largest logit comes late, after the running maximum was settled
    h.requires_grad_()
    weight.requires_grad_()
    value = loss(h, weight, targets)
    value.backward()  # type: ignore[no-untyped-call]
    expected, dh, dweight = reference(h.detach(), weight.detach(), targets)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    check("h", h.grad, dh, 1e-3)  # float32 logits of 10,000 are themselves off by 1e-3
    check("weight", weight.grad, dweight, 1e-3)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(loss: Loss, bad: float) -> None:
    h, weight, targets = problem(50, 16, 600)
    h[17, 3] = bad
    h.requires_grad_()
    value = loss(h, weight, targets)
    value.backward()  # type: ignore[no-untyped-call]
    assert not value.isfinite()
    assert h.grad is not None and not h.grad[17].isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_no_gradient_no_work_but_the_same_value(loss: Loss) -> None:
    h, weight, targets = problem(100, 32, 1000)
    with_grad = loss(h.requires_grad_(), weight, targets)
    with torch.no_grad():
        value = loss(h, weight, targets)
    assert not value.requires_grad
    assert value.item() == pytest.approx(with_grad.item(), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_only_what_wants_a_gradient_gets_one(loss: Loss) -> None:
    h, weight, targets = problem(20, 16, 100)
    loss(h, weight.requires_grad_(), targets).backward()  # type: ignore[no-untyped-call]
    assert h.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_rows_that_are_not_contiguous_are_read_right(loss: Loss) -> None:
    h, weight, targets = problem(64, 16, 300)
    wide = torch.stack([h, h + 1], dim=2)[:, :, 0]
    every_other = torch.stack([weight, weight + 1], dim=1)[:, 0]
    assert loss(wide, every_other, targets).item() == pytest.approx(loss(h, weight, targets).item(), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_other_dtypes(loss: Loss, dtype: torch.dtype, tolerance: float) -> None:
    h, weight, targets = problem(70, 16, 300)
    h, weight = h.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
    value = loss(h, weight, targets)
    value.backward()  # type: ignore[no-untyped-call]
    expected, dh, dweight = reference(h.detach(), weight.detach(), targets)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    check("h", h.grad, dh, tolerance)
    check("weight", weight.grad, dweight, tolerance)


def test_the_native_loss_is_used_for_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    native = _core.cross_entropy

    def counted(*args: Any, **named: Any) -> float:
        calls.append(1)
        return native(*args, **named)

    monkeypatch.setattr(_core, "cross_entropy", counted)
    h, weight, targets = problem(20, 16, 100)
    cross_entropy(h, weight, targets)
    assert len(calls) == 1
    cross_entropy(h.double(), weight.double(), targets)
    chunked_cross_entropy(h, weight, targets)
    assert len(calls) == 1


def test_a_target_outside_the_vocabulary_is_named() -> None:
    h, weight, targets = problem(20, 16, 100)
    targets[7] = 100
    with pytest.raises(InvalidArgument, match="target 100 is outside a vocabulary of 100"):
        cross_entropy(h, weight, targets)


def test_the_number_of_threads_changes_no_bit() -> None:
    h, weight, targets = problem(1500, 32, 800)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            loss = cross_entropy(h.requires_grad_(), weight.requires_grad_(), targets)
            found.append((loss, *torch.autograd.grad(loss, (h, weight))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
