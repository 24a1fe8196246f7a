"""About how long a replication takes: budgets of minutes as they stand, everything else by what it cost where it was
measured (two cores of a Xeon with AMX, runs of the default preset), or by the rate here.

Pure functions of settings and results; within a factor of two, which is what somebody who waits wants to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsecode.pipeline.config import (
    BaselinesConfig,
    ClaimsConfig,
    HarvestConfig,
    InterpretConfig,
    ReportConfig,
    ToyConfig,
    TrainDictsConfig,
    TrainGptConfig,
)
from sparsecode.pipeline.settings import StageConfig

# Training a BPE (6 s for 60 MB) and encoding (1.3 million tokens a second, 0.3 million in a MB).
_TEXT = 0.33  # seconds per MB
_WHOLE_TEXT = 166.0  # MB of Python sources where no limit is set and no text is given
# 15.9 million tokens in 3 minutes; a token costs in proportion to the matrices that it goes through.
_GPT = 180 / (15.9e6 * (12 * 6 * 32**2 + 4096 * 32))
_HARVEST = 1e-6  # 16 million rows in 16 s
# 13.2 million rows in 113 s, 8,064 features of 128 dimensions in all.
_SWEEP = 113 / (13.2e6 * 8064 * 128)
# What is left of a run: comparing, reading contexts of 6 million rows, fits on 65,536, drawing pictures.
_COMPARE, _READ, _FIT, _PAGE, _PICTURES = 1.0, 1e-6, 1.2e-4, 1.0, 6.0
# Eight groups of directions, each explained and scored twice on 60,000 rows; a dictionary of an untrained GPT.
_GROUPS, _EXPLAIN, _CONTROL = 8, 0.05 / 60_000, 5e-6
_START = 1.0  # of any stage: modules, files, locks
_TELLING = 15.0  # a stage that took less says more of its start than of the machine
# What the stages do where nothing is said: rows of train-dicts, rows of each sweep of claims and of each start, and
# the L1 coefficients of the former.
_SAMPLES, _CLAIMS_SAMPLES, _FOUR = 8e6, 2e6, "1,2,4,8"
_WIDTH = 768  # of activations of a third-party model, before it was read: GPT-2's


def seconds(stage: str, configs: Mapping[str, StageConfig], speed: float = 1.0) -> float:
    """About how long a stage takes on a machine that is `speed` times as fast as the one of the measurements.

    Args:
        stage: its name.
        configs: the settings of all stages, by name.
        speed: 1 where nothing is known.
    """
    return _START / speed + _work(stage, configs, speed)


def _work(stage: str, configs: Mapping[str, StageConfig], speed: float) -> float:
    config = configs[stage]
    if isinstance(config, TrainGptConfig):
        fixed = _text(config) / speed
        step = config.batch_size * config.context * _per_token(config) / speed
        least = config.min_tokens / (config.batch_size * config.context)
        return fixed + _within(config.minutes, config.steps * step, least * step)
    if isinstance(config, HarvestConfig):
        return config.rows * _HARVEST / speed
    if isinstance(config, TrainDictsConfig):
        row = _per_row(config, _width(configs)) / speed
        rows: float | None = config.samples
        if config.epochs is not None:
            rows = config.epochs * _rows(configs)
        elif rows is None and config.minutes is None:
            rows = _SAMPLES
        return _within(config.minutes, None if rows is None else rows * row, config.min_samples * row)
    if isinstance(config, ClaimsConfig):
        fixed, width = _READ * _rows(configs) / speed, _width(configs)
        if config.starts:
            own = configs["train-dicts"]
            assert isinstance(own, TrainDictsConfig)
            each = _features(own.sizes, own.l1, width) * own.seeds * width * _SWEEP / speed  # ReLU, whatever its kinds
            given = config.start_samples or (None if config.start_minutes is not None else _CLAIMS_SAMPLES)
            fixed += _within(
                config.start_minutes, None if given is None else 3 * given * each, 3 * config.min_samples * each
            )
        if not config.sweep:
            return fixed
        row = 2 * _features(config.sizes, config.l1 or _FOUR, width) * width * _SWEEP / speed
        rows = config.samples or (None if config.minutes is not None else _CLAIMS_SAMPLES)
        return fixed + _within(config.minutes, None if rows is None else rows * row, config.min_samples * row)
    if isinstance(config, ToyConfig):
        features = _features(config.sizes, config.l1, config.true_features) * config.seeds
        step = config.batch_size * features * config.dim * _SWEEP / speed
        return _within(config.minutes, config.steps * step, config.min_steps * step)
    if isinstance(config, BaselinesConfig):
        return config.rows * _FIT / speed
    if isinstance(config, InterpretConfig):
        explained = config.directions * _GROUPS * config.rows * _EXPLAIN
        return (explained + config.control * config.control_samples * _CONTROL) / speed
    return (_PAGE + _PICTURES * config.images if isinstance(config, ReportConfig) else _COMPARE) / speed


def measured_speed(
    stage: str, configs: Mapping[str, StageConfig], result: Mapping[str, Any], took: float
) -> float | None:
    """How fast this machine did what a stage did, beside the one of the measurements; None where it does not
    tell, or took too little time to.

    Args:
        stage: its name.
        configs: the settings of all stages, by name.
        result: what it recorded.
        took: its seconds.
    """
    config, expected = configs[stage], 0.0
    if isinstance(config, TrainGptConfig) and result.get("tokens_seen"):
        expected = _text(config) + result["tokens_seen"] * _per_token(config)
    elif isinstance(config, TrainDictsConfig) and result.get("samples"):
        width = int(result.get("activation_dim") or _width(configs))
        expected = result["samples"] * _per_row(config, width)
    return expected / took if expected > 0 and took >= _TELLING else None


def _within(minutes: float | None, most: float | None, least: float) -> float:
    """Seconds of a budget with a ceiling and a floor of work."""
    planned = most if minutes is None else max(60 * minutes, least)
    return min(value for value in (planned, most) if value is not None)


def _text(config: TrainGptConfig) -> float:
    return _TEXT * (config.max_text_mb or _WHOLE_TEXT)


def _per_token(config: TrainGptConfig) -> float:
    return _GPT * (12 * config.n_layer * config.d_model**2 + config.vocab_size * config.d_model)


def _per_row(config: TrainDictsConfig, width: int) -> float:
    from sparsecode.pipeline.plan import entries  # loads torch

    return sum(size for size, _, _ in entries(config, width)) * width * _SWEEP


def _features(sizes: str, l1: str, width: int) -> int:
    """Features of one seed of a sweep of ReLU dictionaries."""
    from sparsecode.sweep.settings import parse_l1, parse_sizes  # its package loads torch

    return sum(parse_sizes(sizes, width)) * len(parse_l1(l1))


def _rows(configs: Mapping[str, StageConfig]) -> int:
    harvest = configs["harvest"]
    return harvest.rows if isinstance(harvest, HarvestConfig) else 0


def _width(configs: Mapping[str, StageConfig]) -> int:
    """Dimensions of the activations, as far as the settings tell."""
    gpt, harvest = configs["train-gpt"], configs["harvest"]
    if not isinstance(gpt, TrainGptConfig) or not isinstance(harvest, HarvestConfig) or harvest.model is not None:
        return _WIDTH
    hidden = gpt.d_mlp if gpt.d_mlp is not None else 4 * gpt.d_model
    return hidden if (harvest.hook or f"blocks.{harvest.site}.").endswith(("mlp.", "mlp.hook_post")) else gpt.d_model
