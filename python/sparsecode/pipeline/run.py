"""A run folder: where each stage writes, and the record of what was done with which settings (see `opening`).

RUN/config.json                       the preset, and settings, versions and machine of every stage
RUN/tokenizer.json  RUN/tokens/       the text as numbers
RUN/gpt/                              model.safetensors, config.json
RUN/activations/HOOK/                 a dataset
RUN/dictionaries/NAME.safetensors     with NAME.json beside it
RUN/comparison.safetensors + .json    what `compare` found
RUN/consensus.safetensors + .json     what `consensus` found; the dictionary is in RUN/consensus
RUN/claims.json  RUN/science/         verdicts on the claims, and the sweeps beside the run's own that they need
RUN/baselines/NAME.safetensors        with NAME.json; baselines.json, measures.csv
RUN/interpret/                        interpretations.json, directions.csv
RUN/browse/                           index.html and data/: every feature on a page
RUN/toy/                              toy.json, measures.csv, truth, recovery.safetensors, report.html
RUN/metrics.jsonl  RUN/report.html  RUN/report.json
RUN/figures/                          each figure of the report as CSV and PNG
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import os_failure, write_json, write_text
from sparsecode.errors import InvalidSetting, RunInvalid, StageMissing
from sparsecode.pipeline.preset import Preset

DEFAULT_RUN = "sparsecode-run"
FORMAT = 1


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
    consensus_path = property(lambda self: self.path / "consensus.json")
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

    def write_record(self, key: str, record: Mapping[str, Any] | None) -> None:
        """Writes a stage's record, and the preset that is asked for; None forgets the stage.

        Raises:
            OutOfSpace, IoFailed: the operating system refused.
        """
        from sparsecode._core import FileLock

        lock = FileLock.wait(self.path / ".config.lock")
        try:
            config = self.config()
            if record is None:
                config["stages"].pop(key, None)
            else:
                config["stages"][key] = dict(record)
                if self.preset is not None:
                    config["preset"] = self.preset.record()
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


def command_of(run: Run, key: str, stages: Mapping[str, Any], *, force: bool = False) -> str:
    """The command line that does a stage, or does it again with `force`, with the settings that the run recorded."""
    family, _, hook = key.partition("/")
    words = ["sparsecode", "harvest" if family == "tokens" else family]
    if hook:
        module = (stages.get(key, {}).get("settings") or {}).get("module")
        words += ["--module" if module else "--hook", shlex.quote(hook)]
    return " ".join(words + ["--force"] * force) + run.flag
