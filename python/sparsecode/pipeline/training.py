"""Training as a part of a stage: what a killed one decided is kept, its state taken up, its measurements logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sparsecode.pipeline.config import ToyConfig, TrainDictsConfig
from sparsecode.pipeline.opening import Stage
from sparsecode.pipeline.plan import kinds_of
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.stage import StageWatch
from sparsecode.sweep.batches import Batches
from sparsecode.sweep.engines import Engine, choose_engine
from sparsecode.sweep.schedule import Budget, Schedule
from sparsecode.sweep.start import Start
from sparsecode.sweep.sweep import Sweep
from sparsecode.sweep.trainer import Trainer
from sparsecode.world import ALONE, World


def engine_of(stage: Stage, config: TrainDictsConfig | ToyConfig, *, quiet: bool, cut: bool = False) -> Engine:
    """The engine that the settings ask for; a stage that resumes keeps the one it began with: another would round
    differently.
    """
    return choose_engine(
        stage.planned.get("engine", config.engine), config.device, threads=config.threads, kinds=kinds_of(config),
        cut=cut,
        transcoders=getattr(config, "target", None) is not None, note=watching(quiet).note,
    )  # fmt: skip


def train(
    run: Run,
    stage: Stage,
    config: TrainDictsConfig | ToyConfig,
    sweep: Sweep,
    batches: Batches,
    engine: Engine,
    *,
    start: Start,
    steps: int | None,
    budget: Budget | None,
    deviations: Callable[[int], float],
    state: Path,
    quiet: bool,
    order: str | None = None,
    world: World = ALONE,
    names: Sequence[str] | None = None,
) -> Trainer:
    """Trains a sweep to its end, from where the stage was left.

    Args:
        run, stage: what the training is a part of.
        config: its settings.
        sweep, batches, engine, start, deviations, state: see `Trainer`.
        steps: how many, or the most of them; None where only the time decides.
        budget: decides the number of steps; None where `steps` does.
        quiet: no progress.
        order: of the rows, where it is one that a resumed stage must keep.
        world, names: see `Trainer`.

    Returns:
        The trainer after its last step.
    """
    warmup = config.warmup_steps if steps is None else min(config.warmup_steps, steps // 2)
    schedule = Schedule(warmup, config.decay_fraction, config.l1_warmup, steps if budget is None else None)
    trainer = Trainer(
        sweep, batches, schedule.planned(stage.planned), engine, StageWatch(run, stage, quiet=quiet), start=start,
        budget=budget, deviations=deviations, state=state, label=stage.key, log_every=config.log_every,
        save_every=config.save_every, threads=config.threads,
        world=world, names=names,
    )  # fmt: skip
    if not (stage.resuming and trainer.restore()):
        trainer.begin()
    if stage.resuming:
        run.rewind_metrics(stage.key, trainer.step)
    if not stage.planned:
        cut = {} if sweep.split is None else {"segments": sweep.split.segments}
        stage.plan(engine=engine.name, **({} if order is None else {"order": order}), **cut)
    trainer.train()
    return trainer
