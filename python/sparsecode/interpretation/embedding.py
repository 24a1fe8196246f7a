"""The example-embedding score: whether excerpts in which a direction is active look alike to a sentence encoder.

No explanation is needed (arXiv 2507.08473). The embedding of an excerpt is the mean, over its tokens, of what the
encoder has after its last block. An excerpt of the scoring half is scored by its cosine with the mean of the active
ones of the fitting half, less that with the mean of those without activity there. The direction's score is the AUROC
of these, 0.5 by chance.

Shape letters: N excerpts, B excerpts of a batch, T tokens, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from sparsecode.errors import ModelInvalid
from sparsecode.harvest.models import LanguageModel
from sparsecode.interpretation.examples import Material
from sparsecode.interpretation.groups import Direction
from sparsecode.interpretation.scores import auroc
from sparsecode.watch import UNWATCHED, Watch

_BATCH = 64
_LAST = ("hook_normalized_resid_post", "hook_resid_post")  # the first of these that a block has


class Embedder:
    """Reads texts with a model.

    Args:
        model: with a tokenizer, and blocks.

    Raises:
        ModelInvalid: it lacks one of them.
    """

    def __init__(self, model: LanguageModel) -> None:
        found = {(int(match[1]), -_LAST.index(match[2])): name for name in model.taps
                 if (match := re.fullmatch(rf"blocks\.(\d+)\.({'|'.join(_LAST)})", name))}  # fmt: skip
        if not found or model.tokenizer is None:
            raise ModelInvalid(
                f"{model.name}: is no sentence encoder that can be read: it has no tokenizer or no blocks"
            )
        self.model, self._hook = model, found[max(found)]
        self._tokenizer = Tokenizer.from_str(model.tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[N, D] unit rows."""
        frame, most = self.model.frame, self.model.context
        ids = [[*frame.before, *encoded.ids[: most - len(frame)], *frame.after]
               for encoded in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]  # fmt: skip
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        rows: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            T = max(1, len(ids[part[-1]]))
            given = torch.full((len(part), T), self.model.pad)
            mask = torch.zeros_like(given)
            for place, i in enumerate(part):
                given[place, : len(ids[i])], mask[place, : len(ids[i])] = torch.tensor(ids[i]), 1
            x = self.model.read({"input_ids": given, "attention_mask": mask}, [self._hook])[self._hook].float().cpu()
            means = (x * mask[:, :, None]).sum(1) / mask.sum(1).clamp(min=1)[:, None]
            rows |= dict(zip(part, torch.nn.functional.normalize(means, dim=1), strict=True))
        return torch.stack([rows[i] for i in range(len(ids))]).numpy()


def embedding_score(embedder: Embedder, own: Material) -> float:
    """The score of a direction from its excerpts."""
    asked = [*own.active, *own.random, *own.hard]
    lists = [own.shown, own.other, asked]
    rows = embedder.embed(["".join(one.tokens) for part in lists for one in part])
    shown, other, of_asked = np.split(rows, np.cumsum([len(part) for part in lists])[:-1])
    return auroc(of_asked @ (_unit(shown) - _unit(other)), np.array([one.active for one in asked]))


def embedding_scores(
    embedder: Embedder, materials: Mapping[Direction, Material | str], watch: Watch = UNWATCHED
) -> dict[Direction, float]:
    """The scores of all directions that there is something to show of."""
    found = {}
    with watch.task("interpret: embedding", len(materials), "directions") as progress:
        for direction, own in materials.items():
            if isinstance(own, Material):
                found[direction] = embedding_score(embedder, own)
            progress.advance(1)
    return found


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The direction of the mean of rows [N, D]."""
    total = rows.sum(axis=0)
    found: npt.NDArray[np.float32] = total / max(float(np.linalg.norm(total)), 1e-12)
    return found
