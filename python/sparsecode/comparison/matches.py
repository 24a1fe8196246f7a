"""Matches as a table for other programs: every feature of every dictionary against every other dictionary."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from sparsecode.checkpoint import write_json, write_text
from sparsecode.comparison.result import Comparison
from sparsecode.errors import InvalidSetting

COLUMNS = ("from", "to", "feature", "nearest", "cosine", "matched", "matched_cosine")


def write_matches(comparison: Comparison, path: Path) -> list[Path]:
    """Writes the matches to `path`, CSV or safetensors by its suffix, and the record with provenance to a .json beside.

    CSV has a row per ordered pair of dictionaries and feature: the index and cosine of the nearest atom, and of the
    partner in the one-to-one matching (empty without a partner, or where the pair was not matched). An atom of norm
    zero has neither.
    safetensors has the same tensors as `comparison.safetensors` of a run.

    Returns:
        The files written.

    Raises:
        InvalidSetting: another suffix, or the files exist and are not matches.
        OutOfSpace, IoFailed: see `sparsecode.errors`.
    """
    if path.suffix not in (".csv", ".safetensors"):
        raise InvalidSetting(f"{path}: matches are written as .csv or .safetensors; choose one of these endings")
    check_free(path)
    if path.suffix == ".safetensors":
        comparison.save(path.with_suffix(".json"))
    else:
        write_text(path, "".join(_lines(comparison)))
        write_json(path.with_suffix(".json"), comparison.as_json())
    return [path, path.with_suffix(".json")]


def check_free(path: Path) -> None:
    """Refuses to overwrite anything but matches: no dictionary, no run's own record.

    Raises:
        InvalidSetting: a file of that name, or the .json beside it, exists and is something else.
    """
    beside = path.with_suffix(".json")
    if beside.name == "comparison.json" and (beside.parent / "config.json").exists():
        raise InvalidSetting(f"{path}: the run keeps its own comparison in {beside}; choose another name")
    if not (path.exists() or beside.exists()):
        return
    try:
        record = json.loads(beside.read_text())
        known = {"inputs", "mmcs", "matched"} <= record.keys()
    except (OSError, ValueError, AttributeError):
        known = False
    if not known:
        there = path if path.exists() else beside
        raise InvalidSetting(f"{there}: is there already and holds no matches; choose another name")


def _lines(comparison: Comparison) -> Iterator[str]:
    yield _line(COLUMNS)
    for a in comparison.names:
        for b in comparison.names:
            if a == b:
                continue
            nearest = zip(comparison.index(a, b).tolist(), comparison.cosine(a, b).tolist(), strict=True)
            one_to_one = comparison.matched(a, b)
            for feature, (index, cosine) in enumerate(nearest):
                partner, matched = ("", "")
                if one_to_one is not None and int(one_to_one.indices[feature]) >= 0:
                    partner = str(int(one_to_one.indices[feature]))
                    matched = f"{float(one_to_one.values[feature]):.8g}"
                near = (str(index), f"{cosine:.8g}") if index >= 0 else ("", "")  # an atom of norm zero has none
                yield _line((a, b, str(feature), *near, partner, matched))


def _line(cells: tuple[str, ...]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
