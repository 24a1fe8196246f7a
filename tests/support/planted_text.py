"""A text with known properties as a dataset in memory, and activations that follow known rules over it.

The rules are written a second time here, as loops over the tokens of a context, so that they do not lean on the
predicates they test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.interpretation.vocabulary import Vocabulary

_SPECIAL = [" self", "(", ")", ",", "\n", '"', " of", " the", " alarm", " import", " Import", " walk"]
_PLAIN = [
    " " + a + b for a in ("ba", "ko", "mi", "tu", "re", "lo") for b in ("n", "p", "rt", "ck", "m", "nd", "x", "b")
]
_NUMBERS = [" 7", " 12", " 350", " 4711", " 99"]
_ING = [" going", " Running", " telling", "ceiling"]
_UPPER = [" NATO", " HTTP", " XY"]
TEXTS = [*_SPECIAL, *_PLAIN, *_NUMBERS, *_ING, *_UPPER]
VOCABULARY = Vocabulary(TEXTS, [not text[0].isalpha() for text in TEXTS])
ID = {text: i for i, text in enumerate(TEXTS)}


@dataclass(eq=False)
class PlantedDataset:
    """Contexts of unequal length, side by side; `activations` [rows, D] are set by whoever uses it."""

    ids: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    activations: Tensor = field(default_factory=lambda: torch.zeros(0))
    path = "planted"

    @property
    def rows(self) -> int:
        return len(self.ids)

    def contexts(self) -> Iterator[npt.NDArray[np.int64]]:
        whole = np.stack([self.numbers, self.bounds[:-1], self.bounds[1:]], axis=1)
        yield from np.array_split(whole, 3)

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        return self.ids[start:stop]

    def read(self, start: int, stop: int) -> Tensor:
        return self.activations[start:stop]

    def texts(self) -> list[list[str]]:
        """The tokens of each context."""
        return [[TEXTS[i] for i in self.ids[a:b]] for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]


def planted_dataset(contexts: int = 500, seed: int = 0) -> PlantedDataset:
    """Words at random, with brackets, quotes and lines in places; contexts have 40 to 160 tokens."""
    generator = np.random.default_rng(seed)
    rare = [*_NUMBERS, *_ING, *_UPPER]
    ids: list[int] = []
    bounds = [0]
    for length in generator.integers(40, 161, contexts).tolist():
        own: list[str] = []
        while len(own) < length:
            draw = generator.random()
            if draw < 0.004:
                own += ["(", " self", ","] if generator.random() < 0.8 else ["(", " of", ","]
                own += [")"]
            elif draw < 0.008:
                own += [" self"]
            elif draw < 0.013:
                own += [" of", " the"]
            elif draw < 0.02:
                own += [" the" if draw < 0.017 else " of"]
            elif draw < 0.03:
                own += ["\n"]
            elif draw < 0.0315:
                own += ['"', *(_PLAIN[i] for i in generator.integers(0, len(_PLAIN), 4)), '"']
            elif draw < 0.0335:
                own += [[" alarm", " import", " Import", " walk"][int(generator.integers(0, 4))]]
            elif draw < 0.06:
                own += [rare[int(generator.integers(0, len(rare)))]]
            else:
                own += [_PLAIN[int(generator.integers(0, len(_PLAIN)))]]
        ids += [ID[text] for text in own[:length]]
        bounds.append(len(ids))
    numbers = np.cumsum(generator.integers(1, 4, contexts))
    return PlantedDataset(np.array(ids, np.int32), np.array(bounds), numbers)


Fires = Callable[[list[str], int], bool]
RULES: dict[str, tuple[Fires, str]] = {
    # what fires, and a part of the text that says so
    "token self": (lambda t, i: t[i] == " self", "` self`"),
    "token comma": (lambda t, i: t[i] == ",", "`,`"),
    "word import": (lambda t, i: t[i].lower() == " import", "`import`"),
    "self after (": (lambda t, i: i > 0 and t[i] == " self" and t[i - 1] == "(", "` self` after `(`"),
    "the after of": (lambda t, i: i > 0 and t[i] == " the" and t[i - 1] == " of", "` the` after ` of`"),
    "number": (lambda t, i: t[i].strip().isdigit(), "any number"),
    "-ing": (lambda t, i: t[i].endswith("ing"), "any word in -ing"),
    "upper case": (lambda t, i: t[i].strip().isalpha() and t[i].strip().isupper(), "any upper-case word"),
    "new line": (lambda t, i: i == 0 or t[i - 1] == "\n", "anything first on its line"),
    "in quotes": (lambda t, i: _quoted(t, i), "anything inside double quotes"),
    "after alarm": (lambda t, i: " alarm" in t[max(0, i - 8) : i], "with `alarm` among the last 8 tokens"),
    "after walk": (lambda t, i: " walk" in t[max(0, i - 8) : i], "with `walk` among the last 8 tokens"),
}


def _quoted(texts: list[str], i: int) -> bool:
    line = max((k + 1 for k in range(i) if texts[k] == "\n"), default=0)
    return texts[line:i].count('"') % 2 == 1


def fires(dataset: PlantedDataset, rule: str) -> npt.NDArray[np.bool_]:
    """[rows] where a rule holds."""
    test = RULES[rule][0]
    return np.array([test(texts, i) for texts in dataset.texts() for i in range(len(texts))])


def noisy(active: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.float32]:
    """[rows] activations of 1 where active, with noise of 10 % everywhere."""
    noise = np.random.default_rng(seed).standard_normal((2, len(active)))
    values: npt.NDArray[np.float32] = (active * (1 + 0.1 * noise[0]) + 0.1 * np.abs(noise[1])).astype(np.float32)
    return values.clip(min=0)


def noise(rows: int, seed: int, share: float = 0.01) -> npt.NDArray[np.float32]:
    """[rows] activations on a share of rows, whatever the text."""
    generator = np.random.default_rng(seed)
    return (generator.exponential(size=rows) * (generator.random(rows) < share)).astype(np.float32)
