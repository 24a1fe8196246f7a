"""Evaluates dictionaries inside a model, whose values at a hook point are replaced by reconstructions or ablated.

Only kept positions are replaced, those whose rows a harvest stores. At padding and special tokens the model's own
values stay, in ablations too, so a dictionary that reconstructs zeros is the zero ablation for any text.

Shapes: B contexts, T positions, D activation dimension, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import DictionaryInvalid, HookUnknown, ModelInvalid, TokensUnknown
from sparsecode.evaluation.result import Evaluation, Shared
from sparsecode.evaluation.sums import Predictions, Sums
from sparsecode.harvest.contexts import TokenBatch
from sparsecode.harvest.models import LanguageModel

MASKED_SHARE = 0.15  # share of tokens that a masked model predicts, as in its training (Devlin et al. 2018, 3.1)
Advance = Callable[[int], None]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Prepared:
    """One batch as it is given to the model, and the positions that count.

    Attributes:
        given: input_ids and attention_mask.
        keep: [B,T] positions whose values are replaced.
        asked: `given` with masks for a masked model.
        targets: [B,T] tokens to predict.
        score: [B,T] positions whose prediction counts.
    """

    given: Mapping[str, Tensor]
    keep: Tensor
    asked: Mapping[str, Tensor]
    targets: Tensor
    score: Tensor


def evaluate_dictionaries(
    model: LanguageModel,
    dictionaries: Mapping[str, Dictionary],
    hook: str,
    batches: Callable[[], Iterable[TokenBatch]],
    *,
    seed: int = 0,
    advance: Advance = lambda rows: None,
) -> dict[str, Evaluation]:
    """Metrics of dictionaries by name, all over the same batches.

    Args:
        model: which model.
        dictionaries: trained on its values at `hook`.
        hook: the hook point.
        batches: returns the batches; called twice, it must give the same ones: for the mean, then for everything else.
        seed: decides which tokens are masked for a masked model.
        advance: called with the number of rows evaluated since the last call.

    Raises:
        HookUnknown: the model has no such hook point, or one that can only be read.
        DictionaryInvalid: a dictionary is of another width, or a transcoder.
    """
    width = model.width(hook)
    if model.kind != "none" and (why := model.tap(hook).fixed):
        raise HookUnknown(f"{hook} of {model.name} can only be read, not evaluated: {why}")
    for name, dictionary in dictionaries.items():
        check_fits(model, name, dictionary, hook, width)
    mean = _mean(model, hook, batches())
    moved = {name: dictionary.to(model.device) for name, dictionary in dictionaries.items()}
    sums = {name: Sums() for name in moved}
    clean, zero, averaged = Predictions(), Predictions(), Predictions()
    for batch in batches():
        prepared = prepare(model, batch, seed)
        keep = prepared.keep.to(model.device)
        x, original = _unchanged(model, prepared, hook)
        rows = x[keep].float()
        for name, dictionary in moved.items():
            codes = dictionary.encode(rows)
            sums[name].reconstruction.add(rows, dictionary.decode(codes, rows), codes)
        if original is not None:
            changes: list[tuple[Predictions, Change]] = [(zero, torch.zeros_like), (averaged, _constant(mean))]
            changes += [(sums[name].spliced, one.reconstruct) for name, one in moved.items()]
            clean.add(original, original, prepared.targets, prepared.score, prepared.keep)
            for into, change in changes:
                changed = _changed(model, prepared, hook, keep, change)
                into.add(changed, original, prepared.targets, prepared.score, prepared.keep)
        advance(len(rows))
    shared = Shared(model.name, hook, clean, zero, averaged)
    return {name: Evaluation.of(name, dictionaries[name], shared, sums[name]) for name in dictionaries}


def check_fits(model: LanguageModel, name: str, dictionary: Dictionary, hook: str, width: int) -> None:
    """Checks that a dictionary's reconstructions can replace the values at a hook point.

    Raises:
        DictionaryInvalid: it is a transcoder, or of another width.
    """
    if dictionary.transcoder:
        raise DictionaryInvalid(f"{name}: is a transcoder; what it writes belongs elsewhere than what it reads")
    if dictionary.activation_dim != width:
        raise DictionaryInvalid(
            f"{name}: made for {dictionary.activation_dim} dimensions, but {hook} of {model.name} has {width}",
            remedy="hook",
        )


def prepare(model: LanguageModel, batch: TokenBatch, seed: int = 0) -> Prepared:
    """A batch with its targets: the next tokens, or the masked ones.

    Raises:
        ModelInvalid: a masked model whose mask token is unknown or has no embedding.
    """
    ids, present, keep = (torch.from_numpy(value) for value in (batch.ids, batch.present, batch.keep))
    given = {"input_ids": ids}
    if not batch.present.all():
        given["attention_mask"] = present.long()
    if model.kind != "masked":
        following = torch.roll(present, -1, dims=1)
        following[:, -1] = False
        return Prepared(given, keep, given, torch.roll(ids, -1, dims=1), keep & following)
    if model.mask is None:
        raise ModelInvalid(f"{model.name}: its tokenizer has no mask token, so there is nothing to ask it for")
    if model.mask >= model.vocab_size:
        raise TokensUnknown(f"{model.name}: no embedding for its mask token ({model.mask}), it has {model.vocab_size}; "
                            "take the tokenizer that it was trained with")  # fmt: skip
    drawn = np.stack([_draw(seed, int(number), batch.ids.shape[1]) for number in batch.numbers])
    hidden = torch.from_numpy(drawn) & keep
    return Prepared(given, keep, given | {"input_ids": torch.where(hidden, torch.tensor(model.mask), ids)}, ids, hidden)


def spread(count: int, wanted: int) -> np.ndarray:
    """Numbers of `wanted` contexts, evenly spread over `count`; all if there are no more."""
    wanted = max(1, min(wanted, count))
    return np.arange(wanted, dtype=np.int64) * count // wanted


def _draw(seed: int, number: int, length: int) -> np.ndarray:
    """Draws which positions of a context are masked; depends on the seed and the context, not on its batch."""
    generator = np.random.Generator(np.random.PCG64([seed, number, 0x6D61736B]))  # "mask"
    return generator.random(length) < MASKED_SHARE


def _mean(model: LanguageModel, hook: str, batches: Iterable[TokenBatch]) -> Tensor:
    total, rows = torch.zeros(()), 0
    for batch in batches:
        prepared = prepare(model, batch)
        x = model.read(prepared.given, [hook])[hook]
        chosen = x[prepared.keep.to(x.device)].cpu().double()
        total, rows = total + chosen.sum(0), rows + len(chosen)
    return total / max(rows, 1)


def _constant(vector: Tensor) -> Change:
    return lambda value: vector.to(value.dtype).to(value.device).expand_as(value)  # MPS takes no float64


def _unchanged(model: LanguageModel, prepared: Prepared, hook: str) -> tuple[Tensor, Tensor | None]:
    """The model's own values at the hook point [B,T,D], and its logits [B,T,V], if it has any."""
    if model.kind == "none":
        return model.read(prepared.given, [hook])[hook], None
    if prepared.asked is not prepared.given:  # values of the unmasked text, predictions of the masked text
        return model.read(prepared.given, [hook])[hook], model.logits(prepared.asked)
    seen: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        seen.append(value.clone())  # later operations may write in place
        return value

    logits = model.logits(prepared.asked, hook, note)
    return seen[0], logits


def _changed(model: LanguageModel, prepared: Prepared, hook: str, keep: Tensor, change: Change) -> Tensor:
    """Logits after the values at kept positions are replaced."""

    def replace(value: Tensor) -> Tensor:
        new = change(value[keep].float()).to(value)
        return value.masked_scatter(keep[..., None], new)

    return model.logits(prepared.asked, hook, replace)
