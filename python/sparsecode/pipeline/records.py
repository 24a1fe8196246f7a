"""The JSON record that a finished stage wrote, read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sparsecode.errors import RunInvalid
from sparsecode.pipeline.run import Run

T = TypeVar("T")


def load_record(
    run: Run, key: str, path: Path, format: int, holds: str, read: Callable[[dict[str, Any]], T]
) -> T | None:
    """The record that stage `key` wrote to `path`; None where the run has not finished that stage.

    Args:
        run: the run.
        key: the stage; also the command that writes the record anew.
        path: of the JSON file.
        format: the only one that is understood.
        holds: the name of a list or an object in the record.
        read: takes the record; raises KeyError, TypeError or AttributeError where it is not one.

    Raises:
        RunInvalid: the stage is done and its file is not what it wrote.
    """
    if run.config()["stages"].get(key, {}).get("status") != "done":
        return None
    again = f"run: sparsecode {key} --force{run.flag}"
    try:
        record = json.loads(path.read_text())
        if record["format"] == format and isinstance(record[holds], list | dict):
            return read(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunInvalid(f"{path}: cannot be read ({error}); {again}") from error
    raise RunInvalid(f"{path}: not a record of {key} in format {format}; {again}")
