"""Harvest one hook point of the project's own GPT, which need not run further than that."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsecode.errors import HookUnknown
from sparsecode.gpt import GPT
from sparsecode.harvest.several import RowSettings
from sparsecode.harvest.windows import window_order, windows
from sparsecode.machine import torch_device
from sparsecode.store import Dataset, DatasetWriter
from sparsecode.watch import UNWATCHED, Task, Watch

Batches = Generator[tuple[torch.Tensor, npt.NDArray[np.int32]], None, None]


def harvest_gpt(
    model: GPT,
    tokens: npt.NDArray[np.unsignedinteger],
    hook: str,
    folder: Path,
    settings: RowSettings,
    provenance: Mapping[str, Any],
    *,
    batch_size: int,
    device: str = "auto",
    watch: Watch = UNWATCHED,
) -> Dataset:
    """Stores the activations of one hook point in `folder`: row r is token r % T of window r // T.

    Args:
        model: the GPT.
        tokens: [n] of its text.
        hook: the hook point.
        folder: of the dataset; what a killed harvest has stored there stays, and the same call goes on behind it.
        settings: which rows, and how they are stored.
        provenance: as JSON values; the hook point and the context are added.
        batch_size: contexts in a forward pass; its shape decides the last bits of a row.
        device: cpu, cuda, mps, or auto.
        watch: what it is watched with.

    Raises:
        HookUnknown: the model has no such hook point.
        SettingsDiffer, OutOfSpace, NonFiniteActivation: see `sparsecode.errors`.
    """
    if hook not in model.hook_points():
        raise HookUnknown(f"the GPT has no hook point '{hook}'; there are {', '.join(model.hook_points())}")
    context = model.config.context
    rows = settings.available(len(tokens) // context * context, watch)
    writer = settings.writer(
        folder, model.hook_width(hook), {"hook_point": hook, "context": context} | dict(provenance)
    )
    with writer, watch.task("harvest", rows, "rows", done=writer.rows) as progress:
        batches = activation_batches(
            model, tokens, hook, rows, batch_size=batch_size, seed=settings.seed, device=device, skip=writer.rows
        )
        write_batches(writer, batches, progress, behind=torch_device(device).type != "cpu")
        return writer.finish()


def write_batches(writer: DatasetWriter, batches: Batches, progress: Task, *, behind: bool) -> None:
    """Appends batches; `behind` on a second thread, which writes one while a GPU computes the next.

    Where the model runs on the processor its threads have every core, and one more would only make them wait for each
    other: then a batch is written between two forward passes, on all cores.
    """
    with closing(batches), ThreadPoolExecutor(1) as background:
        pending: Future[None] | None = None
        for activations, ids in batches:
            if pending is not None:
                pending.result()
            if behind:
                pending = background.submit(writer.append, activations, ids)
            else:
                writer.append(activations, ids)
            progress.advance(len(ids))
            del activations
        if pending is not None:
            pending.result()


def activation_batches(
    model: GPT,
    tokens: npt.NDArray[np.unsignedinteger],
    hook: str,
    rows: int,
    *,
    batch_size: int,
    seed: int = 0,
    device: str = "auto",
    skip: int = 0,
) -> Batches:
    """Rows `skip` .. `rows` of a harvest as batches (activations [R, D], tokens [R]); see `harvest_gpt`."""
    where = torch_device(device)
    model = model.to(where)
    context = model.config.context
    order = window_order(len(tokens), context, seed)
    rows_per_batch = batch_size * context
    first = skip // rows_per_batch
    row = first * rows_per_batch
    for window in windows(tokens, order, context, batch_size, first):
        start, stop = max(skip - row, 0), min(window.size, rows - row)
        # Nothing is held here while the batch is written: the next forward pass takes over its memory.
        yield _rows_at(model, window, hook, where)[start:stop], window.reshape(-1)[start:stop].astype(np.int32)
        row += window.size
        if row >= rows:
            return


def _rows_at(model: GPT, window: npt.NDArray[np.int64], hook: str, device: torch.device) -> torch.Tensor:
    """Activations [B * T, D] of windows [B, T]."""
    with torch.inference_mode():
        found = model.run_to(torch.from_numpy(window).to(device), hook)  # [B, T, D]
    return found.reshape(-1, found.shape[-1]).cpu()
