"""Processes started as torchrun starts them, with RANK and WORLD_SIZE: forked from one that has loaded torch."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsecode.pipeline import train_dicts  # noqa: F401 (what is loaded here, no process loads again)
from sparsecode.sweep.engines.reference import ReferenceEngine

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["ranks"])
WITHIN = 15.0  # seconds in which all processes are gone after the end of one


def torchrun(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of a process."""
    return {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _process(env: dict[str, str], said: Path, args: Sequence[str], spoil: Callable[[], object] | None) -> None:
    from sparsecode.cli import main

    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    if spoil is not None:
        spoil()
    main(list(args), prog_name="sparsecode")


class Ranks:
    """A command in `size` processes at once.

    Args:
        folder: where what they say is kept.
        args: the command line; a function gives that of each rank.
        spoil: called first in the ranks `spoiled`.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        args: Sequence[str] | Callable[[int], Sequence[str]],
        spoil: Callable[[], object] | None = None,
        *spoiled: int,
    ) -> None:
        port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [folder / f"said-{random.randrange(10**9)}-{rank}" for rank in range(size)]
        self.processes = []
        for rank, file in enumerate(self.files):
            own = args(rank) if callable(args) else args
            given = (torchrun(rank, size, port) if size > 1 else {}, file, own, spoil if rank in spoiled else None)
            self.processes.append(_FORKS.Process(target=_process, args=given, daemon=True))
            self.processes[-1].start()

    def signal(self, number: int, *ranks: int) -> None:
        """Sends a signal to some of them, or to all."""
        for rank in ranks or range(len(self.processes)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.processes[rank].pid or 0, number)

    def codes(self, within: float = 60.0, but: Sequence[int] = ()) -> list[int | None]:
        """Waits for all, `but` some, to end, and gives their exit codes; whoever is left is killed, and has None."""
        until = time.monotonic() + within
        for rank, process in enumerate(self.processes):
            if rank not in but:
                process.join(max(0.0, until - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()
        return codes

    def said(self) -> str:
        """Everything that they said."""
        return "".join(file.read_text() for file in self.files if file.exists())

    def wait_for(self, what: Callable[[], bool], within: float = 60.0) -> None:
        """Waits until something is the case."""
        until = time.monotonic() + within
        while not what():
            assert time.monotonic() < until, self.said()
            assert any(process.is_alive() for process in self.processes), self.said()
            time.sleep(0.01)


def everything(run: Path) -> dict[str, Any]:
    """All that must not depend on how many processes there were: files byte by byte, and the record but for times."""
    files = {path.name: path.read_bytes() for path in sorted((run / "dictionaries").iterdir())}
    record = json.loads((run / "config.json").read_text())["stages"]["train-dicts"]
    for name in ("started", "finished", "machine"):
        record.pop(name)
    left = sorted(path.name for path in run.rglob("*.tmp"))
    return {"files": files, "metrics": (run / "metrics.jsonl").read_bytes(), "record": record, "left": left}


def make_a_group() -> None:
    """As Ray does before it calls a training function."""
    from torch import distributed

    distributed.init_process_group("gloo")


def fail_at_a_step() -> None:
    """The engine fails at its fifth step."""
    step = ReferenceEngine.step

    def failing(self: ReferenceEngine, sweep: Any, *args: Any) -> Any:
        if sweep.step == 5:
            raise ZeroDivisionError("a planted failure")
        return step(self, sweep, *args)

    ReferenceEngine.step = failing  # type: ignore[assignment, method-assign]


def fill_the_disk() -> None:
    """No file may be larger than 4,000 bytes, which a state is."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
