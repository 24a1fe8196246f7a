"""Processes that share dictionaries, as threads: the real exchange over what torch.distributed would do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sparsecode import world


class Wire:
    """What torch.distributed does, between threads."""

    def __init__(self, size: int) -> None:
        self.barrier, self.own = threading.Barrier(size), threading.local()
        self.given: list[Tensor] = [torch.empty(0)] * size

    def _everyone(self, mine: Tensor) -> list[Tensor]:
        self.barrier.wait()
        self.given[self.own.rank] = mine.clone()
        self.barrier.wait()
        return list(self.given)

    def all_to_all_single(self, out: Tensor, mine: Tensor, group: Any) -> None:
        every = self._everyone(mine)
        out.copy_(torch.cat([one.chunk(len(every))[self.own.rank] for one in every]))

    def all_gather_into_tensor(self, out: Tensor, mine: Tensor, group: Any) -> None:
        out.copy_(torch.cat(self._everyone(mine)))


def in_teams(size: int, work: Callable[[world.Team], Any]) -> list[Any]:
    """What `work` gives in each of `size` processes."""
    if size == 1:
        return [work(world.Team())]
    wire = Wire(size)

    def one(rank: int) -> Any:
        wire.own.rank = rank
        return work(world._Several(SimpleNamespace(_dist=wire), None, rank, size))  # type: ignore[arg-type]

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
