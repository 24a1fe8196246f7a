"""Writes measurements as rows of a CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sparsecode.machine import describe, versions


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], /, **context: Any) -> None:
    """Rows of the same keys, with the machine and the versions beside each, in place of what was there."""
    context |= {"threads": torch.get_num_threads()} | describe() | versions()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *context], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **context} for row in rows)
