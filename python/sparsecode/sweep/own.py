"""What only some kinds of dictionaries have: parameters beside the weights, and state beside the moments.

Shape letters: B rows of a batch, F features of one dictionary, N features of all, K dictionaries.

A parameter is packed over those dictionaries alone that have it, in their order. State is absent where no dictionary
needs it, so that a sweep of ReLU dictionaries is what it always was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsecode.sweep.kinds.panneal import Annealed, Annealing
from sparsecode.sweep.kinds.spec import KindSpec
from sparsecode.sweep.kinds.topk import next_threshold

OWN = ("theta", "b_mag", "rho")  # parameters, of jumprelu and of gated
WINDOW = Annealing.window  # pairs of sums that the state of p-annealing has room for


def places(name: str, kinds: Sequence[KindSpec], sizes: Sequence[int]) -> list[slice | None]:
    """Where each dictionary's values of a parameter lie among the packed ones; None where it has none."""
    found: list[slice | None] = []
    end = 0
    for kind, size in zip(kinds, sizes, strict=True):
        has = name in kind.own
        found.append(slice(end, end + size) if has else None)
        end += size if has else 0
    return found


class KindState:
    """State that kinds need from step to step, saved and resumed byte for byte.

    Attributes:
        since: [N] int64, rows trained on since each feature of a dictionary with AuxK fired, 0 for the others; None
            where no dictionary has AuxK.
        threshold: [K] float32, BatchTopK's running threshold, NaN before the first; None where no dictionary has one.
        annealed: [K, 2 + 2 WINDOW] float64, what p-annealing has come to: its coefficient now, how many pairs of sums
            are kept, and these, oldest first; None where no dictionary has it.
        annealing: when each p falls; None for other kinds, and while the number of steps is not known.
    """

    def __init__(
        self, kinds: Sequence[KindSpec], sizes: Sequence[int], penalties: Sequence[float], device: torch.device
    ) -> None:
        self.kinds = kinds
        K = len(kinds)
        self.since = torch.zeros(sum(sizes), dtype=torch.int64, device=device) if any(k.aux for k in kinds) else None
        self.threshold = torch.full((K,), math.nan) if any(k.keeps_threshold for k in kinds) else None
        self.annealed: Tensor | None = None
        self.annealing: list[Annealing | None] = [None] * K
        if any(kind.anneals for kind in kinds):
            self.annealed = torch.zeros(K, 2 + 2 * WINDOW, dtype=torch.float64)
            for k, kind in enumerate(kinds):
                self.annealed[k, 0] = penalties[k] if kind.anneals else 0.0

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name: the tensors themselves."""
        found = {"since": self.since, "threshold": self.threshold, "annealed": self.annealed}
        return {name: value for name, value in found.items() if value is not None}

    def part(self, k: int, rows: slice) -> dict[str, Tensor]:
        """What `tensors` has of dictionary k, where its kind needs it; `rows` are its own of N."""
        kind, found = self.kinds[k], self.tensors()
        needed = {"since": kind.aux, "threshold": kind.keeps_threshold, "annealed": kind.anneals}
        return {name: found[name][rows if name == "since" else k] for name, needs in needed.items() if needs}

    def plan(self, steps: int, known_at: int = 0) -> None:
        """Says how long the training is, which p-annealing depends on.

        Args:
            steps: in all.
            known_at: the step at which that became known; p does not fall before.

        Raises:
            InvalidSetting: too few steps for as many changes of p.
        """
        self.annealing = [kind.annealing(steps, known_at) for kind in self.kinds]

    def dead(self, k: int, rows: slice) -> Tensor | None:
        """Which features [F] of dictionary k are dead; None where it has no AuxK. `rows` are its own of N."""
        after = self.kinds[k].dead_after if self.kinds[k].aux else None
        return None if after is None or self.since is None else self.since[rows] >= after

    def count(self, k: int, rows: slice, fired: Tensor, batch: int) -> None:
        """Takes over on how many rows [F] of a batch the features of dictionary k fired."""
        if self.kinds[k].aux and self.since is not None:
            self.since[rows] = torch.where(fired > 0, 0, self.since[rows] + batch)

    def threshold_of(self, k: int) -> float | None:
        """BatchTopK's threshold of dictionary k; None before its first, and for kinds without one."""
        found = math.nan if self.threshold is None else float(self.threshold[k])
        return None if math.isnan(found) else found

    def follow(self, k: int, step: int, z: Tensor) -> None:
        """Moves threshold and p-annealing of dictionary k by the codes [B, F] of a step, counted from 0."""
        if self.threshold is not None and self.kinds[k].keeps_threshold:
            found = next_threshold(self.threshold_of(k), z)
            self.threshold[k] = math.nan if found is None else found
        annealing = self.annealing[k]
        if annealing is not None and annealing.wants(step):
            self._write(k, annealing.next(self.strength(k), step, z))

    def anneal(self, k: int, step: int, own: float, following: float) -> None:
        """Moves p-annealing of dictionary k by the sums of z^p and z^(next p) of a step that wants them."""
        annealing = self.annealing[k]
        assert annealing is not None
        self._write(k, annealing.follow(self.strength(k), step, own, following))

    def strength(self, k: int) -> Annealed:
        """What p-annealing has come to in dictionary k."""
        assert self.annealed is not None
        strength, count, *sums = self.annealed[k].tolist()
        pairs = zip(sums[::2], sums[1::2], strict=True)
        return Annealed(strength, tuple(pairs)[: int(count)])

    def exponent(self, k: int, step: int) -> float:
        """The exponent p of dictionary k at a step, counted from 0."""
        annealing = self.annealing[k]
        return 1.0 if annealing is None else annealing.exponent(annealing.changed_by(step))

    def _write(self, k: int, state: Annealed) -> None:
        assert self.annealed is not None
        values = [state.strength, float(len(state.sums)), *(value for pair in state.sums for value in pair)]
        self.annealed[k] = torch.tensor(values + [0.0] * (2 + 2 * WINDOW - len(values)), dtype=torch.float64)
