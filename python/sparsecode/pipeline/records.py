"""The JSON record that a finished stage wrote, read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsecode.errors import RunInvalid
from sparsecode.pipeline.run import Run


def load_record(run: Run, key: str, path: Path, format: int, holds: str, kind: type = list) -> dict[str, Any] | None:
    """The record that stage `key` wrote to `path`; None where the run has not finished that stage.

    Args:
        run: the run.
        key: the stage; also the command that writes the record anew.
        path: of the JSON file.
        format: the only one that is understood.
        holds: a name in the record, whose value must be of `kind`.
        kind: list or dict.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    if run.config()["stages"].get(key, {}).get("status") != "done":
        return None
    again = f"run: sparsecode {key} --force{run.flag}"
    try:
        record = json.loads(path.read_text())
        known = record["format"] == format and isinstance(record[holds], kind)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunInvalid(f"{path}: cannot be read ({error}); {again}") from error
    if not known:
        raise RunInvalid(f"{path}: not a record of {key} in format {format}; {again}")
    return dict(record)
