"""The train-dicts stage: a dataset in, a sweep of dictionaries out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sparsecode import store
from sparsecode.dictionary.files import files_of
from sparsecode.errors import TrainingDiverged
from sparsecode.pipeline import plan
from sparsecode.pipeline.advice import advised
from sparsecode.pipeline.config import TrainDictsConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.ranks import together
from sparsecode.pipeline.run import DEFAULT_RUN, Run
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.pipeline.stale import require
from sparsecode.pipeline.training import engine_of, train
from sparsecode.sweep.batches import DatasetBatches, chunks
from sparsecode.sweep.engines import choose_engine
from sparsecode.sweep.initial import Given
from sparsecode.sweep.normalization import gamma
from sparsecode.sweep.schedule import Budget
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
        not saved, "hook_point", "dataset_fingerprint", "activation_dim", "samples", "steps", "engine", "eval_rows",
        "metrics": name -> {mse, l1, l0, fvu, dead, rows, live, start_cosine}}.

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
    data = plan.find_dataset(home, chosen)
    if chosen.dataset is None:
        chosen = chosen.changed(hook=data.name)  # for the run to remember: others may be harvested
        require(home, [f"harvest/{data.name}"], own=KEY)
    dataset = store.Dataset(data)
    plan.check(chosen, dataset)
    if force or not home.is_done(KEY):
        plan.refuse(KEY, plan.need(chosen, dataset.activation_dim, world), dataset.activation_dim)
    if force or KEY not in home.config()["stages"]:
        choose_engine(
            chosen.engine, chosen.device, kinds=plan.kinds_of(chosen)
        )  # fails here, before the stage is recorded as begun
        offset = gamma(dataset.statistics)
        if chosen.normalize != "center" and offset > 1:
            watching(quiet).note(
                f"{KEY}: the mean of the activations is {offset:.1f} times as long as their standard deviations, so "
                "that many features may never fire; --normalize center subtracts it"
            )
    given = plan.given(chosen, dataset.activation_dim)
    inputs = {"dataset": dataset.fingerprint} | ({} if given is None else {"init": given.mark or ""})
    folder = home.dictionaries_path
    state = folder / "state.safetensors"

    def do(stage: Stage) -> dict[str, Any]:
        result = _train(stage, chosen, dataset, given, state, world, quiet=quiet)
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


def _train(
    stage: Stage,
    config: TrainDictsConfig,
    dataset: store.Dataset,
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
    engine = engine_of(stage, config, quiet=quiet)
    every = plan.entries(config, dataset.activation_dim)
    sweep = plan.build_sweep(config, every, dataset.activation_dim, engine.device, world, given)
    order = plan.order(config, dataset, stage.planned)
    normalization = plan.normalization(config, dataset)
    eval_rows = plan.held_out(config, dataset)
    train_rows = dataset.rows - eval_rows
    steps = plan.known_steps(config, train_rows)
    budget = None
    if config.minutes is not None:
        budget = Budget(config.minutes * 60, steps, least=-(-config.min_samples // config.batch_size))
    # Deviations of the batches are those of the dataset in expectation, and cost nothing.
    per_row = dataset.statistics["variance"] * dataset.activation_dim / normalization.scale**2
    trainer = train(
        run, stage, config, sweep,
        DatasetBatches(dataset, config.batch_size, train_rows, normalization, config.seed, order), engine,
        start=plan.start(config), steps=steps, budget=budget, deviations=lambda rows: per_row * rows, state=state,
        quiet=quiet, order=order, world=world, names=[kind.file_name(size, seed) for size, kind, seed in every],
    )  # fmt: skip
    found, fired = evaluate(engine, sweep, map(normalization.apply, chunks(dataset, EVAL_BATCH, train_rows)))
    diverged = list(trainer.gathered({sweep.names[k]: None for k in sweep.diverged()}))
    if len(diverged) == len(every):
        raise TrainingDiverged(
            f"{run.path}: all {len(every)} dictionaries ran into NaN; use a lower --lr, with --force"
        )
    hook = str(dataset.provenance.get("hook_point", ""))
    about = {"hook_point": hook, "dataset_fingerprint": dataset.fingerprint}
    own = {}
    for name, dictionary in trainer.finished(found, fired, eval_rows, normalization, about):
        dictionary.save(run.dictionaries_path / name)
        own[name] = {"metrics": found[name], "lines": _lines(run.dictionaries_path / name)}
    made = trainer.gathered(own)
    return {
        "dictionaries": list(made),
        "fingerprint": hashlib.sha256("".join(one["lines"] for one in made.values()).encode()).hexdigest()[:16],
        "diverged": diverged,
        "hook_point": hook,
        "dataset_fingerprint": dataset.fingerprint,
        "activation_dim": sweep.activation_dim,
        "samples": trainer.samples,
        "steps": trainer.step,
        "engine": engine.name,
        "eval_rows": eval_rows,
        "metrics": {name: one["metrics"] for name, one in made.items()},
    }
