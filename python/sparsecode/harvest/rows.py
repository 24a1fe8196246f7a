"""The harvest loop: batches of a model's values in, a dataset of rows for each of its taps out.

A dataset is the same as if its tap had been harvested alone.

Shapes: n positions of a batch, R of them rows, D width of a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsecode.errors import InvalidSetting
from sparsecode.harvest.contexts import REASONS, Contexts, TokenBatch
from sparsecode.harvest.models import LanguageModel
from sparsecode.store import Dataset
from sparsecode.store.parts import PartWriter
from sparsecode.watch import UNWATCHED, Watch

Numbers = npt.NDArray[np.integer[Any]]
Job = tuple[PartWriter, int, Tensor, Numbers, Numbers | None]  # what a writer appends, and from which row on


@dataclass(frozen=True)
class Target:
    """One hook point or module, and the folder of its dataset of rows `width` wide."""

    hook: str
    folder: Path
    width: int


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """Which rows are stored, and how.

    Attributes:
        rows: how many.
        dtype: type on disk: float16, bfloat16 or float32.
        shard_mb: size of a shard file in MB.
        shard_rows: rows of a shard file instead; a multiple of those of a batch needs no batch twice in parts.
        share: (i, n): of n parts, which share the shards of every dataset, the one that is made.
        seed: of the order in which contexts are read.
    """

    rows: int
    dtype: str = "float16"
    shard_mb: int = 256
    shard_rows: int | None = None
    share: tuple[int, int] = (0, 1)
    seed: int = 0


@dataclass(frozen=True)
class Positions:
    """One value of a batch at all positions, whether they give rows or not.

    Attributes:
        values: [n,D]; None where no dataset needs them.
        tokens: [n].
        contexts: [n] the number of each position's context in the batch, never falling.
        why: [n] why a position gives no row, as its place in REASONS; 0 where it gives one. None: all do.
        count: number of contexts in the batch.
    """

    values: Tensor | None
    tokens: Numbers
    contexts: Numbers
    why: npt.NDArray[np.int8] | None
    count: int

    @property
    def width(self) -> int:
        """D."""
        return 0 if self.values is None else self.values.shape[1]


@dataclass
class _Output:
    """One dataset: `row` rows of `contexts` contexts were offered, `taken` of them to be written."""

    writer: PartWriter
    dtype: str
    numbered: bool
    taken: int = 0
    row: int = 0
    contexts: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def take(self, found: Positions, most: int | None) -> list[Job]:
        """What is to be written of a batch: its rows up to row `most` that the writer wants."""
        end = len(found.tokens)
        rows = np.arange(end) if found.why is None else np.flatnonzero(found.why == 0)
        if most is not None and len(rows) > most - self.row:
            rows = rows[: most - self.row]
            end = int(rows[-1]) + 1 if len(rows) else 0
        counts = [] if found.why is None else np.bincount(found.why[:end], minlength=len(REASONS)).tolist()
        self.left_out.update(dict(zip(REASONS[1:], counts[1:], strict=False)))
        jobs: list[Job] = []
        for first, stop in self.writer.wanted(self.row, self.row + len(rows)):
            new, values = rows[first - self.row : stop - self.row], found.values
            assert values is not None
            numbers = found.contexts[new] + self.contexts if self.numbered else None
            if len(new) < len(values):
                values = values[torch.from_numpy(new).to(values.device)]
            if values.device.type != "cpu":
                values = values.to(getattr(torch, self.dtype))  # half the bytes to move
            jobs.append((self.writer, first, values.cpu(), found.tokens[new], numbers))
            self.taken += len(new)
        self.row, self.contexts = self.row + len(rows), self.contexts + found.count
        return jobs


def harvest_rows(
    model: LanguageModel,
    contexts: Contexts,
    targets: Sequence[Target],
    settings: RowSettings,
    provenance: Mapping[str, Any],
    *,
    batch_tokens: int,
    watch: Watch = UNWATCHED,
) -> Iterator[tuple[str, Dataset | None]]:
    """Reads a language model over contexts once and stores the rows of several of its hook points, a dataset each.

    What a killed harvest has stored stays, and the same call goes on behind it.

    Args:
        model: the model.
        contexts: what it reads.
        targets: hook points, and where their rows go.
        settings: which rows, and how they are stored.
        provenance: of every dataset, as JSON values; its hook point and its context are added.
        batch_tokens: most tokens in a forward pass, padding included; its shape decides the last bits of a row.
        watch: what it is watched with.

    Yields:
        Hook point and finished dataset, one after the other; None where shards of other parts are missing.

    Raises:
        InvalidSetting: parts of several datasets whose shards differ in their rows.
        RunLocked: another process makes the same part.
        SettingsDiffer, OutOfSpace, NonFiniteActivation: see `sparsecode.errors`.
    """
    there, each = contexts.rows, contexts.rows_each
    if there < settings.rows:
        watch.note(f"harvest: the corpus holds {there} rows of training text; storing these instead of {settings.rows}")
    batches = contexts.batches(contexts.order(settings.seed), batch_tokens)
    left_out: Mapping[str, int] = {}
    for hook, dataset in store(
        lambda wanted: activation_rows(model, batches, [target.hook for target in targets], wanted),
        targets,
        ({} if each is None else {"context": each}) | dict(provenance),
        rows=min(settings.rows, there),
        known=True,
        shard_rows=settings.shard_rows,
        share=settings.share,
        dtype=settings.dtype,
        shard_bytes=settings.shard_mb << 20,
        numbered=each is None,
        behind=model.device.type != "cpu",
        watch=watch,
    ):
        left_out = left_out if dataset is None else dataset.left_out
        yield hook, dataset
    if left_out:
        told = ", ".join(f"{count} {name}" for name, count in left_out.items())
        watch.note(f"harvest: tokens that gave no row: {told} (docs/models.md says what is left out)")


def activation_rows(
    model: LanguageModel, batches: Iterable[TokenBatch], hooks: Sequence[str], wanted: Callable[[int, int], bool]
) -> Iterator[dict[str, Positions]]:
    """The values of each batch by hook point; without values where its rows, from one to another, are not `wanted`."""
    row = 0
    for batch in batches:
        why, count = batch.why(model.unknown), len(batch.numbers)
        why = None if why is None else why.reshape(-1)
        ids, numbers = batch.ids.reshape(-1), np.arange(count).repeat(batch.ids.shape[1])
        first, row = row, row + batch.rows
        # No value is held here while rows are written: the next forward pass takes over its memory.
        yield {
            hook: Positions(None if value is None else value.flatten(0, 1), ids, numbers, why, count)
            for hook, value in (_read(model, batch, hooks) if wanted(first, row) else dict.fromkeys(hooks)).items()
        }


def _read(model: LanguageModel, batch: TokenBatch, hooks: Sequence[str]) -> dict[str, Tensor]:
    given = {"input_ids": torch.from_numpy(batch.ids)}
    if not batch.present.all():
        given["attention_mask"] = torch.from_numpy(batch.present.astype(np.int64))
    return model.read(given, hooks)


def store(
    read: Callable[[Callable[[int, int], bool]], Iterable[Mapping[str, Positions]]],
    targets: Sequence[Target],
    provenance: Mapping[str, Any],
    *,
    rows: int | None,
    dtype: str,
    shard_bytes: int,
    numbered: bool,
    behind: bool,
    watch: Watch,
    known: bool = False,
    shard_rows: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[str, Dataset | None]]:
    """Writes rows as datasets, those of an interrupted harvest where they are missing.

    Args:
        read: gives all batches from the first on, by hook point; called with what says whether values of the rows from
            one to another are needed.
        targets: where the rows of each hook point go.
        provenance: of every dataset; its hook point is added.
        rows: stop after this many; None: store all.
        dtype: type on disk.
        shard_bytes: size of a shard file, about.
        numbered: rows come with the number of their context.
        behind: write on a second thread, one batch while a GPU computes the next. Where the model runs on the processor
            its threads have every core, and one more would only make them wait for each other: then a batch is written
            between two forward passes, on all cores.
        watch: what it is watched with.
        known: there are `rows` rows, not fewer.
        shard_rows, share: see `RowSettings`.

    Yields:
        See `harvest_rows`.
    """
    with ExitStack() as stack:
        outputs: dict[str, _Output] = {}
        for target in targets:
            writer = PartWriter(
                target.folder, activation_dim=target.width, dtype=dtype, contexts=numbered, shard_bytes=shard_bytes,
                provenance={"hook_point": target.hook} | dict(provenance), direct=True, rows=rows if known else None,
                shard_rows=shard_rows, part=share,
            )  # fmt: skip
            outputs[target.hook] = _Output(stack.enter_context(writer), dtype, numbered)
        writers = [output.writer for output in outputs.values()]
        if share[1] > 1 and len({writer.shard_rows for writer in writers}) > 1:
            raise InvalidSetting("parts of hook points of several widths need one number of rows", remedy="shard_rows")
        progress = stack.enter_context(
            watch.task("harvest", writers[0].rows or rows, "rows", done=min(writer.stored for writer in writers))
        )
        background = stack.enter_context(ThreadPoolExecutor(1))
        pending: Future[None] | None = None
        for found in read(lambda first, stop: any(any(writer.wanted(first, stop)) for writer in writers)):
            before = max(output.taken for output in outputs.values())
            jobs = [job for hook, one in found.items() for job in outputs[hook].take(one, rows)]
            del found
            if pending is not None:
                pending.result()
            if behind:
                pending = background.submit(_append, jobs)
            else:
                _append(jobs)
            del jobs
            progress.advance(max(output.taken for output in outputs.values()) - before)
            if rows is not None and all(output.row >= rows for output in outputs.values()):
                break
        if pending is not None:
            pending.result()
        for hook, output in outputs.items():
            yield hook, output.writer.finish(output.left_out)


def _append(jobs: Sequence[Job]) -> None:
    for writer, row, values, tokens, contexts in jobs:
        writer.append(row, values, tokens, contexts)
