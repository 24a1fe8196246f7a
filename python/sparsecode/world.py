"""Several processes that do one work: which one this is, and how they come to one decision.

They are started by torchrun, or whatever sets RANK and WORLD_SIZE as it does, or find a process group of
torch.distributed ready. Rank 0 hears all of them and decides; no other two speak with each other. So whoever ends or
falls silent is known by name, and the end of one is the end of all. This is the only module that names
torch.distributed.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sparsecode.errors import InvalidSetting, RankLost
from sparsecode.machine import cores, ranks_here

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = 600.0
_GRACE = 8.0  # seconds in which a process that hears of another's end must have come to its own
_PARTING = 3.0  # seconds in which the last message arrives
_FOREVER = timedelta(days=365)  # of the group's own clock, which would end every connection: patience is kept here


def tree(parts: Sequence[Tensor]) -> Tensor:
    """The sum of a power of two of tensors as a binary tree: neighbours first."""
    while len(parts) > 1:
        parts = [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


class Team:
    """Processes that hold parts of the same things: this one alone.

    Attributes:
        rank, size: which of them this one is, and how many there are.
        sent: numbers that this process has sent to others.
    """

    rank, size, sent = 0, 1, 0

    def add(self, own: Tensor) -> Tensor:
        """The sum of everyone's [n, m], as `tree` adds it in the order of ranks.

        Raises:
            RankLost: another process ended.
        """
        return own

    def gather(self, own: Tensor) -> Tensor:
        """Everyone's [n, ...], of the same shape, one after the other in the order of ranks; see `add`."""
        return own


class World:
    """The processes of one work: this one alone."""

    rank, size = 0, 1
    silent = False  # whether another process says why the work ended

    def agree(self, mine: Any, decide: Callable[[list[Any]], Any]) -> Any:
        """What rank 0 decides from what each process says, in the order of their ranks.

        Args:
            mine: what this one says: JSON values.
            decide: called on rank 0 alone; gives JSON values.

        Raises:
            RankLost: another process failed, ended or does not answer.
        """
        return decide([mine])

    def share(self, value: Any) -> Any:
        """The value of rank 0, on every rank; see `agree`."""
        return self.agree(None, lambda _: value)

    def team(self, size: int) -> Team:
        """The `size` processes, this one among them, that hold parts of the same things. Every process calls it.

        Raises:
            InvalidSetting: the processes do not divide into teams of so many.
        """
        if size < 1 or self.size % size:
            raise InvalidSetting(f"{self.size} processes do not divide into teams of {size}")
        return Team()

    def fail(self, line: str, code: int) -> None:
        """Tells the others that this one ends, and why: `line`, with the exit code `code`."""

    def close(self) -> None:
        """Parts from the others after the work is done."""


ALONE = World()


def here() -> bool:
    """Whether this process was started as one of several, by RANK and WORLD_SIZE or in a ready process group."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        return True
    if "torch.distributed" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def join(patience: float = PATIENCE, say: Callable[[str], object] = lambda _: None) -> World:
    """The processes that this one was started with; `ALONE` where there are none.

    Args:
        patience: seconds after which a process that does not answer is given up.
        say: says the last words of a work that is in the middle of something.

    Raises:
        RankLost: they do not come together within `PATIENCE` seconds.
    """
    return _Ranks(patience, say) if here() else ALONE


class _Ranks(World):
    def __init__(self, patience: float, say: Callable[[str], object]) -> None:
        import torch
        from torch import distributed

        self._dist, self.patience, self._say = distributed, patience, say
        self._owns = not distributed.is_initialized()
        try:
            if self._owns:
                distributed.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
            self._group: Any = distributed.new_group(backend="gloo", timeout=_FOREVER)
        except (RuntimeError, ValueError) as error:  # ValueError: a variable is missing
            reason = " ".join(str(error).split())[:200]
            raise RankLost(f"the processes of this work did not come together ({reason}); start all of them") from error
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        if ranks_here() > 1:
            torch.set_num_threads(cores())
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        self._heard: dict[int, queue.SimpleQueue[dict[str, Any]]] = {
            peer: queue.SimpleQueue() for peer in (range(1, self.size) if self.rank == 0 else (0,))
        }
        self._saying: dict[int, queue.SimpleQueue[dict[str, Any]]] = {peer: queue.SimpleQueue() for peer in self._heard}
        self._ending = threading.Event()  # whether this process has come to its own end
        self._parted: set[int] = set()  # whoever took the last message
        self._told = False  # whether rank 0 said why it ended
        self._said = False  # whether this process said why all end
        # Threads, since one that is stopped neither sends nor takes anything.
        self._speakers, self._listeners = (
            [threading.Thread(target=do, args=(peer,), daemon=True) for peer in self._heard]
            for do in (self._speak, self._listen)
        )
        for thread in (*self._speakers, *self._listeners):
            thread.start()

    def agree(self, mine: Any, decide: Callable[[list[Any]], Any]) -> Any:
        """See `World.agree`."""
        if self.rank:
            self._saying[0].put({"says": mine})
            return self._hear(0)
        decided = decide([mine, *(self._hear(peer) for peer in self._heard)])
        for saying in self._saying.values():
            saying.put({"says": decided})
        return decided

    def team(self, size: int) -> Team:
        """See `World.team`: runs of neighbouring ranks."""
        if super().team(size).size == size:
            return Team()
        import torch

        backend = "nccl" if torch.cuda.is_available() else "gloo"
        groups = [
            self._dist.new_group(list(range(first, first + size)), backend=backend,
                                 timeout=timedelta(seconds=self.patience))
            for first in range(0, self.size, size)
        ]  # fmt: skip
        return _Several(self, groups[self.rank // size], self.rank % size, size)

    def lost(self) -> RankLost:
        """Why an exchange failed: every process comes here, or is the one that is lost."""
        try:
            self.agree(None, lambda _: None)
        except RankLost as error:
            return error
        return RankLost("an exchange between processes failed; the same command goes on from the last state")

    def fail(self, line: str, code: int) -> None:
        """See `World.fail`. Rank 0 says what happened, or rank 1 where rank 0 is the one that is gone."""
        self._part({"failed": line, "code": code}, self._speakers)
        if self.rank == 1 and not self._parted:
            self._listeners[0].join(_PARTING)
        self.silent = self._said or self.rank > 1 or (self.rank == 1 and (self._told or bool(self._parted)))

    def close(self) -> None:
        """See `World.close`."""
        self._part({"bye": True}, [*self._speakers, *self._listeners])
        self.silent = self.rank > 0
        self._dist.destroy_process_group(None if self._owns else self._group)

    def _part(self, message: dict[str, Any], threads: Sequence[threading.Thread]) -> None:
        """Says the last, and waits a little for it to arrive."""
        self._ending.set()
        for saying in self._saying.values():
            saying.put(message)
        until = time.monotonic() + _PARTING
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _hear(self, peer: int) -> Any:
        """What a process says next."""
        whom = f"rank {peer} of {self.size}"
        # Rank 0 waits for the slowest before it answers, and is the one to say who that was.
        patience = self.patience + (_GRACE if self.rank else 0.0)
        try:
            message = self._heard[peer].get(timeout=patience)
        except queue.Empty:
            raise RankLost(f"{whom} has not answered for {self.patience:g} s; see what it waits for") from None
        if "says" in message:
            return message["says"]
        self._ending.set()
        error = RankLost(self._reason(peer, message))
        error.exit_code = message.get("code", error.exit_code)
        raise error

    def _reason(self, peer: int, message: dict[str, Any]) -> str:
        return str(message.get("failed", f"rank {peer} of {self.size} ended without a word, as after a kill"))

    def _listen(self, peer: int) -> None:
        """Takes every message of a process, until its last."""
        while True:
            try:
                message = self._receive(peer)
            except RuntimeError:  # the connection is closed
                message = {"lost": True}
            self._told = self._told or "failed" in message
            self._heard[peer].put(message)
            if "says" not in message:
                break
        # This process is told by its next `agree`, but may be in the middle of an hour's work.
        if "bye" not in message and not self._ending.wait(_GRACE):
            code = message.get("code", RankLost.exit_code)
            if self.rank == 0 or (self.rank == 1 and "lost" in message):
                self._said = True
                self._say(self._reason(peer, message))
            if self.rank == 0:  # so that the others know it, and do not take this end for another one
                self._part({"failed": self._reason(peer, message), "code": code}, self._speakers)
            os._exit(code)

    def _speak(self, peer: int) -> None:
        """Sends every message to a process, until the last."""
        import torch

        message: dict[str, Any] = {"says": None}
        while "says" in message:
            message = self._saying[peer].get()
            data = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
            try:
                self._dist.send(torch.tensor([len(data)]), group=self._group, group_dst=peer)
                self._dist.send(data, group=self._group, group_dst=peer)
            except RuntimeError:  # the connection is closed, which the listener tells
                return
        self._parted.add(peer)

    def _receive(self, peer: int) -> dict[str, Any]:
        import torch

        length = torch.zeros(1, dtype=torch.int64)
        self._dist.recv(length, group=self._group, group_src=peer)
        data = torch.empty(int(length), dtype=torch.uint8)
        self._dist.recv(data, group=self._group, group_src=peer)
        message: dict[str, Any] = json.loads(data.numpy().tobytes())
        return message


class _Several(Team):
    def __init__(self, world: _Ranks, group: Any, rank: int, size: int) -> None:
        self._world, self._group, self.rank, self.size, self.sent = world, group, rank, size, 0

    def add(self, own: Tensor) -> Tensor:
        """See `Team.add`. Each process adds its share of the rows, and gives the sum to all: a ring's volume."""
        import torch

        share = -(-len(own) // self.size)
        padded = own.new_zeros(share * self.size, own.shape[1])
        padded[: len(own)] = own
        theirs, whole = torch.empty_like(padded), torch.empty_like(padded)
        self._exchange("all_to_all_single", theirs, padded, padded.numel() // self.size)
        added = tree(theirs.view(self.size, share, -1).unbind()).contiguous()
        self._exchange("all_gather_into_tensor", whole, added, added.numel())
        return whole[: len(own)]

    def gather(self, own: Tensor) -> Tensor:
        """See `Team.gather`."""
        own = own.contiguous()
        whole = own.new_empty(self.size * len(own), *own.shape[1:])
        self._exchange("all_gather_into_tensor", whole, own, own.numel())
        return whole

    def _exchange(self, how: str, out: Tensor, given: Tensor, to_each: int) -> None:
        """One collective operation, in which so many numbers go to each of the others."""
        self.sent += (self.size - 1) * to_each
        try:
            getattr(self._world._dist, how)(out, given, group=self._group)
        except RuntimeError as error:  # the connection is closed, or nobody answers
            raise self._world.lost() from error
