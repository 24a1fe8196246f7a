"""Opens a stage of a run: locks it, and compares what was recorded with what is asked for now."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsecode import machine
from sparsecode.checkpoint import os_failure
from sparsecode.errors import IoFailed, SettingsDiffer, SparsecodeError, StageStale
from sparsecode.pipeline.run import Run, command_of
from sparsecode.pipeline.settings import StageConfig
from sparsecode.pipeline.stale import stale

_ADDED = {"sweep", "activations"}  # inputs that older versions did not record: nothing is known of them there


@dataclass
class Stage:
    """One stage while it is open: what was recorded before, and what it now records."""

    run: Run
    key: str
    config: StageConfig
    inputs: dict[str, str]
    outputs: list[Path]
    needs: list[Path]
    done: bool = False
    resuming: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> dict[str, Any]:
        """What the stage recorded when it finished; empty before."""
        return dict(self.record.get("result") or {})

    def plan(self, **values: Any) -> None:
        """Records decisions taken while running (steps fitted to --minutes), so that a resumed stage keeps them."""
        self.record.setdefault("plan", {}).update(values)
        self.run.write_record(self.key, self.record)

    @property
    def planned(self) -> dict[str, Any]:
        """Decisions recorded so far by `plan`."""
        return dict(self.record.get("plan") or {})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the stage done; `result` holds small JSON values: fingerprints, counts, headline figures."""
        self.record |= {"status": "done", "result": dict(result), "finished": _now()}
        self.run.write_record(self.key, self.record)

    def take_up(self) -> bool:
        """Takes up what was recorded with the same settings and inputs; False where there is nothing to keep.

        Raises:
            SettingsDiffer, StageStale: what was recorded is of others, and has left something.
        """
        stages = self.run.config()["stages"]
        old = stages.get(self.key)
        if old is None:
            return False
        done = old["status"] == "done"
        differences = _differences(old["settings"], self.config, done=done)
        changed = _changed(old.get("inputs", {}), self.inputs)
        if not (differences or changed):
            self.record, self.done = old, done and all(_holds(path) for path in self.needs)
            self.resuming = not self.done
            return True
        if not (done or any(_holds(path) for path in self.outputs)):
            return False
        was = "done" if done else "begun"
        if differences:
            raise SettingsDiffer(
                f"{self.run.path}: {self.key} was {was} with {'; '.join(differences)}; "
                "add --force to do it again, or choose another run with --run"
            )
        why = f"what it was {was} from has changed since ({', '.join(changed)})"
        commands: tuple[str, ...] = (command_of(self.run, self.key, stages, force=True),)
        if (told := stale(self.run).get(self.key)) is not None:
            why, commands = told.reason, told.commands
        raise StageStale(f"{self.run.path}: {self.key} is out of date, {why}; run: {' && '.join(commands)}")

    def remember(self) -> None:
        """Records what may differ now from when the stage was begun: settings beside those that decide, the preset."""
        beside = self.config.beside()
        if not self.done and self.record.get("beside") != beside:
            self.record["beside"] = beside
            self.run.write_record(self.key, self.record)
        elif self.run.preset is not None and self.run.config().get("preset") != self.run.preset.record():
            self.run.write_record(self.key, self.record)

    def begin(self) -> None:
        """Removes what it writes, and records it as begun."""
        for path in self.outputs:
            _remove(path)
        self.run.rewind_metrics(self.key, 0)
        self.record = {
            "status": "running",
            "settings": self.config.record(),
            "beside": self.config.beside(),
            "inputs": self.inputs,
            "started": _now(),
            "versions": machine.versions(),
            "machine": machine.describe(),
        }
        self.run.write_record(self.key, self.record)


@contextmanager
def open_stage(
    run: Run,
    key: str,
    config: StageConfig,
    *,
    inputs: Mapping[str, str] | None = None,
    outputs: Iterable[Path] = (),
    needs: Iterable[Path] | None = None,
    force: bool = False,
    wait: bool = False,
    shared: bool = False,
) -> Iterator[Stage]:
    """Opens a stage: locked against a second process, compared with what was recorded.

    What was recorded is believed only as far as the files bear it out: a stage that is done but whose files are
    gone is resumed, and one that was begun with other settings but has left nothing is begun anew. A stage that
    fails before it has left anything is forgotten. Of a run that cannot be written to, what is done can be read.

    Args:
        run: the run.
        key: the stage's name, with a hook point where it can be run for several (`harvest/blocks.2.mlp.hook_post`).
        config: its settings.
        inputs: fingerprints of what it reads, by name.
        outputs: files and folders it writes; removed where it starts anew with `force`.
        needs: what must be there of a stage that is done; the first of `outputs` unless named.
        force: begin it anew, whatever was recorded.
        wait: wait for a process that is in the same stage.
        shared: other processes may be in it at the same time, each with a part of the work: it is locked, and waited
            for, only while what was recorded is compared.

    Yields:
        A `Stage`: `done` (nothing to do), `resuming` (begun before with the same settings) or neither.

    Raises:
        SettingsDiffer: recorded with other settings, and not `force`.
        StageStale: with the same settings from other inputs, and not `force`.
        RunLocked: another process is in the same stage, and not `wait` or `shared`.
        RunInvalid, IoFailed: the run's folder cannot be used, or not be written to.
    """
    from sparsecode._core import FileLock

    written = list(outputs)
    stage = Stage(run, key, config, dict(inputs or {}), written, written[:1] if needs is None else list(needs))
    run.check_place()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(run.path, error) from error
    try:
        lock = (FileLock.wait if wait or shared else FileLock)(run.path / f".{key.replace('/', '-')}.lock")
    except IoFailed as error:
        if force or not stage.take_up() or not stage.done:
            raise IoFailed(
                f"{run.path}: this folder cannot be written to ({error}); choose another run with --run"
            ) from error
        yield stage
        return
    try:
        if not force and stage.take_up():
            stage.remember()
        else:
            stage.begin()
        if shared:
            lock.release()
        try:
            yield stage
        except SparsecodeError:
            if not stage.done and not shared and not any(_holds(path) for path in written):
                with suppress(SparsecodeError):  # a full disk is told already
                    run.write_record(key, None)
            raise
    finally:
        lock.release()


def _differences(old: Mapping[str, Any], config: StageConfig, *, done: bool) -> list[str]:
    """Settings that were other ones, spelled out.

    What is done counts as done with the default of a setting that its version did not know yet.
    """
    new, default = config.record(), type(config)().record()
    names = sorted(old.keys() | new.keys())
    if done:
        names = [name for name in names if name in old or new[name] != default.get(name)]
        names = [name for name in names if name in new or hasattr(config, name)]
    names = [name for name in names if old.get(name) != new.get(name)]
    return [f"{name} {_short(old.get(name))}, not {_short(new.get(name))}" for name in names]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Inputs that were other ones; what is not there and what is empty are the same."""
    names = sorted((old.keys() | new.keys()) - (_ADDED - old.keys()))
    return [name for name in names if (old.get(name) or "") != (new.get(name) or "")]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _holds(path: Path) -> bool:
    """Whether a file is there, or a folder with a file in it; hidden ones are locks, or half written."""
    if not path.is_dir():
        return path.exists()
    return any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*"))


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise os_failure(path, error) from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
