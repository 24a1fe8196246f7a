"""Choices for a machine are a pure function of its properties."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from sparsecode import machine
from sparsecode.checkpoint import os_failure
from sparsecode.errors import IoFailed, OutOfSpace
from sparsecode.evaluation.sums import Predictions, Reconstruction
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.metrics import Deviations

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "bfloat16", "float16"),
    [
        ({"avx2", "avx512f", "avx512_vnni", "f16c"}, False, False),
        ({"avx512_bf16"}, True, False),
        ({"amx_bf16", "amx_tile"}, True, False),
        ({"avx512_fp16"}, False, True),
        ({"amx_fp16"}, False, True),
        ({"asimd", "bf16", "asimdhp"}, True, True),
        ({"FEAT_FP16"}, False, True),
        (set(), False, False),
    ],
)
def test_types_that_a_processor_emulates_are_computed_in_float32(
    flags: set[str], bfloat16: bool, float16: bool
) -> None:
    for saved, fast in ((torch.bfloat16, bfloat16), (torch.float16, float16), (torch.float32, True)):
        assert machine.computes_in(saved, CPU, frozenset(flags)) == (saved if fast else torch.float32)
        assert machine.computes_in(saved, torch.device("cuda"), frozenset(flags)) == saved
        assert machine.computes_in(saved, torch.device("mps"), frozenset(flags)) == saved


def test_auto_is_the_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []

    class Asked:
        def __init__(self, name: str) -> None:
            chosen.append(name)

    monkeypatch.setattr(torch, "device", Asked)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    for cuda, mps, allowed, expected in (
        (True, True, True, "cuda"),
        (False, True, True, "mps"),
        (False, False, True, "cpu"),
        (False, True, False, "cpu"),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        machine.torch_device("auto", mps=allowed)
        assert chosen.pop() == expected


def test_dictionaries_are_not_trained_on_mps_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("SPARSECODE_ENGINE", raising=False)
    assert choose_engine().device.type == "cpu"


def test_nothing_is_float64_on_a_device_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor plays MPS: what `wide` did not move is refused, as MPS refuses it."""
    monkeypatch.setattr(machine, "wide", lambda values: torch.Tensor.double(values))

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    plain = torch.Tensor.double
    for module in ("sparsecode.evaluation.sums", "sparsecode.sweep.metrics"):
        monkeypatch.setattr(f"{module}.wide", lambda values: plain(values))
    monkeypatch.setattr(torch.Tensor, "double", refuse)
    x = torch.randn(6, 4)
    found = Reconstruction()
    found.add(x, x + 0.5, x.relu())
    assert found.rows == 6 and found.l0 == int((x > 0).sum())
    assert Deviations.of(x).rows == 6
    logits = torch.randn(2, 3, 5)
    mask = torch.ones(2, 3, dtype=torch.bool)
    predictions = Predictions()
    predictions.add(logits, logits, torch.zeros(2, 3, dtype=torch.int64), mask, mask)
    assert predictions.scored == 6 and predictions.kl == pytest.approx(0, abs=1e-6)


def test_a_full_disk_is_known_by_its_name() -> None:
    for name in ("ENOSPC", "EDQUOT", "EFBIG"):
        if hasattr(errno, name):
            assert isinstance(os_failure(Path("x"), OSError(getattr(errno, name), "full")), OutOfSpace)
    assert isinstance(os_failure(Path("x"), OSError(errno.EACCES, "no")), IoFailed)


def test_processes_of_one_work_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    found = []
    for said in ("", "1", "2", "3", "16", "x"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
        found.append(machine.cores())
    assert found == [8, 8, 4, 2, 1, 8]
