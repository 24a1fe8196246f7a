"""Stability scores in the dictionaries' own files, so that they travel with a file.

    NAME.safetensors   features.stability [n] float32: share of the other dictionaries in which a feature is found again
    NAME.json          "stability": against how many, above which cosine, mean, and the steadiest features

Weights, metrics and fingerprints do not change. Each file is replaced as a whole or not at all, and stays untouched if
it already holds the same scores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.comparison.loading import STABILITY
from sparsecode.errors import DictionaryInvalid

LISTED = 10  # steadiest features named in a dictionary's JSON


def stability_summary(stability: Tensor, cosine: Tensor, own: int, threshold: float) -> dict[str, Any]:
    """The summary in a dictionary's JSON, from stability [n] and cosines [n, K] of its features, without column `own`.

    `steadiest`: features by stability, then by mean cosine, as [{"feature", "stability", "mean_cosine"}].
    """
    others = cosine.shape[1] - 1
    mean = (cosine.double().sum(dim=1) - cosine[:, own].double()) / max(others, 1)
    order = sorted(range(len(stability)), key=lambda i: (-float(stability[i]), -float(mean[i]), i))[:LISTED]
    return {
        "threshold": threshold,
        "dictionaries": others,
        "mean": float(stability.double().mean()),
        "found_in_all": int((stability == 1).sum()),
        "found_in_none": int((stability == 0).sum()),
        "steadiest": [{"feature": i, "stability": float(stability[i]), "mean_cosine": float(mean[i])} for i in order],
    }


def store_stability(path: Path, stability: Tensor, summary: dict[str, Any]) -> None:
    """Writes scores [n] into the files of the dictionary at `path` (without suffix).

    Raises:
        DictionaryInvalid: its JSON file has become something else meanwhile.
        CheckpointCorrupt, OutOfSpace, IoFailed: a file cannot be read or written; it is unchanged.
    """
    weights, description = (path.with_name(path.name + suffix) for suffix in (".safetensors", ".json"))
    tensors, metadata = load_tensors(weights)
    known = tensors.get(f"features.{STABILITY}")
    if known is None or not torch.equal(known, stability):
        # Copies: the tensors that were read are mapped from the file that is replaced.
        copies = {name: value.clone() for name, value in tensors.items()}
        save_tensors(weights, copies | {f"features.{STABILITY}": stability}, metadata or None)
    try:
        about = json.loads(description.read_text())
    except (OSError, ValueError) as error:
        raise DictionaryInvalid(f"{description}: not a readable JSON file; train or copy it again") from error
    if about.get(STABILITY) != summary:
        write_json(description, about | {STABILITY: summary})
