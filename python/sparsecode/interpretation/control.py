"""The untrained control: a GPT of the same shape that never learned anything, and a dictionary of its activations.

What explanations of its features score, they owe to the tokens and to the method (Heap et al., arXiv 2501.17727).

Shape letters: T positions of a context, R rows, D activation dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.gpt import GPT, GPTConfig
from sparsecode.harvest.models import LanguageModel, own_model
from sparsecode.interpretation.sample import Sample
from sparsecode.store import Dataset
from sparsecode.sweep import fit

_TOKENS = 16_384  # of a forward pass
_OTHER = 0x756E7472  # added to the seed of the trained GPT: "untr"


@dataclass(frozen=True, eq=False)
class Control:
    """A GPT with random weights, read at one hook point on the very tokens of a dataset.

    Args:
        shape: of the trained GPT.
        seed: of the trained GPT; the control has another.
        hook: the hook point.
        dataset: whose tokens are read; all contexts have `shape.context` rows.
    """

    shape: GPTConfig
    seed: int
    hook: str
    dataset: Dataset

    @property
    def model(self) -> LanguageModel:
        """The model, on the processor."""
        return own_model(GPT(self.shape, seed=(self.seed + _OTHER) % (1 << 63)), device="cpu")

    def dictionary(self, samples: int, settings: dict[str, Any]) -> Dictionary:
        """A dictionary of its activations.

        Args:
            samples: rows to train on, from the beginning of the dataset, and anew where it has fewer.
            settings: those of `sweep.fit`, with one size, one L1 coefficient and one seed.
        """
        batch = int(settings["batch_size"])
        given = {name: value for name, value in settings.items() if name != "batch_size"}
        return fit(self._batches(batch), samples=samples, **given)[0]

    def chunks(self, sample: Sample) -> Iterator[tuple[slice, Tensor]]:
        """Its activations [r, D] at the rows of a sample, with the place of these rows."""
        model, done = self.model, 0
        for _, first, behind in sample.contexts.tolist():
            yield slice(done, done + behind - first), self._read(model, first, behind)
            done += behind - first

    def _batches(self, size: int) -> Iterator[Tensor]:
        model, T = self.model, self.shape.context
        step = max(1, _TOKENS // T) * T
        whole = self.dataset.rows // T * T
        held: list[Tensor] = []
        while True:
            for first in range(0, whole, step):
                held.append(self._read(model, first, min(first + step, whole)))
                rows = torch.cat(held)
                cut = len(rows) // size * size
                yield from torch.split(rows[:cut], size) if cut else ()
                held = [rows[cut:]]

    def _read(self, model: LanguageModel, first: int, behind: int) -> Tensor:
        T = min(self.shape.context, behind - first)
        ids = torch.from_numpy(self.dataset.tokens(first, behind)).long().view(-1, T)
        return model.read({"input_ids": ids}, [self.hook])[self.hook].flatten(0, 1).float()
