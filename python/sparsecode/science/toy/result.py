"""A sweep trained on toy data, measured against the truth: what toy.json holds, apart from the settings.

Shape letters: D dimensions, G true features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.science.tables import csv_of
from sparsecode.science.toy import measures
from sparsecode.science.toy.data import ToyData
from sparsecode.sweep import Dictionary, metrics
from sparsecode.sweep.trainer import Trainer, evaluate
from sparsecode.watch import UNWATCHED, Watch


@dataclass(frozen=True, eq=False)
class ToyResult:
    """A trained sweep, and rows that it has not seen.

    Attributes:
        trainer: after its last step.
        data: what the rows are drawn from.
        x: [rows, D].
        codes: [rows, G], their true codes.
        spread: squared deviations of x from their mean.
    """

    trainer: Trainer
    data: ToyData
    x: Tensor
    codes: Tensor
    spread: float

    def measured(self, threshold: float, watch: Watch = UNWATCHED) -> Measured:
        """Every dictionary against the truth; those that ran into NaN have metrics alone.

        Args:
            threshold: cosine above which a true feature counts as recovered.
            watch: what it is watched with.
        """
        sweep, engine = self.trainer.sweep, self.trainer.engine
        chunks = (x.contiguous() for x in torch.split(self.x, self.trainer.batches.size))
        found, fired = evaluate(engine, sweep, chunks, self.spread)
        diverged, names = sweep.diverged(), sweep.names
        keys = list(zip(sweep.sizes, sweep.l1, sweep.seeds, strict=True))
        alive = {key: k for k, key in enumerate(keys) if k not in diverged}
        atoms = {key: sweep.W_dec[sweep.rows(k)].detach().float().cpu() for key, k in alive.items()}
        larger = measures.next_larger(list(alive))
        rows, recovery = [], {}
        with watch.task("toy: compare", len(names), "dictionaries") as progress:
            for k, key in enumerate(keys):
                size, l1, seed = key
                values = {"code_l1" if name == "l1" else name: value for name, value in found[names[k]].items()}
                row: dict[str, Any] = {"name": names[k], "dict_size": size, "l1": l1, "seed": seed} | values
                if key in alive:
                    start = sweep.initial_atoms(k)
                    own, cosines = measures.against_truth(self.data.features, atoms[key], start, threshold)
                    recovery[names[k]] = cosines
                    if len(self.data.blocks):
                        row["block_atoms"] = int((measures.in_blocks(atoms[key], self.data.blocks) > 0.5).sum())
                    row |= own | metrics.motion(sweep.initial_cosine(k), fired[k])
                    if key in larger:
                        row |= {"larger": names[alive[larger[key]]]}
                        row |= measures.against_larger(atoms[key], atoms[larger[key]])
                rows.append(row)
                progress.advance(1)
        return Measured(rows, recovery, [names[k] for k in sorted(diverged)], found, fired)

    @property
    def true_l0(self) -> float:
        """Mean number of true features that are active in a row."""
        return float((self.codes > 0).sum()) / len(self.codes)

    def truth(self) -> Dictionary:
        """The true features as a dictionary; its encoder is their transpose, which knows nothing of superposition."""
        features = self.data.features
        density = (self.codes > 0).float().mean(dim=0)
        meta = {"kind": "toy-truth", "seed": self.data.settings.seed}
        return Dictionary(
            features.clone(), torch.zeros(len(features)), features.clone(), meta=meta, features={"density": density}
        )

    def dictionaries(self, measured: Measured) -> Iterator[tuple[str, Dictionary]]:
        """The trained dictionaries by name, those that ran into NaN left out."""
        sweep = self.trainer.sweep
        for k, name in enumerate(sweep.names):
            if name in measured.diverged:
                continue
            meta = {
                "kind": "toy", "hook_point": "toy", "samples_seen": self.trainer.samples,
                "metrics": measured.metrics[name],
            }  # fmt: skip
            dictionary = sweep.dictionary(k, meta=meta)
            density = metrics.density(measured.fired[k], len(self.x))
            dictionary.features = {"density": density, "initial_cosine": sweep.initial_cosine(k)}
            yield name, dictionary


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found of every dictionary of a toy sweep.

    Attributes:
        rows: an entry for each, JSON values.
        recovery: by name, [G]: for each true feature its largest cosine with an atom.
        diverged: names of those that ran into NaN.
        metrics: on the fresh rows, by name.
        fired: of each, [F]: fresh rows on which a feature fired.
    """

    rows: list[dict[str, Any]]
    recovery: dict[str, Tensor]
    diverged: list[str]
    metrics: Mapping[str, dict[str, Any]]
    fired: list[Tensor]

    def csv(self) -> str:
        """The entries as CSV."""
        ends = ("mmcs_truth_low", "mmcs_truth_high")
        return csv_of([
            {key: value for key, value in row.items() if not isinstance(value, list)}
            | dict(zip(ends, row.get("mmcs_truth_interval", (None, None)), strict=True))
            for row in self.rows
        ])  # fmt: skip
