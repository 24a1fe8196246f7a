"""Dictionaries of activations, in one call: what `train-dicts` does, without a run folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import DatasetUnfit, InvalidArgument, TrainingDiverged
from sparsecode.store import Dataset
from sparsecode.sweep import memory
from sparsecode.sweep.batches import (
    Data,
    DatasetBatches,
    GivenBatches,
    TensorBatches,
    matrix,
    rows_held_out,
    statistics,
)
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.initial import Given
from sparsecode.sweep.kinds import KindSpec, entries, kinds_of
from sparsecode.sweep.normalization import Normalization
from sparsecode.sweep.schedule import Budget, Schedule
from sparsecode.sweep.settings import LossSettings, parse_l1, parse_sizes, rates
from sparsecode.sweep.start import SAMPLE_ROWS, Start
from sparsecode.sweep.sweep import Sweep
from sparsecode.sweep.trainer import EVAL_BATCH, Trainer, evaluate
from sparsecode.watch import UNWATCHED, Watch

DEFAULT_SAMPLES = 8_000_000  # a little more than one pass over the default harvest


def fit(
    x: Data,
    sizes: Sequence[int] | str,
    l1: float | Sequence[float] | str = 1.5e-2,
    seeds: int | Sequence[int] = 1,
    *,
    kinds: str | KindSpec | Sequence[str | KindSpec] = (),
    samples: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    batch_size: int = 4096,
    lr: float = 8e-3,
    lr_scaling: str = "sqrt",
    warmup_steps: int = 200,
    decay_fraction: float = 0.2,
    l1_warmup: float = 0.3,
    normalize: str = "center",
    start: Start | None = None,
    given: Given | None = None,
    loss: LossSettings | None = None,
    eval_rows: int = 65_536,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    watch: Watch = UNWATCHED,
) -> list[Dictionary]:
    """Trains a dictionary for every size, kind and seed, all together on the same batches.

    Args:
        x: activations: a tensor or array [rows, width] (or with more leading dimensions), a `Dataset`, a list of
            batches, or an iterator of batches of one size, which come once and are not shuffled.
        sizes: features of each, such as [64, 256]; or as the command line has it, "64-1024" or "2x-8x".
        l1: L1 coefficients, one or several; or as the command line has it. Those of `kinds` that need one and say none
            have it.
        seeds: how many per size and kind, or which.
        kinds: of the dictionaries, such as ["batchtopk k=8,16", "jumprelu l0=16"], see docs/kinds.md; none: ReLU + L1.
        samples: rows to train on, over several epochs if need be; 8 million unless `epochs` or `minutes` decide.
            Batches that come once need it.
        epochs: passes over the rows; beats `samples`.
        minutes: train for about this long here; `samples` or `epochs` may end it earlier.
        batch_size: rows in a batch; batches that come once have their own size.
        lr: peak learning rate of Adam, of 1,024 features.
        lr_scaling: "sqrt": it falls with the root of the size; "none": every size has it. See `settings.rates`.
        warmup_steps: steps of linear warm-up; at most half of a known number of steps.
        decay_fraction: share of the steps, at the end, over which the rate falls to zero.
        l1_warmup: share of the steps, at the start, over which L1, and JumpReLU's penalty, rise from zero.
        normalize: "center": subtract the mean, divide by the standard deviation; "rms": divide by the root mean
            square; "none".
        start: how dictionaries begin; None: a short encoder and calibrated biases.
        given: atoms to begin near, such as those of another dictionary; None: all are random.
        loss: conventions of the loss; None: squared error averaged over dimensions, atoms of norm 1.
        eval_rows: rows that are never trained on, for the metrics in `meta`: the last, at most a quarter; of batches
            that come once, the first.
        engine, device, threads: what computes, see docs/engine.md; "auto" is the fastest here.
        watch: what it is watched with; see `sparsecode.watch`.

    Returns:
        The dictionaries, sizes outermost; those that ran into NaN are left out. `meta` holds kind (of others than
        ReLU + L1), l1, seed and the metrics on the held-out rows, `features` each feature's density there.

    Raises:
        InvalidArgument, InvalidSetting: rows or settings that cannot be used.
        DatasetUnfit: too few rows, or all the same.
        TrainingDiverged: every dictionary ran into NaN.

    >>> dictionaries = fit(torch.randn(2000, 8), sizes=[8, 16], l1=0.01, samples=20_000, batch_size=100)
    >>> [dictionary.dict_size for dictionary in dictionaries]
    [8, 16]
    """
    for name, value in {"samples": samples, "epochs": epochs, "minutes": minutes, "batch_size": batch_size, "lr": lr,
                        "eval_rows": eval_rows}.items():  # fmt: skip
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InvalidArgument(f"{name} must be above 0, not {value}")
    batches, held_out, rows = _data(x, batch_size, normalize, eval_rows)
    if rows is None and samples is None:
        raise InvalidArgument("batches that come once do not say how many they are: name samples, the rows to train on")
    width = held_out[0].shape[1]
    every = _entries(width, sizes, l1, seeds, kinds)
    several = [kind for _, kind, _ in every]
    chosen = choose_engine(engine, device, threads=threads, kinds=several, note=watch.note)
    sweep = _sweep(width, every, lr, lr_scaling, loss, start or Start(), given, chosen.device)
    need = memory.need_of(
        sweep.sizes, width, batch=batches.size, engine=memory.engine_kind(engine, chosen.device.type, several),
        tied=sweep.loss.tied, pre_bias=sweep.loss.pre_bias, threads=threads, device=chosen.device.type, kinds=several,
    )  # fmt: skip
    memory.refuse("fit", need, width)
    steps: int | None = max(1, (samples or DEFAULT_SAMPLES) // batches.size)
    if epochs is not None and rows is not None:
        steps = max(1, round(epochs * rows / batches.size))
    elif samples is None and minutes is not None:
        steps = None
    budget = None if minutes is None else Budget(60 * minutes, steps)
    warmup = warmup_steps if steps is None else min(warmup_steps, steps // 2)
    schedule = Schedule(warmup, decay_fraction, l1_warmup, steps if budget is None else None)
    trainer = Trainer(
        sweep, batches, schedule, chosen, watch, start=start or Start(), budget=budget, label="fit", threads=threads
    )
    trainer.begin()
    trainer.train()
    normalization = batches.normalization
    found, fired = evaluate(chosen, sweep, map(normalization.apply, held_out))
    about = {}
    if isinstance(x, Dataset):
        about = {"hook_point": str(x.provenance.get("hook_point", "")), "dataset_fingerprint": x.fingerprint}
    made = [one for _, one in trainer.finished(found, fired, sum(map(len, held_out)), normalization, about)]
    lost = len(sweep) - len(made)
    if not made:
        raise TrainingDiverged(f"all {lost} dictionaries ran into NaN; a lower lr may help")
    if lost:
        watch.note(f"fit: {lost} dictionaries ran into NaN and were left out")
    return made


def _entries(
    width: int,
    sizes: Sequence[int] | str,
    l1: float | Sequence[float] | str,
    seeds: int | Sequence[int],
    kinds: str | KindSpec | Sequence[str | KindSpec],
) -> list[tuple[int, KindSpec, int]]:
    several = parse_sizes(sizes, width) if isinstance(sizes, str) else [int(size) for size in sizes]
    if isinstance(l1, str):
        coefficients = parse_l1(l1)
    else:
        coefficients = [float(l1)] if isinstance(l1, float | int) else [float(value) for value in l1]
    numbers = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    texts = [kinds] if isinstance(kinds, str | KindSpec) else list(kinds)
    found = entries(several, kinds_of(texts, coefficients), numbers)
    if not found:
        raise InvalidArgument("name at least one size, one L1 coefficient or kind, and one seed")
    return found


def _sweep(
    width: int,
    every: list[tuple[int, KindSpec, int]],
    lr: float,
    lr_scaling: str,
    loss: LossSettings | None,
    start: Start,
    given: Given | None,
    device: torch.device,
) -> Sweep:
    sizes, kinds, seeds = zip(*every, strict=True)
    peaks = rates(lr, sizes, lr_scaling)
    return Sweep(width, sizes, kinds, seeds, peaks, loss, device=device, orthogonal=start.orthogonal, given=given)


def _data(
    x: Data, batch_size: int, normalize: str, eval_rows: int
) -> tuple[DatasetBatches | TensorBatches | GivenBatches, Sequence[Tensor], int | None]:
    """What to train on, the rows that are held out in chunks, and how many rows the others are, where that is known."""
    if isinstance(x, Dataset):
        train = _rows(x.rows, eval_rows)
        normalization = Normalization.of(x.statistics, normalize, x.path)
        held_out = [x.read(first, min(first + EVAL_BATCH, x.rows)) for first in range(train, x.rows, EVAL_BATCH)]
        return DatasetBatches(x, batch_size, train, normalization), held_out, train
    if isinstance(x, Iterator):
        given = GivenBatches(x, normalize, SAMPLE_ROWS, eval_rows)
        return given, given.held_out, None
    rows = matrix(x) if isinstance(x, Tensor | np.ndarray) else torch.cat([matrix(batch) for batch in x])
    train = _rows(len(rows), eval_rows)
    normalization = Normalization.of(statistics(rows), normalize)
    return TensorBatches(rows[:train], batch_size, normalization), torch.split(rows[train:], EVAL_BATCH), train


def _rows(there: int, eval_rows: int) -> int:
    held_out = rows_held_out(eval_rows, there)
    if held_out < 1:
        raise DatasetUnfit(f"{there} rows are too few to train on")
    return there - held_out
