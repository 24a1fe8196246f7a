"""Harvest several hook points of a model in one forward pass, each into a dataset of its own.

A dataset is the same as if its hook point had been harvested alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.corpus import Tokens
from sparsecode.errors import InvalidSetting
from sparsecode.harvest.models import LanguageModel
from sparsecode.harvest.models.ids import check_text
from sparsecode.harvest.sequences import Contexts, TokenBatch, by_document, packed
from sparsecode.store import Dataset, DatasetWriter
from sparsecode.watch import UNWATCHED, Task, Watch

DEFAULT_CONTEXT = 256

Ids = npt.NDArray[np.int32]
Rows = tuple[Mapping[str, Tensor], Ids, Ids]  # hook point -> [R,D], the tokens [R] and the numbers of contexts [R]


@dataclass(frozen=True)
class Target:
    """One hook point, and the folder of its dataset of rows `width` wide."""

    hook: str
    folder: Path
    width: int


@dataclass(frozen=True, kw_only=True)
class ContextSettings:
    """How a text is cut into contexts for a model that was not trained on it.

    Attributes:
        context: tokens in a context; None: 256, or the most that the model takes.
        documents: never two documents in a context; short ones are padded.
        special_tokens: rows of special tokens count too.
        chat: the text is conversations, written by the model's chat template.
    """

    context: int | None = None
    documents: bool = False
    special_tokens: bool = False
    chat: bool = False


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """Which rows are stored, and how.

    Attributes:
        rows: how many.
        dtype: type on disk: float16, bfloat16 or float32.
        shard_mb: size of a shard file in MB.
        seed: of the order in which contexts are read.
    """

    rows: int
    dtype: str = "float16"
    shard_mb: int = 256
    seed: int = 0

    def writer(
        self, folder: Path, width: int, provenance: Mapping[str, Any], *, contexts: bool = False
    ) -> DatasetWriter:
        """What writes rows of `width` numbers into `folder`."""
        return DatasetWriter(
            folder, activation_dim=width, dtype=self.dtype, provenance=dict(provenance), contexts=contexts,
            shard_bytes=self.shard_mb << 20, direct=True,
        )  # fmt: skip

    def available(self, there: int, watch: Watch) -> int:
        """How many rows a text of `there` rows gives."""
        if there < self.rows:
            watch.note(f"harvest: the corpus holds {there} rows of training text; storing these instead of {self.rows}")
        return min(self.rows, there)


def cut(
    tokens: Tokens, model: LanguageModel, settings: ContextSettings | None = None, *, side: str = "train"
) -> Contexts:
    """The contexts that the settings ask for, over the `train` or `val` text.

    Args:
        tokens: the text.
        model: what reads it.
        settings: how; None: as the model was trained on this very text.
        side: train or val.

    Raises:
        InvalidSetting: the model does not take that many tokens, or does not know the token between documents.
        TokensUnknown: it has no embedding for a token of the text, or of those around it.
    """
    text = tokens.train if side == "train" else tokens.val
    if settings is None:
        return packed(text, model.context, model.frame, frozenset())
    context = min(DEFAULT_CONTEXT, model.context) if settings.context is None else settings.context
    if context > model.context:
        raise InvalidSetting(f"a context of {context} tokens: {model.name} takes at most {model.context} tokens")
    special = frozenset() if settings.special_tokens else model.special
    frame = model.chat_frame if settings.chat else model.frame
    around = np.array([*frame.before, *frame.after], np.int64)
    check_text(model.name, around, model.vocab_size, -1, tokens.token_text)
    check_text(model.name, text, model.vocab_size, tokens.eot, tokens.token_text)
    if settings.documents:
        return by_document(text, tokens.eot, context, frame, special, model.pad)
    end = tokens.eot if model.tokenizer is None else tokens.tokenizer.token_to_id(model.end or "")
    if end is None or end >= model.vocab_size:
        raise InvalidSetting(f"{model.name}: its tokenizer has no token that ends a document", remedy="documents")
    return packed(text, context, frame, special, model.pad, border=(tokens.eot, end))


def harvest_several(
    model: LanguageModel,
    contexts: Contexts,
    targets: Sequence[Target],
    settings: RowSettings,
    provenance: Mapping[str, Any],
    *,
    batch_tokens: int,
    watch: Watch = UNWATCHED,
) -> Iterator[tuple[str, Dataset]]:
    """Reads a model over contexts once and stores the rows of several of its hook points, a dataset each.

    What a killed harvest has stored stays, and the same call goes on behind it.

    Args:
        model: the model.
        contexts: what it reads.
        targets: hook points, and where their rows go.
        settings: which rows, and how they are stored.
        provenance: of every dataset, as JSON values; its hook point and its context are added.
        batch_tokens: most tokens in a forward pass, padding included.
        watch: what it is watched with.

    Yields:
        Hook point and finished dataset, one after the other.

    Raises:
        SettingsDiffer, OutOfSpace, NonFiniteActivation: see `sparsecode.errors`.
    """
    rows = settings.available(contexts.rows, watch)
    numbered = contexts.rows_each is None
    shared: dict[str, Any] = {} if numbered else {"context": contexts.rows_each}
    shared |= provenance
    with ExitStack() as stack:
        writers = {}
        for target in targets:
            about = {"hook_point": target.hook} | shared
            writer = settings.writer(target.folder, target.width, about, contexts=numbered)
            writers[target.hook] = stack.enter_context(writer)
        done = {hook: writer.rows for hook, writer in writers.items()}
        first = min(done.values())
        progress = stack.enter_context(watch.task("harvest", rows, "rows", done=first))
        batches = contexts.batches(contexts.order(settings.seed), batch_tokens)
        left_out: Counter[str] = Counter()
        found = activation_rows(model, batches, list(writers), rows, first, settings.dtype, left_out)
        write_several(writers, done, found, progress, numbered=numbered, behind=model.device.type != "cpu")
        for hook, writer in writers.items():
            writer.note_left_out(left_out)
            yield hook, writer.finish()
    if left_out.total():
        told = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
        watch.note(f"harvest: tokens that gave no row: {told} (docs/models.md says what is left out)")


def activation_rows(
    model: LanguageModel,
    batches: Iterable[TokenBatch],
    hooks: Sequence[str],
    rows: int,
    skip: int,
    dtype: str,
    left_out: Counter[str],
) -> Iterator[tuple[int, Rows]]:
    """(number of the first row, rows) of every batch up to `rows` that does not lie before row `skip` as a whole.

    Positions up to there that are no rows are added to `left_out`, by the reason, also of batches that are skipped.
    """
    row = before = 0
    for batch in batches:
        count = min(batch.rows, rows - row)
        left_out.update(batch.left_out(count, model.unknown))
        if row + count > skip:
            given = {"input_ids": torch.from_numpy(batch.ids)}
            if not batch.present.all():
                given["attention_mask"] = torch.from_numpy(batch.present.astype(np.int64))
            keep = torch.from_numpy(batch.keep)
            found = {hook: kept(value, keep, count, dtype) for hook, value in model.read(given, hooks).items()}
            yield row, (found, batch.ids[batch.keep][:count].astype(np.int32), batch.contexts(before)[:count])
        row, before = row + count, before + len(batch.numbers)
        if row >= rows:
            return


def kept(value: Tensor, keep: Tensor, count: int, dtype: str) -> Tensor:
    """The first `count` rows [R,D] of a value [B,T,D] where `keep` [B,T], on the CPU."""
    flat = value.flatten(0, 1) if bool(keep.all()) else value[keep.to(value.device)]
    flat = flat[:count]
    if flat.device.type != "cpu":
        flat = flat.to(getattr(torch, dtype))  # half the bytes to move
    return flat.cpu()


def write_several(
    writers: Mapping[str, DatasetWriter],
    done: Mapping[str, int],
    batches: Iterable[tuple[int, Rows]],
    progress: Task,
    *,
    numbered: bool,
    behind: bool,
) -> None:
    """Appends to every dataset the rows it does not have yet, with the numbers of their contexts where `numbered`.

    `behind`: on a second thread, as `harvest` explains.
    """

    def append(row: int, found: Mapping[str, Tensor], ids: Ids, contexts: Ids) -> None:
        for hook, writer in writers.items():
            start = max(done[hook] - row, 0)
            if start < len(ids):
                writer.append(found[hook][start:], ids[start:], contexts[start:] if numbered else None)

    with ThreadPoolExecutor(1) as background:
        pending: Future[None] | None = None
        for row, (found, ids, contexts) in batches:
            if pending is not None:
                pending.result()
            if behind:
                pending = background.submit(append, row, found, ids, contexts)
            else:
                append(row, found, ids, contexts)
            progress.advance(min(len(ids), row + len(ids) - min(done.values())))
        if pending is not None:
            pending.result()
