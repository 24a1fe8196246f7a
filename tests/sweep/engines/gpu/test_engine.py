"""Batches through pinned memory, on a simulated CUDA whose copies happen as late as the order of events allows.

What the code reads before an event that covers its copy is NaN, and a pinned buffer that is written to before its copy
is over spoils the batch: both would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsecode.sweep.engines.gpu import engine as gpu


class Stream:
    """Copies that were issued and have not happened yet, in order."""

    def __init__(self) -> None:
        self.issued = 0
        self.waiting: list[Callable[[], object]] = []

    def run_until(self, mark: int) -> None:
        while self.issued - len(self.waiting) < mark:
            self.waiting.pop(0)()


class Event:
    """A place in a stream."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.mark = 0

    def record(self, stream: Stream) -> None:
        self.stream, self.mark = stream, stream.issued

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.run_until(self.mark)


class Work:
    """The stream of the kernels, which runs behind the host: it reads a batch only when `catch_up` is called."""

    def __init__(self) -> None:
        self.events: list[tuple[Stream, int]] = []

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None
        self.events.append((event.stream, event.mark))

    def catch_up(self) -> None:
        for stream, mark in self.events:
            stream.run_until(mark)


COPIES, WORK = Stream(), Work()


class Pinned(Tensor):
    """Host memory whose copies are delayed, and their destination."""

    def to(self, *_: Any, **__: Any) -> Tensor:
        sent = torch.full_like(self.as_subclass(Tensor), float("nan")).as_subclass(Pinned)
        COPIES.issued += 1
        COPIES.waiting.append(lambda: sent.as_subclass(Tensor).copy_(self.as_subclass(Tensor)))
        return sent

    def record_stream(self, _: Any) -> None:
        """Nothing to do, because it is never freed."""


@pytest.fixture
def paper_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    COPIES.issued = 0
    COPIES.waiting.clear()
    WORK.events.clear()

    def pinned(shape: torch.Size, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        assert pin_memory
        return torch.zeros(shape, dtype=dtype).as_subclass(Pinned)

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: COPIES)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: WORK)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_next_batch_is_copied_while_one_is_worked_on(paper_cuda: None, count: int) -> None:
    given: list[Tensor] = []

    def batches() -> Iterator[Tensor]:
        for index in range(count):
            assert len(given) == max(0, index - 1)
            yield torch.full((3, 2), float(index))

    for batch in gpu._prefetch(batches(), torch.device("cpu")):
        given.append(batch)
        last = len(given) == count
        assert COPIES.issued == len(given) + (0 if last else 1)
        assert last or COPIES.waiting  # issued, and not waited for
        if len(given) > 1:  # the kernels read the batch before this one only now
            WORK.catch_up()
            assert torch.equal(given[-2].as_subclass(Tensor), torch.full((3, 2), float(len(given) - 2)))
    assert len(given) == count
    WORK.catch_up()
    assert all(torch.equal(one.as_subclass(Tensor), torch.full((3, 2), float(i))) for i, one in enumerate(given))


def test_a_last_batch_of_another_size_has_a_buffer_of_its_own(paper_cuda: None) -> None:
    sizes = [4, 4, 4, 3]
    found = list(gpu._prefetch((torch.ones(size, 2) for size in sizes), torch.device("cpu")))
    WORK.catch_up()
    assert [len(batch) for batch in found] == sizes
    assert all(torch.equal(batch.as_subclass(Tensor), torch.ones(len(batch), 2)) for batch in found)
