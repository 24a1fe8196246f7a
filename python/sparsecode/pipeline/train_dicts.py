"""The train-dicts stage: a dataset in, a sweep of dictionaries out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.dictionary.files import files_of
from sparsecode.errors import InvalidSetting, TrainingDiverged
from sparsecode.pipeline import plan
from sparsecode.pipeline.advice import advice, advised
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.ranks import together
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import require
from sparsecode.pipeline.training import engine_of, train
from sparsecode.sweep.aligned import (
    SKIP_ROWS,
    AlignedBatches,
    Skip,
    chunks_beside,
    effective_layers,
    layer_norms,
)
from sparsecode.sweep.batches import DatasetBatches, Order
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.initial import Given
from sparsecode.sweep.metrics import Deviations
from sparsecode.sweep.normalization import gamma
from sparsecode.sweep.schedule import Budget
from sparsecode.sweep.split import Split
from sparsecode.sweep.trainer import EVAL_BATCH, evaluate
from sparsecode.world import World

KEY = "train-dicts"


@advised
def train_dicts(
    run: str | Path | Run = DEFAULT_RUN,
    config: TrainDictsConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Trains a sweep of dictionaries on a dataset and writes each as a pair of files in `RUN/dictionaries`.

    Args:
        run: the run folder, after `harvest_activations` (or with `dataset=FOLDER`).
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`sizes=[64, 512], minutes=2`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Returns:
        {"dictionaries": names, "fingerprint": of their files, "diverged": names of those that ran into NaN and were
        not saved, "hook_point" (also "hook_point_out" of transcoders, and "layers" of several side by side),
        "dataset_fingerprint", "activation_dim", "samples", "steps", "engine", "eval_rows",
        "metrics": name -> {mse, l1, l0, fvu, dead, rows, live, start_cosine; of several layers side by side also
        "layers": hook point -> mean share of an atom's squared norm, and effective_layers}}.

    Raises:
        StageMissing: nothing was harvested.
        InvalidSetting: a setting that cannot be used.
        DatasetUnfit: too few rows, or all the same.
        TrainingDiverged: every dictionary ran into NaN.
        SettingsDiffer, RunLocked, OutOfSpace: see `sparsecode.errors`.
        RankLost: another of the processes that train it together (docs/scale.md) failed or ended.
    """
    home, chosen = called(run, TrainDictsConfig, config, settings)
    with together(chosen.patience) as world:
        return _done(home, chosen, world, force=force, quiet=quiet or world.rank > 0)


def _done(home: Run, chosen: TrainDictsConfig, world: World, *, force: bool, quiet: bool) -> dict[str, Any]:
    """Does the stage unless it is done; every process of `world` calls it."""
    data = plan.find_data(home, chosen)
    if chosen.dataset is None:
        hooks = [dataset.path.name for dataset in data.datasets]
        chosen = chosen.changed(hook=hooks[: len(data.read)])  # for the run to remember: others may be harvested
        require(home, [f"harvest/{hook}" for hook in hooks], own=KEY)
    plan.check(chosen, data)
    if force or not home.is_done(KEY):
        width = data.width + data.target_width
        plan.refuse(KEY, plan.need(chosen, data.width, world, target_width=data.target_width), width)
    if force or KEY not in home.config()["stages"]:
        choose_engine(
            chosen.engine,
            chosen.device,
            kinds=plan.kinds_of(chosen),
            transcoders=data.target,
            cut=plan.segments(chosen, {}) > 1,
        )  # fails here, before the stage is recorded as begun
        offset = max(gamma(dataset.statistics) for dataset in data.read)
        if chosen.normalize != "center" and offset > 1:
            watching(quiet).note(
                f"{KEY}: the mean of the activations is {offset:.1f} times as long as their standard deviations, so "
                "that many features may never fire; --normalize center subtracts it"
            )
    given = plan.given(chosen, data)
    inputs = data.inputs | ({} if given is None else {"init": given.mark or ""})
    folder = home.dictionaries_path
    state = folder / "state.safetensors"

    def do(stage: Stage) -> dict[str, Any]:
        result = _train(stage, chosen, data, given, state, world, quiet=quiet)
        if result["diverged"]:
            names = ", ".join(result["diverged"])
            watching(quiet).note(
                f"{KEY}: {len(result['diverged'])} dictionaries ran into NaN and were not saved: {names}"
            )
        return result

    return run_stage(
        home, KEY, chosen, do, inputs=inputs, outputs=[folder], needs=_written(home),
        state=state, force=force, quiet=quiet, world=world,
    )  # fmt: skip


def _written(run: Run) -> list[Path]:
    """The files of the dictionaries that a finished training recorded; their folder before there are any."""
    result = run.config()["stages"].get(KEY, {}).get("result") or {}
    names = result.get("dictionaries", ())
    files = [file for name in names for file in files_of(run.dictionaries_path / name)]
    return files or [run.dictionaries_path]


def _lines(path: Path) -> str:
    """Digests of a dictionary's files as they were written: what is read from them later is compared with these."""
    return "".join(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files_of(path))


def _batches(
    config: TrainDictsConfig, data: plan.Data, train_rows: int, order: Order
) -> tuple[DatasetBatches | AlignedBatches, Skip | None]:
    """What is trained on, and the linear part of transcoders, which is taken from it."""
    parts = [
        DatasetBatches(dataset, config.batch_size, train_rows, plan.normalization(config, dataset), config.seed, order)
        for dataset in data.datasets
    ]
    if len(parts) == 1:
        return parts[0], None
    batches = AlignedBatches(tuple(parts))
    skip = Skip.of(batches.sample(SKIP_ROWS), data.width) if config.skip else None
    return replace(batches, skip=skip), skip


def _tell_of_layers(dictionary: Dictionary, data: plan.Data, metrics: dict[str, Any]) -> None:
    """Adds how much of each atom lies in each layer to the file's features, and their means to the metrics."""
    norms = layer_norms(dictionary.W_dec, [dataset.activation_dim for dataset in data.written])
    dictionary.features |= {f"norm.{hook}": norm for hook, norm in zip(data.hooks, norms, strict=True)}
    metrics["layers"] = {
        hook: float(norm.square().mean()) for hook, norm in zip(data.hooks, norms, strict=True)
    }  # shares of the squared norm
    metrics["effective_layers"] = float(effective_layers(norms).mean())


def _train(
    stage: Stage,
    config: TrainDictsConfig,
    data: plan.Data,
    given: Given | None,
    state: Path,
    world: World,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Trains, measures on the held-out rows and writes the dictionaries: in each process of `world` its own.

    Raises:
        TrainingDiverged: no dictionary is left.
    """
    run = stage.run
    segments = plan.segments(config, stage.planned)
    with advice("give --segments and --split that fit", InvalidSetting):
        split = None if segments == config.split == 1 else Split(segments, world.team(config.split))
    engine = engine_of(stage, config, quiet=quiet, cut=split is not None)
    every = plan.entries(config, data.width)
    with advice("leave out --split and --segments", InvalidSetting):
        sweep = plan.build_sweep(
            config, every, data.width, engine.device, world, target_width=data.target_width, given=given, split=split
        )
    # Windows hold more rows where these are narrower, so several datasets would come in different orders.
    order: Order = plan.order(config, data.first, stage.planned) if len(data.datasets) == 1 else "exact"
    eval_rows = plan.held_out(config, data.first)
    train_rows = data.first.rows - eval_rows
    steps = plan.known_steps(config, train_rows)
    budget = None
    if config.minutes is not None:
        budget = Budget(config.minutes * 60, steps, least=-(-config.min_samples // config.batch_size))
    batches, skip = _batches(config, data, train_rows, order)
    normalization = batches.normalization
    # Deviations of the batches are those of the datasets in expectation, and cost nothing.
    per_row = sum(
        dataset.statistics["variance"] * dataset.activation_dim / float(plan.normalization(config, dataset).scale) ** 2
        for dataset in data.written
    )
    trainer = train(
        run, stage, config, sweep, batches, engine, start=plan.start(config), steps=steps, budget=budget,
        deviations=lambda rows: per_row * rows, state=state, quiet=quiet, order=order, world=world,
        names=[kind.file_name(size, seed) for size, kind, seed in every],
    )  # fmt: skip

    def held_out() -> Iterator[Tensor]:
        return map(normalization.apply, chunks_beside(data.datasets, EVAL_BATCH, train_rows))

    spread = None
    if data.target:
        spread = reduce(add, (Deviations.of(rows[:, sweep.written]) for rows in held_out())).total
    found, fired = evaluate(engine, sweep, held_out() if skip is None else map(skip.take, held_out()), spread)
    diverged = list(trainer.gathered({sweep.names[k]: None for k in sweep.diverged()}))
    if len(diverged) == len(every):
        raise TrainingDiverged(
            f"{run.path}: all {len(every)} dictionaries ran into NaN; use a lower --lr, with --force"
        )
    own = {}
    for name, dictionary in trainer.finished(found, fired, eval_rows, normalization, data.about):
        if skip is not None:
            dictionary = skip.into(dictionary, torch.as_tensor(normalization.scale)[sweep.written])
        if len(data.written) > 1:
            _tell_of_layers(dictionary, data, found[name])
        if not sweep.leads:
            continue
        dictionary.save(run.dictionaries_path / name)
        own[name] = {"metrics": found[name], "lines": _lines(run.dictionaries_path / name)}
    made = trainer.gathered(own)
    return {
        "dictionaries": list(made),
        "fingerprint": hashlib.sha256("".join(one["lines"] for one in made.values()).encode()).hexdigest()[:16],
        "diverged": diverged,
        **data.about,
        "activation_dim": data.width,
        "samples": trainer.samples,
        "steps": trainer.step,
        "engine": engine.name,
        "eval_rows": eval_rows,
        "metrics": {name: one["metrics"] for name, one in made.items()},
    }
