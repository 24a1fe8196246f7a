"""Datasets written by `datasets.save_to_disk`: arrow files and a description beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsecode.checkpoint import os_failure
from sparsecode.errors import CorpusUnreadable

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_DESCRIPTIONS = (_STATE, _SPLITS, "dataset_info.json")


def saved_files(folder: Path) -> list[Path] | None:
    """The files with the rows of a saved dataset, in order; with splits, those of `train`. None if it is not one.

    Raises:
        CorpusUnreadable: it has splits, none of them `train`; it was saved with a selection of rows; it is broken.
    """
    splits = _read(folder / _SPLITS)
    if splits is not None:
        names = splits.get("splits")
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        if "train" not in names:
            raise CorpusUnreadable(
                f"{folder}: a dataset without a split train; name the folder of one: {', '.join(names)}"
            )
        return saved_files(folder / "train")
    state = _read(folder / _STATE)
    if state is None or "_data_files" not in state:
        return None
    try:
        files = [folder / Path(one["filename"]).name for one in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise CorpusUnreadable(f"{folder / _STATE}: does not name the files of the dataset; save it again") from error
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise CorpusUnreadable(
            f"{folder}: saved with a choice of its rows beside them; save it again after flatten_indices()"
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CorpusUnreadable(f"{folder}: {missing[0]} of the saved dataset is missing; save or copy it again")
    return files


def is_description(file: Path) -> bool:
    """Whether a file describes a dataset whose rows lie beside it, or in folders beside it."""
    if file.name == _SPLITS:
        return any((split / _STATE).is_file() for split in file.parent.iterdir())
    return file.name in _DESCRIPTIONS and any(file.parent.glob("*.arrow"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_failure(path, error) from error
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
