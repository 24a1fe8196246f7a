"""A stage that several processes do together: rank 0 opens and records it, and the end of one is the end of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sparsecode import machine, world
from sparsecode.errors import RankLost, SettingsDiffer, SparsecodeError
from sparsecode.pipeline.advice import told
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import say
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.settings import StageConfig
from sparsecode.world import World

_SEEN_WITHIN = 30.0  # seconds: network file systems show what another machine wrote only after a while
_FAILED = 1  # the exit code of Python for what nobody foresaw

_here: World = world.ALONE  # those that this process last came together with


class _Followed(Run):
    """A run that another process records."""

    def write_record(self, key: str, record: Any) -> None:
        """Nothing: rank 0 does."""

    def log(self, stage: str, step: int, **values: Any) -> None:
        """Nothing: rank 0 does."""

    def rewind_metrics(self, stage: str, step: int) -> None:
        """Nothing: rank 0 does."""


@contextmanager
def together(patience: float = world.PATIENCE) -> Iterator[World]:
    """The processes that do this work; whatever ends it in one ends it in all of them, within seconds.

    Args:
        patience: seconds after which a process that does not answer is given up.

    Raises:
        RankLost: they do not come together, or another one has ended or does not answer.
    """
    global _here
    found = _here = world.join(patience, lambda line: say(f"sparsecode: {line}"))
    try:
        yield found
    except BaseException as error:
        if found.size > 1:
            _tell(found, error)
        raise
    found.close()


def silent(error: BaseException | None = None) -> bool:
    """Whether another process says what became of the work.

    Args:
        error: what ended it here; the others are told now if that was before they came together.
    """
    if error is not None and _here.size == 1 and world.here() and not isinstance(error, RankLost):
        with suppress(type(error)), together():
            raise error
    return _here.silent


def several() -> bool:
    """Whether this process came together with others."""
    return _here.size > 1


def _tell(found: World, error: BaseException) -> None:
    """Tells the other processes that this one ends, and adds to a foreseen error which one that is."""
    who = f"rank {found.rank} of {found.size}"
    if isinstance(error, RankLost):
        line = str(error)
    elif isinstance(error, SparsecodeError):
        error.args, error.remedy = (f"{who}: {told(error)}",), None
        line = str(error)
    else:
        line = f"{who}: {type(error).__name__} {error}".strip()
    found.fail(line, getattr(error, "exit_code", _FAILED))


@contextmanager
def opened(
    world: World, run: Run, key: str, config: StageConfig, inputs: dict[str, str],
    opening: Callable[[], Any],
) -> Iterator[Stage]:  # fmt: skip
    """Opens a stage on rank 0, by `opening`; other ranks have what it has, and record nothing.

    Raises:
        SettingsDiffer: a process was started with other settings, data or versions than rank 0.
        RankLost: another process failed, or this one does not see the run folder that rank 0 writes to.
    """
    world.agree({"settings": config.record(), "inputs": inputs, "versions": machine.versions()}, _same)
    if world.rank == 0:
        with opening() as stage:
            world.share({"done": stage.done, "resuming": stage.resuming, "record": stage.record})
            yield stage
        return
    shown = world.share(None)
    _see(run, key, shown["record"])
    yield Stage(_Followed(run.path), key, config, inputs, [], [], **shown)


def _same(said: Sequence[dict[str, Any]]) -> None:
    for rank, one in enumerate(said):
        for what, first in said[0].items():
            if names := [name for name in first | one[what] if first.get(name) != one[what].get(name)]:
                raise SettingsDiffer(f"rank {rank} has other {what} ({', '.join(names)}); start all alike")


def _see(run: Run, key: str, record: dict[str, Any]) -> None:
    """Waits until this process sees what rank 0 recorded."""
    until = time.monotonic() + _SEEN_WITHIN
    while run.config()["stages"].get(key, {}).get("started") != record.get("started"):
        if time.monotonic() > until:
            raise RankLost(f"{run.path}: not the folder that rank 0 writes to; name one that all machines share")
        time.sleep(0.2)
