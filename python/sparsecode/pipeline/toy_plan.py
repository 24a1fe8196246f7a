"""From the settings of `toy` to its data and its sweep. Checked here, before the stage is recorded as begun."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from sparsecode.errors import InvalidSetting
from sparsecode.machine import torch_device
from sparsecode.pipeline.config import ToyConfig
from sparsecode.pipeline.plan import refuse
from sparsecode.science.toy.data import ToySettings
from sparsecode.sweep import LossSettings, Start, Sweep, grid, parse_l1, parse_sizes
from sparsecode.sweep.memory import engine_kind, need_of

KEY = "toy"

_LEAST = {"dim": 2, "true_features": 2, "draw_rows": 1, "seeds": 1, "steps": 1, "batch_size": 1, "eval_rows": 2,
          "log_every": 1, "save_every": 1, "threads": 1}  # fmt: skip


def check(config: ToyConfig) -> None:
    """Raises InvalidSetting for a number outside its range, or sizes and coefficients that cannot be read."""
    for name, bound in _LEAST.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise InvalidSetting(f"toy: --{name.replace('_', '-')} must be at least {bound}, not {value}")
    for name in ("lr", "minutes"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InvalidSetting(f"toy: --{name} must be a number above 0, not {value}")
    if not 0 < config.active < config.true_features:
        raise InvalidSetting(
            f"toy: --active must be above 0 and below --true-features, {config.true_features}, not {config.active}"
        )
    for name in ("decay_fraction", "l1_warmup"):
        if not 0 <= getattr(config, name) <= 1:
            flag = name.replace("_", "-")
            raise InvalidSetting(f"toy: --{flag} must be from 0 to 1, not {getattr(config, name)}")
    start(config)
    if not 0 < config.threshold < 1:
        raise InvalidSetting(f"toy: --threshold must be between 0 and 1, not {config.threshold}")
    if config.batch_size % config.draw_rows:
        raise InvalidSetting(
            f"toy: --batch-size {config.batch_size} must be a multiple of --draw-rows {config.draw_rows}"
        )
    entries(config)


def entries(config: ToyConfig) -> list[tuple[int, float, int]]:
    """Every (size, l1, seed) of the sweep, sizes outermost; `2x` is twice the number of true features."""
    seeds = list(range(config.seed, config.seed + config.seeds))
    return grid(parse_sizes(config.sizes, config.true_features), parse_l1(config.l1), seeds)


def check_memory(config: ToyConfig) -> None:
    """Raises InvalidSetting where the sweep and the rows it is measured on need more memory than there is."""
    device = torch_device(config.device).type
    sizes = [size for size, _, _ in entries(config)]
    found = need_of(
        sizes, config.dim, batch=config.batch_size, engine=engine_kind(config.engine, device), threads=config.threads,
        device=device,
    )  # fmt: skip
    rows = 4 * config.eval_rows * (2 * config.dim + config.true_features)
    refuse(KEY, replace(found, working=found.working + rows), config.dim)


def data_settings(config: ToyConfig) -> ToySettings:
    """What the generator needs."""
    return ToySettings(config.dim, config.true_features, config.active, config.draw_rows, config.seed)


def build_sweep(config: ToyConfig, device: torch.device) -> Sweep:
    """The sweep before `start` has set encoders and biases, with the seed's loss."""
    sizes, l1, seeds = zip(*entries(config), strict=True)
    loss = LossSettings(l1_scale=config.l1_scale, project_gradient=config.project_gradient)
    orthogonal = start(config).orthogonal
    return Sweep(config.dim, sizes, l1, seeds, config.lr, loss, device=device, orthogonal=orthogonal)


def start(config: ToyConfig) -> Start:
    """How the dictionaries begin.

    Raises:
        InvalidSetting: settings of the start that cannot be used.
    """
    return Start.parse(config.start, config.encoder_norm, config.initial_density)
