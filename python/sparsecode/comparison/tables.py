"""A comparison as tables: matches for other programs, and text for a terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecode.comparison.records import BySeed, CompareSettings, Entry, Matched
from sparsecode.errors import InvalidSetting

COLUMNS = ("from", "to", "feature", "nearest", "cosine", "matched", "matched_cosine")


def csv_of(matches: Iterable[tuple[str, str, Mapping[str, Tensor]]]) -> str:
    """A line per pair of dictionaries and feature (see `Comparison.matches`); cells are empty where there is none."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for a, b, columns in matches:
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        for feature, (nearest, cosine, partner, matched) in enumerate(rows):
            writer.writerow((a, b, feature, *_match(nearest, cosine), *_match(partner, matched)))
    return text.getvalue()


def _match(index: int, cosine: float) -> tuple[int | str, str]:
    return (index, f"{cosine:.8g}") if index >= 0 else ("", "")


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


def sweep_table(entries: Sequence[Entry], settings: CompareSettings) -> str:
    """A row per dictionary of a sweep, with what is found of it in its relatives."""
    columns = ["dictionary", "live", "near-dup.", "MMCS next", "chance", f">{settings.threshold:g}", "of live",
               "mutual", "matched", "other seed", "mutual", "PW-MCC", "absolute", "shared", "both",
               "every larger"]  # fmt: skip
    rows = []
    for entry in entries:
        nearest, seed, both = entry.next, entry.other_seed, entry.next_other_seed
        pair = seed or nearest
        rows.append(
            [
                entry.name,
                "?" if entry.live is None else f"{entry.live}/{entry.dict_size}",
                entry.near_duplicates.features,
                nearest and nearest.mcs.all.mean,
                nearest and nearest.chance_mmcs,
                nearest and nearest.mcs.all.above,
                nearest and nearest.mcs.live and nearest.mcs.live.above,
                nearest and nearest.mutual,
                nearest and nearest.matched and nearest.matched.all.mean,
                seed and seed.mcs.all.above,
                seed and seed.mutual,
                *common(pair.matched if pair else None),
                both and both.mcs.all.above,
                entry.every_larger and entry.every_larger.features,
            ]
        )
    note = (
        f"Columns: live features with another own atom above {settings.duplicate_threshold:g}; MMCS with the next "
        f"larger dictionary (same L1 and seed) and by chance; features above {settings.threshold:g} in it, of all, of "
        "live ones, and of pairs that are each other's nearest; mean of the one-to-one matching; features above it in "
        "the same size from another seed, and of pairs that are each other's nearest; mean cosine of the "
        "one-to-one matching with it (without another seed: with the next larger size), signed and absolute, and "
        "matched pairs above 0.7 in encoder and decoder; features "
        f"above {settings.threshold:g} in the next size from another seed, and in every larger dictionary."
    )
    return f"{aligned(columns, rows)}\n{note}"


def pair_table(rows: Sequence[Sequence[Any]], settings: CompareSettings) -> str:
    """A row per ordered pair of dictionaries."""
    columns = ["from", "to", "MMCS", f">{settings.threshold:g}", "mutual", "of", "near-dup.", "PW-MCC", "absolute",
               "shared"]  # fmt: skip
    note = (
        f"Columns: MMCS; features whose nearest atom is above {settings.threshold:g}, and of these the pairs that are "
        "each other's nearest, of all; features with another atom of their own dictionary above "
        f"{settings.duplicate_threshold:g}; mean cosine of the one-to-one "
        "matching, signed and absolute; matched pairs above 0.7 in encoder and decoder."
    )
    return f"{aligned(columns, rows)}\n{note}"


def by_seed_table(groups: Sequence[BySeed], settings: CompareSettings) -> str:
    """A row per group of dictionaries that differ in their seed alone."""
    columns = ["by seed", "seeds", "live", "in all", "at least", "in none", "chance", "in used dim.", "Brier"]
    rows = [
        [
            one.dictionaries[0],
            len(one.seeds),
            one.features,
            one.found[-1],
            one.floors[-1],
            one.found[0],
            *(f"{level.share:.2g}" for level in one.chance),
            one.calibration and one.calibration.brier,
        ]
        for one in groups
    ]
    note = (
        "Columns: the first of the dictionaries that differ in their seed alone; live features of all; those found "
        f"above {settings.threshold:g} in every other seed, and the share of all seeds that has one at least (95 %); "
        "found in none; the share that random directions would find in one other, in the dimensions of the activations "
        "and in those that the atoms effectively use; Brier score of predicting a seed by the others."
    )
    return f"\n{aligned(columns, rows)}\n{note}"


def common(matched: Matched | None) -> list[Any]:
    """Cells of a matched pair: mean cosine, signed and absolute, and how many pairs are shared of how many."""
    if matched is None:
        return [None, None, None]
    found = matched.consistency
    return [found.pw_mcc, found.pw_mcc_absolute, None if found.shared is None else f"{found.shared}/{found.pairs}"]


def aligned(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns, names to the left and numbers to the right, as wide as they are; None as an empty cell."""
    cells = [list(columns)] + [
        ["" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<" if position == 0 or column == "to" else ">" for position, column in enumerate(columns)]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
