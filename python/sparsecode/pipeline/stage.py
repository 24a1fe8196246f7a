"""What all stages do alike: the settings of a call, the lock and the record of a stage, and what to do on a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sparsecode.checkpoint import beside, remove
from sparsecode.pipeline import ranks
from sparsecode.pipeline.opening import Stage, open_stage
from sparsecode.pipeline.progress import say, watching
from sparsecode.pipeline.recall import recalled
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.settings import StageConfig
from sparsecode.watch import Task, Watch
from sparsecode.world import ALONE, World

S = TypeVar("S", bound=StageConfig)


def called(run: str | Path | Run, kind: type[S], config: S | None, settings: Mapping[str, Any]) -> tuple[Run, S]:
    """The run and the settings that a stage's function was called with; see `recall`."""
    run = run if isinstance(run, Run) else Run(run)
    return run, recalled(run, kind, config, settings)


@contextmanager
def opened(
    run: Run, key: str, config: StageConfig, *, quiet: bool, called: str | None = None, **files: Any
) -> Iterator[Stage]:
    """Opens a stage as `open_stage` does, and says so where there is nothing to do.

    Args:
        run, key, config: see `open_stage`, as all of `files`.
        quiet: say nothing.
        called: the beginning of the line that says so; the stage's name unless given.
    """
    with open_stage(run, key, config, **files) as stage:
        if stage.done and not quiet:
            say(f"{called or key + ':'} already done in {run.path} with the same settings")
        yield stage


def run_stage(
    run: Run,
    key: str,
    config: StageConfig,
    do: Callable[[Stage], Mapping[str, Any]],
    *,
    force: bool,
    quiet: bool,
    inputs: Mapping[str, str] | None = None,
    outputs: Iterable[Path] = (),
    needs: Iterable[Path] | None = None,
    state: Path | None = None,
    world: World = ALONE,
) -> dict[str, Any]:
    """Does a stage unless it is done, and records what `do` returns.

    Args:
        run, key, config, inputs, outputs, needs, force: see `open_stage`.
        do: the work; its result is what the stage recorded when it finished.
        quiet: see `opened`.
        state: what an interrupted stage goes on from; removed once it is recorded as done.
        world: the processes that do it together; see `ranks.opened`.

    Returns:
        The result, of now or of before.

    Raises:
        SparsecodeError: what `open_stage` and `do` raise.
    """
    given = dict(inputs or {})

    def opening() -> AbstractContextManager[Stage]:
        return opened(run, key, config, quiet=quiet, inputs=given, outputs=outputs, needs=needs, force=force)

    with ranks.opened(world, run, key, config, given, opening) as stage:
        if not stage.done:
            stage.finish(do(stage))
        if state is not None and world.rank == 0:
            remove(state, *beside(state))
        return stage.result


class StageWatch(Watch):
    """Shows work on the console unless `quiet`, and keeps a stage's decisions and measurements in the run's record."""

    def __init__(self, run: Run, stage: Stage, *, quiet: bool) -> None:
        self._run, self._stage, self._shown = run, stage, watching(quiet)

    def task(self, label: str, total: int | None, unit: str, *, done: int = 0) -> Task:
        """Begins work with a line of progress."""
        return self._shown.task(label, total, unit, done=done)

    def note(self, message: str, remedy: str | None = None) -> None:
        """Prints a line."""
        self._shown.note(message, remedy)

    def planned(self, **decisions: int) -> None:
        """Into the stage's record."""
        self._stage.plan(**decisions)

    def measured(self, step: int, **values: Any) -> None:
        """A line of metrics.jsonl."""
        self._run.log(self._stage.key, step, **values)
