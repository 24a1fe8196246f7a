"""The result of a comparison: JSON for people and programs, tensors per feature, a table for the terminal.

comparison.json          format, settings, inputs (name, path, fingerprint of each dictionary), dictionaries with their
                         statistics, MMCS matrices, matched pairs with their consistency, steadiest features
comparison.safetensors   per dictionary NAME (n features) and over the K dictionaries in the JSON's order:
    NAME.cosine [n, K] float32    MCS with each dictionary; 1 with itself
    NAME.index [n, K] int32       the index of that atom
    NAME.own_cosine [n] float32   largest cosine with another atom of the same dictionary; NaN where it has no other
    NAME.stability [n] float32    share of the other dictionaries in which the feature is found again
    NAME.matched.OTHER.cosine [n] float32, NAME.matched.OTHER.index [n] int32    the one-to-one matching; NaN, -1
                                  for features without a partner
                                  (atoms of norm zero have no direction: NaN and -1 everywhere, stability 0)
    NAME.live [n] uint8, NAME.initial_cosine [n]    where the dictionary's file says
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors, save_tensors, write_json
from sparsecode.comparison.duplicates import mutual
from sparsecode.comparison.matching import turned
from sparsecode.comparison.mcs import BestMatches
from sparsecode.errors import CheckpointCorrupt, MissingExtra, RunInvalid

if TYPE_CHECKING:
    import pandas

FORMAT = 2


@dataclass(eq=False, repr=False)
class Comparison:
    """The result of comparing two or more dictionaries. `record` is JSON, `tensors` are the per-feature values."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"Comparison of {len(self.names)} dictionaries: {', '.join(self.names)}"

    @property
    def names(self) -> list[str]:
        """Names of the dictionaries, in the order of every matrix."""
        return [entry["name"] for entry in self.record["dictionaries"]]

    def as_json(self) -> dict[str, Any]:
        """The content of comparison.json."""
        return self.record

    @property
    def mmcs(self) -> Tensor:
        """[K, K] float64 mean max cosine similarity, from the row's dictionary to the column's."""
        return torch.tensor(self.record["mmcs"]["all"], dtype=torch.float64)

    @property
    def stability(self) -> dict[str, Tensor]:
        """By dictionary: [n] share of the other dictionaries in which each feature is found again."""
        return {name: self.tensors[f"{name}.stability"] for name in self.names}

    def found_again(self, threshold: float | None = None) -> dict[str, Tensor]:
        """By dictionary: [n] int64, in how many of the other dictionaries each feature is found again.

        Args:
            threshold: cosine above which it counts; None: that of the comparison.
        """
        bound = float(self.record["settings"]["threshold"]) if threshold is None else threshold
        found = {}
        for k, name in enumerate(self.names):
            cosine = self.tensors[f"{name}.cosine"]
            others = torch.arange(cosine.shape[1]) != k
            found[name] = (cosine[:, others] > bound).sum(dim=1)
        return found

    def to_frame(self) -> pandas.DataFrame:
        """A row per feature and other dictionary.

        Columns: dictionary, other, feature, nearest (index of its nearest atom there), cosine, matched (index of its
        partner in the one-to-one matching, -1 without one) and matched_cosine (NaN without one).

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("a table of matches needs the package pandas; run: pip install pandas") from error
        parts = []
        for a in self.names:
            for b in self.names:
                if a != b:
                    cosine, matched = self.cosine(a, b), self.matched(a, b)
                    none = torch.full((len(cosine),), -1)
                    columns = {
                        "nearest": self.index(a, b).long(),
                        "cosine": cosine,
                        "matched": none if matched is None else matched.indices,
                        "matched_cosine": none * torch.nan if matched is None else matched.values,
                    }
                    about = {"dictionary": a, "other": b, "feature": range(len(cosine))}
                    parts.append(pandas.DataFrame(about | {name: own.numpy() for name, own in columns.items()}))
        return pandas.concat(parts, ignore_index=True)

    def cosine(self, a: str, b: str) -> Tensor:
        """[n] MCS(a -> b) of every feature of a."""
        return self.tensors[f"{a}.cosine"][:, self.names.index(b)]

    def index(self, a: str, b: str) -> Tensor:
        """[n] for every feature of a the index of its nearest atom of b."""
        return self.tensors[f"{a}.index"][:, self.names.index(b)]

    def mutual(self, a: str, b: str) -> Tensor:
        """[n] whether a feature of a and its nearest atom of b are each other's nearest, at any cosine."""
        return mutual(self.index(a, b), self.index(b, a))

    def matched(self, a: str, b: str) -> BestMatches | None:
        """The one-to-one matching seen from a: cosines [n] and indices [n], NaN and -1 without a partner.

        None if this pair was not matched.
        """
        for first, second in ((a, b), (b, a)):
            values = self.tensors.get(f"{first}.matched.{second}.cosine")
            if values is not None:
                found = BestMatches(values, self.tensors[f"{first}.matched.{second}.index"].long())
                return found if first == a else turned(found, len(self.tensors[f"{a}.stability"]))
        return None

    def save(self, path: Path) -> None:
        """Writes the .safetensors beside `path` (.json), then `path`, so that the JSON never exists alone."""
        save_tensors(path.with_suffix(".safetensors"), self.tensors, {"format": FORMAT})
        write_json(path, self.record)

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Loads a saved comparison.

        Raises:
            RunInvalid: a file is missing, broken or of another format.
        """
        try:
            record = json.loads(path.read_text())
            tensors, about = load_tensors(path.with_suffix(".safetensors"))
        except (OSError, ValueError, CheckpointCorrupt) as error:
            raise RunInvalid(f"{path}: cannot be read") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT or about.get("format") != FORMAT:
            raise RunInvalid(f"{path}: not a comparison of format {FORMAT}")
        return cls(record, tensors)

    @property
    def _duplicate(self) -> float:
        return float(self.record["settings"]["duplicate_threshold"])

    def table(self) -> str:
        """The result as text: a row per dictionary of a sweep; for up to three, or unrelated ones, a row per pair."""
        count = len(self.names)
        related = any(entry["next"] or entry["other_seed"] for entry in self.record["dictionaries"])
        table = self._sweep_table() if count == 1 or (related and count > 3) else self._pair_table()
        return "\n".join([table, *self._remarks()])

    def _remarks(self) -> list[str]:
        """Remarks on atoms without a direction, which are left out."""
        return [
            f"{entry['name']}: {entry['without_direction']} of {entry['dict_size']} atoms are zero and have no "
            "direction; they count as found nowhere, and in no mean"
            for entry in self.record["dictionaries"]
            if entry.get("without_direction")
        ]

    def _sweep_table(self) -> str:
        threshold = self.record["settings"]["threshold"]
        columns = ["dictionary", "live", "near-dup.", "MMCS next", "chance", f">{threshold:g}", "of live", "mutual",
                   "matched", "other seed", "mutual", "PW-MCC", "absolute", "shared", "both",
                   "every larger"]  # fmt: skip
        rows = []
        for entry in self.record["dictionaries"]:
            nearest, seed, both = entry["next"], entry["other_seed"], entry["next_other_seed"]
            every = entry["every_larger"]
            pair = (seed or nearest or {}).get("matched")
            found = pair["consistency"] if pair else {}
            rows.append(
                [
                    entry["name"],
                    "?" if entry["live"] is None else f"{entry['live']}/{entry['dict_size']}",
                    str(entry["near_duplicates"]["features"]),
                    _number(nearest and nearest["mcs"]["all"]["mean"]),
                    _number(nearest and nearest["chance_mmcs"]),
                    _count(nearest, "all"),
                    _count(nearest, "live"),
                    "" if nearest is None else str(nearest["mutual"]),
                    _number(nearest and nearest["matched"] and nearest["matched"]["all"]["mean"]),
                    _count(seed, "all"),
                    "" if seed is None else str(seed["mutual"]),
                    _number(found.get("pw_mcc")),
                    _number(found.get("pw_mcc_absolute")),
                    _shared(found),
                    _count(both, "all"),
                    "" if every is None else str(every["features"]),
                ]
            )
        note = (
            f"Columns: live features with another own atom above {self._duplicate:g}; MMCS with the next larger "
            f"dictionary (same L1 and seed) and by chance; features above {threshold:g} in it, of all, of live ones, "
            "and of pairs that are each other's nearest; mean of the one-to-one matching; features above it in the "
            "same size from another seed, and of pairs that are each other's nearest; mean cosine of the "
            "one-to-one matching with it (without another seed: with the next larger size), signed and absolute, and "
            "matched pairs above 0.7 in encoder and decoder; features "
            f"above {threshold:g} in the next size from another seed, and in every larger dictionary."
        )
        return _render(columns, rows) + "\n" + note

    def _pair_table(self) -> str:
        threshold = self.record["settings"]["threshold"]
        columns = ["from", "to", "MMCS", f">{threshold:g}", "mutual", "of", "near-dup.", "PW-MCC", "absolute", "shared"]
        rows = []
        for i, a in enumerate(self.names):
            for j, b in enumerate(self.names):
                if i == j:
                    continue
                values = self.cosine(a, b)
                matched = self.record["matched"].get(f"{a} -> {b}") or self.record["matched"].get(f"{b} -> {a}")
                above = int((values > threshold).sum())
                found = matched["consistency"] if matched else {}
                rows.append(
                    [
                        a,
                        b,
                        _number(self.record["mmcs"]["all"][i][j]),
                        str(above),
                        str(int((self.mutual(a, b) & (values > threshold)).sum())),
                        str(len(values)),
                        str(self.record["dictionaries"][i]["near_duplicates"]["features"]),
                        _number(found.get("pw_mcc")),
                        _number(found.get("pw_mcc_absolute")),
                        _shared(found),
                    ]
                )
        note = (
            f"Columns: MMCS; features whose nearest atom is above {threshold:g}, and of these the pairs that are each "
            "other's nearest, of all; features with another atom of their own dictionary above "
            f"{self._duplicate:g}; mean cosine of the one-to-one "
            "matching, signed and absolute; matched pairs above 0.7 in encoder and decoder."
        )
        return _render(columns, rows) + "\n" + note


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _shared(consistency: dict[str, Any]) -> str:
    both = consistency.get("shared")
    return "" if both is None else f"{both}/{consistency['pairs']}"


def _count(against: dict[str, Any] | None, which: str) -> str:
    return "" if not against or which not in against["mcs"] else str(against["mcs"][which]["above"])


def _render(columns: list[str], rows: list[list[str]]) -> str:
    """Aligned columns, names to the left and numbers to the right, as wide as they are."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    left = [position == 0 or column == "to" for position, column in enumerate(columns)]
    lines = [
        "  ".join(f"{cell:{'<' if left[i] else '>'}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in [columns, *rows]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
