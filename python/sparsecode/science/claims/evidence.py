"""What the claims are judged on, read from a run's files once: comparisons, weights, activations, text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsecode.comparison import Comparison, Entry, Relation
from sparsecode.science.claims import trained
from sparsecode.science.top_contexts import Decode, Rows
from sparsecode.sweep import Dictionary, metrics
from sparsecode.watch import UNWATCHED, Watch


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How much is read and resampled for a verdict.

    Attributes:
        rows: rows searched for the strongest contexts; None: all.
        directions: features, neurons and random directions whose contexts are compared.
        contexts: strongest distinct contexts looked at for each.
        features: features whose contexts are kept as text.
        shown: contexts kept as text for each.
        draws: resamples of a bootstrap interval.
        seed: of random directions and of resampling.
    """

    rows: int | None = None
    directions: int = 48
    contexts: int = 20
    features: int = 12
    shown: int = 12
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a claim's numbers: which dictionary of which sweep it is about."""

    sweep: str
    dictionary: str
    size: int
    l1: float | None
    seed: int | None


@dataclass(frozen=True, eq=False)
class ComparedSweep:
    """A comparison with the weights of its dictionaries: the run's own sweep, or one beside it."""

    label: str
    comparison: Comparison
    dictionaries: dict[str, Dictionary]

    @property
    def entries(self) -> list[Entry]:
        """What was found of each dictionary, by kind, L1, seed and size."""
        return self.comparison.entries

    def named(self, entry: Entry) -> dict[str, Any]:
        """What a `Row` about an entry begins with."""
        own = {"dictionary": entry.name, "size": entry.dict_size, "l1": entry.l1, "seed": entry.seed}
        return {"sweep": self.label} | own

    @cached_property
    def untrained(self) -> dict[str, str]:
        """Dictionaries below the bounds of `trained`, by name, and why."""
        rows: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            start = self.dictionaries[entry.name].features.get("initial_cosine")
            row = {"fvu": entry.metrics.get("fvu"), "live": entry.live}
            if start is not None:
                row |= metrics.motion(start, self.live(entry.name))
            rows[entry.name] = row
        return trained.dictionaries(rows)

    def below(self, entry: Entry, *relations: Relation) -> dict[str, str]:
        """The untrained ones among a dictionary and those that it is compared with, and why."""
        names = [entry.name, *(found.dictionary for one in relations if (found := entry.relative(one)))]
        return {name: self.untrained[name] for name in names if name in self.untrained}

    def live(self, name: str) -> Tensor:
        """[n] which features fired on the held-out rows; all, if that was not counted."""
        density = self.density(name)
        return torch.ones(self.dictionaries[name].dict_size, dtype=torch.bool) if density is None else density > 0

    def density(self, name: str) -> Tensor | None:
        """[n] share of held-out rows on which each feature fires."""
        return self.dictionaries[name].features.get("density")

    def found_again(self, entry: Entry) -> Tensor:
        """[n] live features that another dictionary has as well: of another seed where there is one, else larger."""
        other, live = entry.next_other_seed or entry.other_seed or entry.next, self.live(entry.name)
        if other is None:
            return torch.zeros_like(live)
        return live & (self.comparison.cosine(entry.name, other.dictionary) > self.comparison.threshold)

    def in_every_size(self, name: str) -> Tensor:
        """[n] features found again in at least one dictionary of every other size; none where there is one size.

        Untrained dictionaries are not asked.
        """
        own = self.dictionaries[name].dict_size
        found = torch.ones(own, dtype=torch.bool)
        asked = [entry for entry in self.entries if entry.name not in self.untrained]
        others = {entry.dict_size for entry in asked} - {own}
        for size in others:
            same = [entry.name for entry in asked if entry.dict_size == size]
            best = torch.stack([self.comparison.cosine(name, other) for other in same]).amax(0)
            found &= best > self.comparison.threshold
        return found if others else torch.zeros_like(found)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that the claims may use. What is None was lost or never made; `missing` says why.

    `untrained_model` says why the model's activations say nothing of a trained one; empty where nothing is known.
    """

    config: JudgeSettings
    main: ComparedSweep
    plain: ComparedSweep | None = None
    divided: ComparedSweep | None = None
    dataset: Rows | None = None
    decode: Decode | None = None
    starts: dict[str, ComparedSweep] = field(default_factory=dict)  # the run's sweep from each start, on fewer rows
    start_samples: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    untrained_model: str = ""
    watch: Watch = UNWATCHED

    @property
    def sweeps(self) -> list[ComparedSweep]:
        """The run's own, and the one beside it with several L1 under the same normalisation."""
        return [self.main] + ([self.plain] if self.plain is not None else [])
