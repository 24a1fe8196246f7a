"""Dictionaries over several processes, here threads: the same bits for any number of them, and what is sent.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsecode import world
from sparsecode.errors import InvalidSetting
from sparsecode.sweep import LossSettings, Start, Sweep, begin
from sparsecode.sweep.engines.reference import ReferenceEngine
from sparsecode.sweep.split import Split
from teams import in_teams

B, D, F = 96, 12, 64
LOSSES = [LossSettings(pre_bias=True), LossSettings(tied=True, mse="sum"), LossSettings(l1_scale="per-size")]


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, D, generator=generator).to(dtype) for _ in range(count)]


def trained(loss: LossSettings, split: Split | None, steps: int = 12) -> tuple[Tensor, ...]:
    """All atoms, encoder rows, biases, and the sums of the last step."""
    sweep = Sweep(D, [F, F // 2], [0.02, 0.05], [0, 1], 1e-2, loss, split=split)
    begin(sweep, Start(), batches(1)[0], threads=1)
    engine = ReferenceEngine()
    for x in batches(steps):
        stats = engine.step(sweep, x, 1.0)
    whole = [sweep.dictionary(k) for k in range(2)]
    return (*(t for one in whole for t in (one.W_enc, one.b_enc, one.W_dec)), stats.sse, stats.l1, stats.l0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_bits_do_not_depend_on_how_many_processes_there_are(loss: LossSettings) -> None:
    alone = trained(loss, Split(8, world.Team()))
    for size in (2, 4, 8):
        for found in in_teams(size, lambda team: trained(loss, Split(8, team))):
            assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


def test_a_sum_in_another_order_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trained(LOSSES[0], Split(8, world.Team()))
    monkeypatch.setattr(world, "tree", lambda parts: sum(parts[1:], parts[0]))
    found = in_teams(8, lambda team: trained(LOSSES[0], Split(8, team)))[0]
    assert not all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_gradients_are_those_of_whole_dictionaries(loss: LossSettings, dtype: torch.dtype, near: float) -> None:
    (x,) = batches(1, dtype)

    def gradients(split: Split | None) -> tuple[Any, dict[str, Tensor]]:
        sweep = Sweep(D, [F], [0.02], [0], 1e-2, loss, split=split, dtype=dtype)
        stats, found = ReferenceEngine().gradients(sweep, x)
        return stats, {name: value if name == "b_dec" else sweep.whole(value) for name, value in found.items()}

    expected = gradients(None)
    for stats, found in in_teams(4, lambda team: gradients(Split(4, team))):
        assert found.keys() == expected[1].keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[1][name], rtol=near, atol=near)
        torch.testing.assert_close(stats.sse, expected[0].sse, rtol=1e-6, atol=0)
        assert torch.equal(stats.l0, expected[0].l0)


@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_each_step_sends_the_reconstruction_and_nothing_else(size: int, pre_bias: bool) -> None:
    def sent(team: world.Team) -> tuple[int, int]:
        sweep = Sweep(D, [F], [0.02], [0], 1e-2, LossSettings(pre_bias=pre_bias), split=Split(4, team))
        begin(sweep, Start(), batches(1)[0], threads=1)
        before = team.sent
        ReferenceEngine().step(sweep, batches(1)[0], 1.0)
        held = sum(m.numel() for pair in sweep.stored_moments.values() for m in pair) - 2 * D * pre_bias
        return team.sent - before, held

    columns = 2
    numbers = 2 * (size - 1) * (B * (D + columns) + D * pre_bias) // size
    assert in_teams(size, sent) == [(numbers, 2 * F * (2 * D + 1) // size)] * size


def test_rows_and_evaluation_are_of_all_features() -> None:
    (x,) = batches(1)
    whole = Sweep(D, [F], [0.02], [0])
    begin(whole, Start(), x, threads=1)
    expected = ReferenceEngine().evaluate(whole, x)

    def evaluated(team: world.Team) -> tuple[Any, Tensor, Tensor]:
        sweep = Sweep(D, [F], [0.02], [0], split=Split(4, team))
        begin(sweep, Start(), x, threads=1)
        stats = ReferenceEngine().evaluate(sweep, x)
        return stats, sweep.whole(sweep.fired), sweep.initial_cosine(0)

    for stats, fired, cosine in in_teams(2, evaluated):
        torch.testing.assert_close(stats.sse, expected.sse, rtol=1e-5, atol=0)
        assert torch.equal(fired, whole.fired) and torch.equal(cosine, whole.initial_cosine(0))


def test_one_that_runs_into_nan_is_known_to_all() -> None:
    def diverged(team: world.Team) -> set[int]:
        sweep = Sweep(D, [F, F], [0.02, 0.02], [0, 1], split=Split(2, team))
        if team.rank == 1:
            sweep.b_enc[sweep.rows(1)] = torch.nan
        return sweep.diverged()

    assert in_teams(2, diverged) == [{1}, {1}]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Split(6, world.Team()), "power of two of segments, not 6"),
        (lambda: Split(2, SimpleNamespace(rank=0, size=4)), "2 segments are too few for 4 processes"),  # type: ignore[arg-type]
        (lambda: Sweep(D, [20], [0.1], [0], split=Split(8, world.Team())), "20 features are no multiple of 8 segments"),
        (lambda: Sweep(8, [16], [0.1], [0], inputs=4, split=Split(2, world.Team())), "transcoders cannot be cut"),
        (lambda: world.ALONE.team(2), "1 processes do not divide into teams of 2"),
    ],
)
def test_what_cannot_be_cut(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        make()


def test_kinds_that_choose_among_all_features_are_refused() -> None:
    from sparsecode.sweep.kinds import parse_kinds

    with pytest.raises(InvalidSetting, match="'topk k=4' cannot be cut"):
        Sweep(D, [F], parse_kinds("topk k=4"), [0], split=Split(2, world.Team()))
