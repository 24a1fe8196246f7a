"""Packed tensors with more than 2^31 elements: the kernels must work alike on rows beyond them.

Only the rows that are used are memory (`interpreter_shim.far`); every other address of the tensor belongs to nobody.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from interpreter_shim import check_red_zones, far, guard, guarded
from kernel_checks import Kernels, Problem, autograd, compare
from sparsecode.kernels.configs import Tile
from sparsecode.kernels.tables import Segments

B, D, n = 17, 32, 20
FIRST = (1 << 31) // D + 1000  # row of the dictionary's first feature


def far_segments() -> Segments:
    """One dictionary, far away."""
    segments = replace(Segments.of((0, n), "cpu"), bounds=(FIRST, FIRST + n))
    return replace(segments, offsets=torch.tensor(segments.bounds, dtype=torch.int32))


def check_far_rows(kernels: Kernels) -> None:
    """Forward and backward."""
    near, segments = Problem.random(B, D, [n], dtype=torch.float32), far_segments()
    w_enc, bias, w_dec = (far(guard(one), FIRST) for one in (near.w_enc, near.b_enc, near.w_dec))
    x = guard(near.x)
    residual, sums = guarded(1, B, D, dtype=torch.float32), guarded(2, 2, 1, dtype=torch.float32)
    kernels.forward.forward(x, x, w_enc, bias, w_dec, None, segments, Tile(16, 16), residual=residual, sums=sums)
    scale = 2 / (B * D)
    found = {"d_enc": guarded(n, D, dtype=torch.float32), "d_bias": guarded(n, dtype=torch.float32)}
    found |= {"d_dec": guarded(n, D, dtype=torch.float32), "fired": guarded(n, dtype=torch.int32)}
    written = {name: far(value, FIRST) for name, value in found.items()}
    written["fired"] = written["fired"][None]
    tiles = segments.feature_tiles(16)
    scales = guard(torch.tensor([[scale, near.l1[0] / (B * scale)]]))
    weights = (w_enc, bias, w_dec, None, segments, tiles, scales, Tile(16, 16))
    kernels.backward.backward(x, residual, *weights, parts=3, **written)
    expected = autograd(near)
    compare(found | {"sums": sums.sum(0)}, expected | {"sums": expected["sums"][:2]}, 1e-5)
    check_red_zones()


def check_far_adam(kernels: Kernels) -> None:
    """The optimiser, the folded pre-bias and its gradient: the bits of the same rows nearby."""
    near = Problem.random(B, D, [n], pre=True, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    assert near.pre is not None
    pre = guard(near.pre)

    def run(first: int, segments: Segments) -> list[Tensor]:
        generator.manual_seed(3)
        weights = [guard(one) for one in (near.w_enc, near.b_enc, near.w_dec)]
        moments = [(guard(torch.zeros_like(one)), guard(torch.zeros_like(one))) for one in weights]
        gradients = [guard(torch.randn(one.shape, generator=generator)) for one in weights]
        copies = [guarded(n, D, dtype=torch.float16) for _ in range(2)]
        folded, d_pre = guarded(n, dtype=torch.float32), guarded(1, D, dtype=torch.float32)
        away = [far(one, first) for one in weights]
        tiles, rates = segments.feature_tiles(16), guard(torch.tensor([0.01]))
        kernels.prebias.fold(*away[:2], pre, segments, tiles, folded=far(folded, first))
        columns, scales = guard(torch.ones(1, D)), guard(torch.tensor([[0.5, 0.1]]))
        d_bias = far(gradients[1], first)
        kernels.prebias.prebias_gradient(columns, d_bias, away[0], scales, segments, d_pre=d_pre)
        kernels.adam.adam_step(
            tuple(away),
            tuple((far(m, first), far(v, first)) for m, v in moments),
            tuple(far(one, first) for one in gradients),
            tuple(far(one, first) for one in copies),
            rates,
            segments,
            tiles,
            root=0.001**0.5,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            project=True,
        )
        return [one.clone() for one in (*weights, *copies, *(m for pair in moments for m in pair), folded, d_pre)]

    for here, there in zip(run(0, Segments.of((0, n), "cpu")), run(FIRST, far_segments()), strict=True):
        assert not here.isnan().any()
        assert torch.equal(here, there)
    check_red_zones()


FAR_CHECKS: tuple[Callable[[Kernels], None], ...] = (check_far_rows, check_far_adam)
