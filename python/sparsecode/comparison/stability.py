"""Features that are found again in other dictionaries: how steady each is, and the steadiest of all.

Scores travel in the dictionaries' own files:

    NAME.safetensors   features.stability [n] float32: share of the other dictionaries in which a feature is found again
    NAME.json          "stability": against how many, above which cosine, mean, and the steadiest features

Weights, metrics and fingerprints do not change. Each file is replaced as a whole or not at all, and stays untouched if
it already holds the same scores.

Shapes: n features of a dictionary, K dictionaries.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.comparison.members import STABILITY, Member, Place
from sparsecode.comparison.records import Steady
from sparsecode.dictionary.files import files_of
from sparsecode.errors import DictionaryInvalid

LISTED = 200  # steadiest features kept in a comparison: more than anyone reads
LISTED_IN_FILE = 10  # of these, named in a dictionary's JSON


def stability(cosine: Tensor, own: Collection[int], threshold: float) -> Tensor:
    """[n] share of the other dictionaries with an atom above `threshold` for a feature; 0 if there are none.

    Args:
        cosine: [n, K].
        own: columns that are no others: that of the feature's dictionary, and of those that agree by construction.
        threshold: see above.
    """
    others = _others(cosine, own)
    if others.shape[1] == 0:
        return torch.zeros(len(cosine))
    return (others > threshold).float().mean(dim=1)


def found_in_all(cosine: Tensor, columns: Sequence[int], threshold: float) -> Tensor | None:
    """[n] whether a feature is above `threshold` in all `columns`; None if there are none."""
    return (cosine[:, list(columns)] > threshold).all(dim=1) if columns else None


def steadiest(
    members: Sequence[Member],
    places: Sequence[Place],
    cosine: Sequence[Tensor],
    own: Sequence[Collection[int]],
    threshold: float,
) -> list[Steady]:
    """The features found again in most other dictionaries, each direction once.

    They are live features of all dictionaries, sorted by stability, then by mean cosine over the other dictionaries. A
    feature whose cosine with an earlier one is above `threshold` is the same one and left out. `own`: of each
    dictionary, see `stability`.
    """
    rows: list[tuple[float, float, float, int, int]] = []
    for k, member in enumerate(members):
        share = stability(cosine[k], own[k], threshold)
        if not bool((share > 0).any()):
            continue
        others = _others(cosine[k], own[k])
        chosen = torch.nonzero(member.live_or_all & (share > 0)).flatten()
        columns = (share[chosen], others[chosen].mean(dim=1), others[chosen].amin(dim=1))
        values = zip(*(column.tolist() for column in columns), chosen.tolist(), strict=True)
        rows += [(found, average, lowest, k, i) for found, average, lowest, i in values]
    rows.sort(key=lambda row: (-row[0], -row[1], row[3], row[4]))
    kept: list[Steady] = []
    directions = torch.empty(LISTED, members[0].atoms.shape[1])
    for share_i, mean_i, lowest, k, i in rows:
        if len(kept) == LISTED:
            break
        atom = members[k].atoms[i]
        if len(kept) and float((directions[: len(kept)] @ atom).max()) > threshold:
            continue
        directions[len(kept)] = atom
        larger = found_in_all(cosine[k][i : i + 1], places[k].larger, threshold)
        density = members[k].density
        kept.append(
            Steady(
                dictionary=members[k].name,
                feature=int(members[k].numbers(torch.tensor(i))),
                stability=share_i,
                mean_cosine=mean_i,
                lowest_cosine=lowest,
                in_every_larger=None if larger is None else bool(larger[0]),
                density=None if density is None else float(density[i]),
            )
        )
    return kept


def _others(cosine: Tensor, own: Collection[int]) -> Tensor:
    return cosine[:, [j for j in range(cosine.shape[1]) if j not in own]]


def stability_summary(stability: Tensor, cosine: Tensor, own: int, threshold: float) -> dict[str, Any]:
    """The summary in a dictionary's JSON, from stability [n] and cosines [n, K] of its features, without column `own`.

    `steadiest`: features by stability, then by mean cosine, as [{"feature", "stability", "mean_cosine"}].
    """
    others = cosine.shape[1] - 1
    mean = (cosine.double().sum(dim=1) - cosine[:, own].double()) / max(others, 1)
    order = sorted(range(len(stability)), key=lambda i: (-float(stability[i]), -float(mean[i]), i))[:LISTED_IN_FILE]
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
    weights, description = files_of(path)
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
