"""A run folder: where each stage writes, and the record of what was done with which settings.

RUN/config.json                       the preset, and settings, versions and machine of every stage
RUN/tokenizer.json  RUN/tokens/       the text as numbers
RUN/gpt/                              model.safetensors, config.json
RUN/activations/HOOK/                 a dataset
RUN/dictionaries/NAME.safetensors     with NAME.json beside it
RUN/comparison.safetensors + .json    what `compare` found
RUN/claims.json  RUN/science/         verdicts on the claims, and the sweeps beside the run's own that they need
RUN/baselines/NAME.safetensors        with NAME.json; baselines.json, measures.csv
RUN/toy/                              toy.json, measures.csv, truth, recovery.safetensors, report.html
RUN/metrics.jsonl  RUN/report.html  RUN/report.json
RUN/figures/                          each figure of the report as CSV and PNG
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsecode import machine
from sparsecode.checkpoint import os_failure, write_json, write_text
from sparsecode.errors import (
    InvalidSetting,
    IoFailed,
    RunInvalid,
    SettingsDiffer,
    SparsecodeError,
    StageMissing,
    StageStale,
)
from sparsecode.pipeline.preset import Preset
from sparsecode.pipeline.settings import StageConfig

DEFAULT_RUN = "sparsecode-run"
FORMAT = 1
_ADDED = {"sweep", "activations"}  # inputs that older versions did not record: nothing is known of them there


@dataclass(frozen=True)
class Stale:
    """Why a stage is out of date, and the commands that mend it, the first thing to run first."""

    reason: str
    commands: tuple[str, ...]


@dataclass
class Stage:
    """One stage while it is open: what was recorded before, and what it now records."""

    run: Run
    key: str
    done: bool
    resuming: bool
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> dict[str, Any]:
        """What the stage recorded when it finished; empty before."""
        return dict(self.record.get("result") or {})

    def plan(self, **values: Any) -> None:
        """Records decisions taken while running (steps fitted to --minutes), so that a resumed stage keeps them."""
        self.record.setdefault("plan", {}).update(values)
        self.run._write_stage(self.key, self.record)

    @property
    def planned(self) -> dict[str, Any]:
        """Decisions recorded so far by `plan`."""
        return dict(self.record.get("plan") or {})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the stage done; `result` holds small JSON values: fingerprints, counts, headline figures."""
        self.record |= {"status": "done", "result": dict(result), "finished": _now()}
        self.run._write_stage(self.key, self.record)


Explain = Callable[["Run"], Mapping[str, Stale]]


class Run:
    """Paths and records of one run folder. Creating the object touches nothing; stages create what they need.

    Args:
        path: the folder.
        preset: the preset that is asked for; the run remembers it once a stage is opened.

    Raises:
        InvalidSetting: an empty path.
    """

    def __init__(self, path: str | os.PathLike[str] = DEFAULT_RUN, preset: Preset | None = None) -> None:
        if not os.fspath(path):
            raise InvalidSetting("a run needs a folder, and the path given is empty; name one with --run ('.' is here)")
        self.path = Path(path)
        self.preset = preset

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    config_path = property(lambda self: self.path / "config.json")
    tokenizer_path = property(lambda self: self.path / "tokenizer.json")
    tokens_path = property(lambda self: self.path / "tokens")
    gpt_path = property(lambda self: self.path / "gpt")
    activations_path = property(lambda self: self.path / "activations")
    dictionaries_path = property(lambda self: self.path / "dictionaries")
    comparison_path = property(lambda self: self.path / "comparison.json")
    metrics_path = property(lambda self: self.path / "metrics.jsonl")
    claims_path = property(lambda self: self.path / "claims.json")
    report_path = property(lambda self: self.path / "report.html")
    figures_path = property(lambda self: self.path / "figures")

    def config(self) -> dict[str, Any]:
        """The contents of config.json; an empty record where there is none.

        Raises:
            RunInvalid: the file is not JSON of a known format, or the path is not that of a folder.
        """
        self.check_place()
        if not self.config_path.exists():
            return {"format": FORMAT, "stages": {}}
        try:
            config = json.loads(self.config_path.read_text())
            known = config["format"] == FORMAT
            for key, record in config["stages"].items() if known else ():
                if not _is_record(record):
                    raise ValueError(f"'{key}' is no stage's record")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunInvalid(
                f"{self.config_path}: not a run's record ({error}); choose another run with --run"
            ) from error
        if not known:
            raise RunInvalid(f"{self.config_path}: run format {config['format']} is not {FORMAT}; update sparsecode")
        return dict(config)

    def check_place(self) -> None:
        """Looks whether the path is one that a run can have; nothing at all may be there yet.

        Raises:
            RunInvalid: it is a file, a link to nothing, or no path that the system takes.
        """
        try:
            there = self.path.stat()
        except FileNotFoundError:
            if not self.path.is_symlink():
                return
            why = f"a link to {self.path.readlink()}, which is not there"
        except (OSError, ValueError) as error:  # ValueError: a zero byte
            why = f"no path that can be used ({getattr(error, 'strerror', None) or error})"
        else:
            if stat.S_ISDIR(there.st_mode):
                return
            why = "a file, not a folder"
        raise RunInvalid(f"{self.path}: is {why}; choose another run with --run")

    def remembered_preset(self) -> Preset | None:
        """The preset that was last named in this run, as it was then; None where none was.

        Raises:
            RunInvalid: its record is broken.
        """
        known = self.config().get("preset")
        if known is None:
            return None
        try:
            preset = Preset(str(known["name"]), "", {str(key): dict(table) for key, table in known["stages"].items()})
            for key in preset.stages:
                preset.stage(key)
        except (TypeError, KeyError, AttributeError, ValueError, InvalidSetting) as error:
            raise RunInvalid(
                f"{self.config_path}: its preset cannot be read ({error}); name one with --preset"
            ) from error
        return preset

    def finished(self, key: str, command: str) -> dict[str, Any]:
        """The result of a finished stage.

        Raises:
            StageMissing: it was not run, or not finished; the message names `command`.
        """
        record = self.config()["stages"].get(key, {})
        if record.get("status") != "done":
            state = "is not finished" if record else "was not run"
            raise StageMissing(f"{self.path}: {key} {state}; run: {command}{self.flag}")
        return dict(record["result"])

    def is_done(self, key: str) -> bool:
        """Whether a stage is recorded as finished."""
        return bool(self.config()["stages"].get(key, {}).get("status") == "done")

    @property
    def flag(self) -> str:
        """` --run DIR` as the user would have to type it; empty for the default folder."""
        return "" if self.path == Path(DEFAULT_RUN) else f" --run {shlex.quote(str(self.path))}"

    @contextmanager
    def stage(
        self,
        key: str,
        config: StageConfig,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Iterable[Path] = (),
        needs: Iterable[Path] | None = None,
        force: bool = False,
        explain: Explain | None = None,
    ) -> Iterator[Stage]:
        """Opens a stage: locked against a second process, compared with what was recorded.

        What was recorded is believed only as far as the files bear it out: a stage that is done but whose files are
        gone is resumed, and one that was begun with other settings but has left nothing is begun anew. A stage that
        fails before it has left anything is forgotten. Of a run that cannot be written to, what is done can be read.

        Args:
            key: the stage's name, with a hook point where it can be run for several (`harvest/blocks.2.mlp.hook_post`).
            config: its settings.
            inputs: fingerprints of what it reads, by name.
            outputs: files and folders it writes; removed where it starts anew with `force`.
            needs: what must be there of a stage that is done; the first of `outputs` unless named.
            explain: why a stage is out of date and what mends it, where that is known better than from its own inputs.

        Yields:
            A `Stage`: `done` (nothing to do), `resuming` (begun before with the same settings) or neither.

        Raises:
            SettingsDiffer: recorded with other settings, and not `force`.
            StageStale: with the same settings from other inputs, and not `force`.
            RunLocked: another process is in the same stage.
            RunInvalid, IoFailed: the run's folder cannot be used, or not be written to.
        """
        from sparsecode._core import FileLock

        written = list(outputs)
        needed = written[:1] if needs is None else list(needs)
        self.check_place()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_failure(self.path, error) from error
        try:
            lock = FileLock(self.path / f".{key.replace('/', '-')}.lock")
        except IoFailed as error:
            known = None if force else self._known(key, config, dict(inputs or {}), written, needed, explain)
            if known is None or not known.done:
                raise IoFailed(
                    f"{self.path}: this folder cannot be written to ({error}); choose another run with --run"
                ) from error
            yield known
            return
        try:
            stage = self._open(key, config, dict(inputs or {}), written, needed, force, explain)
            try:
                yield stage
            except SparsecodeError:
                if not stage.done and not any(_holds(path) for path in written):
                    with suppress(SparsecodeError):  # a full disk is told already
                        self._forget(key)
                raise
        finally:
            lock.release()

    def _known(
        self,
        key: str,
        config: StageConfig,
        inputs: dict[str, str],
        outputs: list[Path],
        needed: list[Path],
        explain: Explain | None,
    ) -> Stage | None:
        """What was recorded, where it is of these settings and inputs; None where there is nothing to keep."""
        old = self.config()["stages"].get(key)
        if old is None:
            return None
        done = old["status"] == "done"
        differences = _differences(old["settings"], config, done=done)
        changed = _changed(old.get("inputs", {}), inputs)
        if not (differences or changed):
            done = done and all(_holds(path) for path in needed)
            return Stage(self, key, done=done, resuming=not done, record=old)
        if not (done or any(_holds(path) for path in outputs)):
            return None
        was = "done" if done else "begun"
        if differences:
            raise SettingsDiffer(
                f"{self.path}: {key} was {was} with {'; '.join(differences)}; "
                "add --force to do it again, or choose another run with --run"
            )
        why = f"what it was {was} from has changed since ({', '.join(changed)})"
        commands: tuple[str, ...] = (command_of(self, key, self.config()["stages"], force=True),)
        if explain is not None and (told := explain(self).get(key)) is not None:
            why, commands = told.reason, told.commands
        raise StageStale(f"{self.path}: {key} is out of date, {why}; run: {' && '.join(commands)}")

    def _open(
        self,
        key: str,
        config: StageConfig,
        inputs: dict[str, str],
        outputs: list[Path],
        needed: list[Path],
        force: bool,
        explain: Explain | None,
    ) -> Stage:
        known = None if force else self._known(key, config, inputs, outputs, needed, explain)
        if known is not None:
            beside = config.beside()
            if not known.done and known.record.get("beside") != beside:
                known.record["beside"] = beside
                self._write_stage(key, known.record)
            elif self.preset is not None and self.config().get("preset") != self.preset.record():
                self._write_stage(key, known.record)
            return known
        for path in outputs:
            _remove(path)
        self.rewind_metrics(key, 0)
        record = {
            "status": "running",
            "settings": config.record(),
            "beside": config.beside(),
            "inputs": inputs,
            "started": _now(),
            "versions": machine.versions(),
            "machine": machine.describe(),
        }
        self._write_stage(key, record)
        return Stage(self, key, done=False, resuming=False, record=record)

    def _write_stage(self, key: str, record: Mapping[str, Any]) -> None:
        from sparsecode._core import FileLock

        lock = FileLock.wait(self.path / ".config.lock")
        try:
            config = self.config()
            config["stages"][key] = dict(record)
            if self.preset is not None:
                config["preset"] = self.preset.record()
            write_json(self.config_path, config)
        finally:
            lock.release()

    def _forget(self, key: str) -> None:
        from sparsecode._core import FileLock

        lock = FileLock.wait(self.path / ".config.lock")
        try:
            config = self.config()
            config["stages"].pop(key, None)
            write_json(self.config_path, config)
        finally:
            lock.release()

    def log(self, stage: str, step: int, **values: Any) -> None:
        """Appends one line to metrics.jsonl.

        Raises:
            OutOfSpace, IoFailed: the operating system refused.
        """
        line = json.dumps({"stage": stage, "step": step} | values)
        try:
            with self.metrics_path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise os_failure(self.metrics_path, error) from error

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, of one stage or of all; a last line cut by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if stage is None or row["stage"] == stage:
                rows.append(row)
        return rows

    def rewind_metrics(self, stage: str, step: int) -> None:
        """Drops a stage's lines after `step`: a stage that resumes there writes them again."""
        if self.metrics_path.exists():
            kept = [row for row in self.metrics() if row["stage"] != stage or row["step"] <= step]
            write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in kept))


def _is_record(record: Any) -> bool:
    """Whether a stage's record has what every stage writes: its result, too, once it is done."""
    if not isinstance(record, dict):
        return False
    if not all(isinstance(record.get(name, {}), dict) for name in ("inputs", "beside", "plan")):
        return False
    wanted = {"settings"} | ({"result"} if record.get("status") == "done" else set())
    return "status" in record and all(isinstance(record.get(name), dict) for name in wanted)


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


def command_of(run: Run, key: str, stages: Mapping[str, Any], *, force: bool = False) -> str:
    """The command line that does a stage, or does it again with `force`, with the settings that the run recorded."""
    family, _, hook = key.partition("/")
    words = ["sparsecode", "harvest" if family == "tokens" else family]
    if hook:
        module = (stages.get(key, {}).get("settings") or {}).get("module")
        words += ["--module" if module else "--hook", shlex.quote(hook)]
    return " ".join(words + ["--force"] * force) + run.flag


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _holds(path: Path) -> bool:
    """Whether a file is there, or a folder with a file in it; hidden ones are locks, or half written."""
    if not path.is_dir():
        return path.exists()
    return any(file.is_file() and not file.name.startswith(".") for file in path.rglob("*"))


def _remove(path: Path) -> None:
    import shutil

    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise os_failure(path, error) from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
