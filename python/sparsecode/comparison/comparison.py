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
    NAME.by_seed [n] float32      share of the dictionaries that differ in their seed alone in which it is found again
    NAME.alignment [n] float32    product of its encoder row and its atom; NaN for atoms of norm zero
    NAME.live [n] uint8, NAME.initial_cosine [n]    where the dictionary's file says
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsecode.checkpoint import load_tensors, save_tensors, write_json, write_text
from sparsecode.comparison.cosine import BestMatches, mutual
from sparsecode.comparison.matching import turned
from sparsecode.comparison.records import Contents, Entry, Relation
from sparsecode.comparison.tables import by_seed_table, check_free, common, csv_of, pair_table, sweep_table
from sparsecode.errors import CheckpointCorrupt, InvalidSetting, MissingExtra, RunInvalid
from sparsecode.records import as_json, from_json

if TYPE_CHECKING:
    import pandas

FORMAT = 2


@dataclass(eq=False, repr=False)
class Comparison:
    """The result of comparing two or more dictionaries: `contents` in figures, `tensors` per feature."""

    contents: Contents
    tensors: dict[str, Tensor]

    def __repr__(self) -> str:
        return f"Comparison of {len(self.names)} dictionaries: {', '.join(self.names)}"

    @cached_property
    def record(self) -> dict[str, Any]:
        """The contents as JSON values: those of comparison.json."""
        found: dict[str, Any] = as_json(self.contents)
        return found

    def as_json(self) -> dict[str, Any]:
        """The content of comparison.json."""
        return self.record

    @property
    def names(self) -> list[str]:
        """Names of the dictionaries, in the order of every matrix."""
        return [entry.name for entry in self.contents.dictionaries]

    @property
    def entries(self) -> list[Entry]:
        """What was found of each dictionary, by kind, L1, seed and size."""
        return sorted(self.contents.dictionaries, key=lambda one: (one.order, one.seed or 0, one.dict_size, one.name))

    @property
    def families(self) -> list[list[Entry]]:
        """Lists of dictionaries that differ only in size, sorted by size."""
        found: dict[tuple[Any, ...], list[Entry]] = {}
        for entry in self.entries:
            found.setdefault((entry.kind, entry.l1, entry.seed), []).append(entry)
        return list(found.values())

    @property
    def threshold(self) -> float:
        """Cosine above which a feature counts as found again."""
        return self.contents.settings.threshold

    @property
    def dimensions(self) -> int:
        """Width of the activations."""
        return self.contents.dictionaries[0].activation_dim

    @property
    def mmcs(self) -> Tensor:
        """[K, K] float64 mean max cosine similarity, from the row's dictionary to the column's."""
        return torch.tensor(self.contents.mmcs.all, dtype=torch.float64)

    @property
    def stability(self) -> dict[str, Tensor]:
        """By dictionary: [n] share of the other dictionaries in which each feature is found again."""
        return {name: self.tensors[f"{name}.stability"] for name in self.names}

    def best(self) -> tuple[Entry, Relation] | None:
        """The dictionary with most features found again, and the relative: of another seed if there is one."""
        for relation in (Relation.NEXT_OTHER_SEED, Relation.NEXT, Relation.OTHER_SEED):
            counts = [(count, entry) for entry in self.entries if (count := entry.found_again(relation)) is not None]
            if counts:
                return max(counts, key=lambda pair: pair[0])[1], relation
        return None

    def live(self, name: str) -> Tensor | None:
        """[n] which features of a dictionary fired on the held-out rows; None if that was not counted."""
        found = self.tensors.get(f"{name}.live")
        return None if found is None else found.bool()

    def live_or_all(self, name: str) -> Tensor:
        """[n] which features of a dictionary fired on the held-out rows; all, if that was not counted."""
        found = self.live(name)
        return torch.ones_like(self.stability[name], dtype=torch.bool) if found is None else found

    def found_again(self, threshold: float | None = None) -> dict[str, Tensor]:
        """By dictionary: [n] int64, in how many of the other dictionaries each feature is found again.

        Args:
            threshold: cosine above which it counts; None: that of the comparison.
        """
        bound = self.threshold if threshold is None else threshold
        found = {}
        for k, name in enumerate(self.names):
            cosine = self.tensors[f"{name}.cosine"]
            others = torch.arange(cosine.shape[1]) != k
            found[name] = (cosine[:, others] > bound).sum(dim=1)
        return found

    def matches(self) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """For every ordered pair of dictionaries their names and columns [n] of the first one's features.

        Columns: nearest (index of its nearest atom there), cosine, matched (index of its partner in the one-to-one
        matching, -1 without one) and matched_cosine (NaN without one).
        """
        for a, b in permutations(self.names, 2):
            cosine = self.cosine(a, b)
            none = BestMatches(torch.full((len(cosine),), torch.nan), torch.full((len(cosine),), -1))
            matched = self.matched(a, b) or none
            yield (
                a,
                b,
                {
                    "nearest": self.index(a, b).long(),
                    "cosine": cosine,
                    "matched": matched.indices,
                    "matched_cosine": matched.values,
                },
            )

    def to_frame(self) -> pandas.DataFrame:
        """A row per feature and other dictionary: columns dictionary, other, feature, and those of `matches`.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtra("a table of matches needs the package pandas; run: pip install pandas") from error
        parts = [
            pandas.DataFrame(
                {"dictionary": a, "other": b, "feature": range(len(columns["cosine"]))}
                | {name: values.numpy() for name, values in columns.items()}
            )
            for a, b, columns in self.matches()
        ]
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
            if not isinstance(record, dict) or {record.get("format"), about.get("format")} != {FORMAT}:
                raise RunInvalid(f"{path}: not a comparison of format {FORMAT}")
            return cls(from_json(Contents, record), tensors)
        except (OSError, ValueError, TypeError, CheckpointCorrupt, InvalidSetting) as error:
            raise RunInvalid(f"{path}: cannot be read") from error

    def table(self) -> str:
        """The result as text: a row per dictionary of a sweep; for up to three, or unrelated ones, a row per pair."""
        entries, settings = self.contents.dictionaries, self.contents.settings
        related = any(entry.next or entry.other_seed for entry in entries)
        if len(entries) == 1 or (related and len(entries) > 3):
            table = sweep_table(entries, settings)
        else:
            table = pair_table([self._pair(i, j) for i, j in permutations(range(len(entries)), 2)], settings)
        remarks = [
            f"{entry.name}: {entry.without_direction} of {entry.dict_size} atoms are zero and have no direction; they "
            "count as found nowhere, and in no mean"
            for entry in entries
            if entry.without_direction
        ]
        remarks += [
            f"{one.first} and {one.second} have dictionaries in common ({', '.join(one.members)}), so they agree by "
            "construction; neither counts in the other's stability"
            + ("" if one.end_cosine is None else f"; mean cosine {one.start_cosine:.3f} then, {one.end_cosine:.3f} now")
            for one in self.contents.akin or ()
        ]
        seeds = [by_seed_table(self.contents.by_seed, settings)] if self.contents.by_seed else []
        return "\n".join([table, *seeds, *remarks])

    def _pair(self, i: int, j: int) -> list[Any]:
        a, b, found = self.names[i], self.names[j], self.contents.matched
        above = self.cosine(a, b) > self.threshold
        return [
            a,
            b,
            self.contents.mmcs.all[i][j],
            int(above.sum()),
            int((self.mutual(a, b) & above).sum()),
            len(above),
            self.contents.dictionaries[i].near_duplicates.features,
            *common(found.get(f"{a} -> {b}") or found.get(f"{b} -> {a}")),
        ]


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
    beside = path.with_suffix(".json")
    if path.suffix == ".safetensors":
        comparison.save(beside)
    else:
        write_text(path, csv_of(comparison.matches()))
        write_json(beside, comparison.record)
    return [path, beside]
