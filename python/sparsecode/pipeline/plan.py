"""From the settings of `train-dicts` to what is done: which data, which sweep, how many steps. Checked here."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from sparsecode import store
from sparsecode.errors import DatasetUnfit, InvalidSetting, StageMissing
from sparsecode.machine import memory as machine_memory
from sparsecode.machine import torch_device
from sparsecode.pipeline.advice import advice
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.pipeline.run import Run
from sparsecode.sweep import memory
from sparsecode.sweep.batches import rows_held_out
from sparsecode.sweep.fitting import DEFAULT_SAMPLES
from sparsecode.sweep.normalization import Normalization
from sparsecode.sweep.settings import LossSettings, grid, parse_l1, parse_sizes, rates
from sparsecode.sweep.start import Start
from sparsecode.sweep.sweep import Sweep

SEEDS = 1 << 64  # that the order of rows takes


def check(config: TrainDictsConfig, dataset: store.Dataset) -> None:
    """Finds everything that cannot be used before a stage is recorded as begun.

    Raises:
        InvalidSetting: a number outside its range, or sizes and coefficients that cannot be read.
        DatasetUnfit: not finished, too few rows, or all the same.
    """
    if not dataset.complete:
        raise DatasetUnfit(f"{dataset.path}: its writer has not finished; run the command that writes it again")
    _check_numbers(config)
    batch, there = config.batch_size * dataset.activation_dim * 4, machine_memory()
    if there is not None and batch > there:
        raise InvalidSetting(
            f"train-dicts: --batch-size {config.batch_size} takes {batch / 1e9:,.0f} GB of memory; this machine has "
            f"{there / 1e9:.0f}; 1024 to 8192 rows are usual"
        )
    _entries(config, dataset.activation_dim)
    held_out(config, dataset)
    normalization(config, dataset)


def _check_numbers(config: TrainDictsConfig) -> None:
    least = {"seeds": 1, "seed": 0, "samples": 1, "batch_size": 1, "warmup_steps": 0, "eval_rows": 1, "log_every": 1,
             "save_every": 1, "threads": 1}  # fmt: skip
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise InvalidSetting(f"train-dicts: --{name.replace('_', '-')} must be at least {bound}, not {value}")
    if config.seed >= SEEDS:
        raise InvalidSetting(f"train-dicts: --seed must be below 2^64, not {config.seed}")
    for name in ("lr", "epochs", "minutes"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InvalidSetting(f"train-dicts: --{name} must be a number above 0, not {value}")
    for name in ("decay_fraction", "l1_warmup"):
        if not 0 <= getattr(config, name) <= 1:
            flag = name.replace("_", "-")
            raise InvalidSetting(f"train-dicts: --{flag} must be from 0 to 1, not {getattr(config, name)}")
    start(config)


def find_dataset(run: Run, config: TrainDictsConfig) -> Path:
    """The dataset's folder: the one named, or the hook point harvested in the run.

    Raises:
        StageMissing: nothing was harvested.
        InvalidSetting: several hook points were, and none is named.
    """
    if config.dataset is not None:
        return Path(config.dataset)
    hook = config.hook
    if hook is None:
        prefix = "harvest/"
        hooks = [key[len(prefix) :] for key in run.config()["stages"] if key.startswith(prefix)]
        if not hooks:
            raise StageMissing(f"{run.path}: harvest was not run; run: sparsecode harvest{run.flag}")
        if len(hooks) > 1:
            raise InvalidSetting(
                f"{run.path}: several hook points were harvested; add --hook, one of {', '.join(hooks)}"
            )
        hook = hooks[0]
    command = f"sparsecode harvest --hook {hook}"
    run.finished(f"harvest/{hook}", command)
    folder = Path(run.activations_path / hook)
    if not (folder / "manifest.json").exists():
        raise StageMissing(f"{folder}: the dataset is gone; run: {command}{run.flag}")
    return folder


def build_sweep(config: TrainDictsConfig, activation_dim: int, device: torch.device) -> Sweep:
    """The sweep before `start` has set encoders and biases."""
    sizes, l1, initialisations = zip(*_entries(config, activation_dim), strict=True)
    loss = LossSettings(config.mse, config.l1_scale, config.tied, config.pre_bias, config.project_gradient)
    orthogonal = start(config).orthogonal
    lr = rates(config.lr, sizes, config.lr_scaling)
    return Sweep(activation_dim, sizes, l1, initialisations, lr, loss, device=device, orthogonal=orthogonal)


def start(config: TrainDictsConfig) -> Start:
    """How the dictionaries begin.

    Raises:
        InvalidSetting: settings of the start that cannot be used.
    """
    return Start.parse(config.start, config.encoder_norm, config.initial_density)


def _entries(config: TrainDictsConfig, activation_dim: int) -> list[tuple[int, float, int]]:
    seeds = list(range(config.seed, config.seed + config.seeds))
    return grid(parse_sizes(config.sizes, activation_dim), parse_l1(config.l1), seeds)


def normalization(config: TrainDictsConfig, dataset: store.Dataset) -> Normalization:
    """From the dataset's statistics, which are over all its rows.

    Raises:
        DatasetUnfit: all rows are the same, or zero.
    """
    with advice("harvest another hook point", DatasetUnfit):
        return Normalization.of(dataset.statistics, config.normalize, dataset.path)


def held_out(config: TrainDictsConfig, dataset: store.Dataset) -> int:
    """Rows kept for the final metrics: as many as asked for, but at most a quarter of the dataset.

    Raises:
        DatasetUnfit: too few rows to split.
    """
    count = rows_held_out(config.eval_rows, dataset.rows)
    if count < 1:
        raise DatasetUnfit(f"{dataset.path}: {dataset.rows} rows are too few to train on; harvest more (--rows)")
    return count


def known_steps(config: TrainDictsConfig, train_rows: int) -> int | None:
    """Steps that --epochs or --samples ask for; None where only --minutes decides."""
    if config.epochs is not None:
        return max(1, round(config.epochs * train_rows / config.batch_size))
    if config.samples is None and config.minutes is not None:
        return None
    return max(1, (config.samples or DEFAULT_SAMPLES) // config.batch_size)


def need(config: TrainDictsConfig, dim: int) -> memory.Need:
    """What the sweep of these settings needs at width `dim`.

    Raises:
        InvalidSetting: sizes, coefficients or the device cannot be used.
    """
    seeds = list(range(config.seed, config.seed + config.seeds))
    sizes = [size for size, _, _ in grid(parse_sizes(config.sizes, dim), parse_l1(config.l1), seeds)]
    where = torch_device(config.device).type
    return memory.need_of(
        sizes, dim, batch=config.batch_size, engine=memory.engine_kind(config.engine, where), tied=config.tied,
        pre_bias=config.pre_bias, threads=config.threads, device=where,
    )  # fmt: skip


def check_memory(config: TrainDictsConfig, dim: int) -> None:
    """Refuses a sweep that cannot fit, before anything of it is made.

    Raises:
        InvalidSetting: it needs more memory than there is.
    """
    refuse("train-dicts", need(config, dim), dim)


def refuse(command: str, found: memory.Need, dim: int) -> None:
    """Refuses what needs more memory than there is, for a command. Raises InvalidSetting."""
    with advice("take fewer or smaller --sizes, --l1 or --seeds", InvalidSetting):
        memory.refuse(command, found, dim)
