"""The train-dicts stage: a dataset in, a sweep of dictionaries out, resumable at every step.

Shape letters: B rows of a batch, D activation dimension, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsecode import store
from sparsecode.config import TrainDictsConfig
from sparsecode.errors import TrainingDiverged
from sparsecode.machine import cores
from sparsecode.progress import Progress, say
from sparsecode.recall import recalled
from sparsecode.run import DEFAULT_RUN, Run, Stage
from sparsecode.stale import require
from sparsecode.sweep import metrics, plan
from sparsecode.sweep.engines import Engine, StepStats, choose_engine, on_device
from sparsecode.sweep.engines.cpu import CpuEngine
from sparsecode.sweep.interrupt import Interruptible
from sparsecode.sweep.memory import check_memory
from sparsecode.sweep.schedule import Budget, Schedule
from sparsecode.sweep.start import begin
from sparsecode.sweep.state import load_state, save_state
from sparsecode.sweep.sweep import Sweep

KEY = "train-dicts"
_EVAL_BATCH = 4096  # rows per forward pass of the final metrics
_PATIENCE = 0.25  # seconds that an engine trains on before progress is shown and Ctrl-C is answered


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
        config: settings; without it those of the run (`sparsecode.recall`). `settings` change single ones
            (`sizes="64-512", minutes=2`).
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
    """
    run = run if isinstance(run, Run) else Run(run)
    config = recalled(run, TrainDictsConfig, config, settings)
    data = plan.find_dataset(run, config)
    if config.dataset is None:
        config = config.changed(hook=data.name)  # for the run to remember: others may be harvested
        require(run, [f"harvest/{data.name}"], own=KEY)
    dataset = store.Dataset(data)
    plan.check(config, dataset)
    if force or not run.is_done(KEY):
        check_memory(config, dataset.activation_dim)
    if force or KEY not in run.config()["stages"]:
        choose_engine(config.engine, config.device)  # fails here, before the stage is recorded as begun
    folder = run.dictionaries_path
    inputs = {"dataset": dataset.fingerprint}
    with run.stage(KEY, config, inputs=inputs, outputs=[folder], needs=_written(run), force=force) as stage:
        if stage.done:
            if not quiet:
                say(f"{KEY}: already done in {run.path} with the same settings")
            return stage.result
        training = _Training(run, stage, config, dataset)
        training.restore()
        training.train(quiet=quiet)
        result = training.finish()
        if result["diverged"] and not quiet:
            names = ", ".join(result["diverged"])
            say(f"{KEY}: {len(result['diverged'])} dictionaries ran into NaN and were not saved: {names}")
        return result


def _written(run: Run) -> list[Path]:
    """The files of the dictionaries that a finished training recorded; their folder before there are any."""
    result = run.config()["stages"].get(KEY, {}).get("result") or {}
    names = result.get("dictionaries", ())
    files = [run.dictionaries_path / f"{name}{suffix}" for name in names for suffix in (".safetensors", ".json")]
    return files or [run.dictionaries_path]


def _fingerprint(paths: list[Path]) -> str:
    """Of dictionaries as they were written: what is read from them later is compared with it."""
    digest = hashlib.sha256()
    for path in paths:
        for suffix in (".safetensors", ".json"):
            file = path.with_name(path.name + suffix)
            digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


class _Training:
    """One stage of training between its start, or its saved state, and its results."""

    def __init__(self, run: Run, stage: Stage, config: TrainDictsConfig, dataset: store.Dataset) -> None:
        self.run, self.stage, self.config, self.dataset = run, stage, config, dataset
        # A stage that resumes keeps the engine it began with: another would round differently.
        self.engine: Engine = choose_engine(
            stage.planned.get("engine", config.engine), config.device, threads=config.threads
        )
        self.sweep = plan.build_sweep(config, dataset.activation_dim, self.engine.device)
        self.normalization = plan.normalization(config, dataset)
        self.eval_rows = plan.held_out(config, dataset)
        self.train_rows = dataset.rows - self.eval_rows
        known = plan.known_steps(config, self.train_rows)
        warmup = config.warmup_steps if known is None else min(config.warmup_steps, known // 2)
        self.start = plan.start(config)
        self.schedule = Schedule(warmup, config.decay_fraction, config.l1_warmup, known)
        self.budget: Budget | None = None
        if config.minutes is not None:
            self.budget = Budget(config.minutes * 60, known, least=-(-config.min_samples // config.batch_size))
            self.schedule = replace(self.schedule, total=None)
        if "l1_until" in stage.planned:
            self._fix_l1(stage.planned["l1_from"], stage.planned["l1_until"])
        if "steps" in stage.planned:
            self._fix_total(stage.planned["steps"], stage.planned["planned_at"])
        self.interval = StepStats.zeros(len(self.sweep), self.engine.device)
        self.elapsed = 0.0
        self.state_path = run.dictionaries_path / "state.safetensors"

    @property
    def step(self) -> int:
        return self.sweep.step

    def restore(self) -> None:
        """Takes up the saved state, or begins where there is none; metrics lines after it are dropped."""
        if self.stage.resuming and self.state_path.exists():
            self.interval, self.elapsed = load_state(self.state_path, self.sweep, self.interval)
        else:
            rows = plan.start_rows(self.config, self.dataset, self.normalization) if self.start.needs_rows else None
            begin(self.sweep, self.start, rows, self.config.threads)
        if self.stage.resuming:
            self.run.rewind_metrics(KEY, self.step)

    def save(self) -> None:
        """Writes everything that the steps to come depend on, atomically."""
        save_state(self.state_path, self.sweep, self.interval, self.elapsed, position=self.position)

    @property
    def position(self) -> int:
        """Where in the stream the next batch starts: every step reads one batch."""
        return self.step * self.config.batch_size

    def train(self, *, quiet: bool) -> None:
        """Steps until the end of the schedule. Ctrl-C saves the state first."""
        if not self.stage.planned:
            self.stage.plan(engine=self.engine.name)
        B, began = self.config.batch_size, time.monotonic() - self.elapsed
        stream = store.ActivationStream(
            self.dataset,
            batch_size=B,
            seed=self.config.seed,
            stop_row=self.train_rows,
            position=self.position,
            mean=self.normalization.mean,
            scale=self.normalization.scale,
            threads=stream_threads(self.engine, self.config.threads),
        )
        batches = on_device(self.engine, stream)
        total = None if self.schedule.total is None else self.schedule.total * B
        progress = Progress(KEY, total, "rows", done=self.position, quiet=quiet)
        with Interruptible() as interrupt, stream, progress:
            while self.schedule.total is None or self.step < self.schedule.total:
                before = self.step
                self._advance(stream, batches)
                self.elapsed = time.monotonic() - began
                self._plan(progress)
                shown = self._log() if self.step % self.config.log_every == 0 or self._at_end else {}
                if self.step % self.config.save_every == 0 and not self._at_end:
                    self.save()
                if interrupt.requested:
                    self.save()
                    raise KeyboardInterrupt
                progress.advance((self.step - before) * B, **shown)

    def _advance(self, stream: store.ActivationStream, batches: Iterator[torch.Tensor]) -> None:
        """The next step; of an engine that reads the stream itself, as many as fit between two looks at everything
        else. How many they are changes no bit of the result.
        """
        if not isinstance(self.engine, CpuEngine):
            self.interval += self.engine.step(self.sweep, next(batches), *self.schedule.factors(self.step))
            return
        rate = self.step / max(self.elapsed, 1e-9)
        patience = _PATIENCE if self.budget is None else min(_PATIENCE, self.budget.seconds / 200)
        last = self.step + max(1, int(patience * rate))
        for every in (self.config.log_every, self.config.save_every):
            last = min(last, (self.step // every + 1) * every)
        if self.schedule.total is not None:
            last = min(last, self.schedule.total)
        schedule = [self.schedule.factors(step) for step in range(self.step, last)]
        self.interval = self.engine.train(self.sweep, stream, schedule, self.interval)

    @property
    def _at_end(self) -> bool:
        return self.step == self.schedule.total

    def _plan(self, progress: Progress) -> None:
        """With --minutes: fixes the number of steps once the rate is known; until then progress shows a guess."""
        if self.budget is None or self.schedule.total is not None:
            return
        if self.schedule.l1_warmup and self.schedule.l1_until is None:
            guessed = self.budget.early(self.step, self.elapsed)
            if guessed is not None:
                self._fix_l1(self.step, max(self.step, round(self.schedule.l1_warmup * guessed)))
                self.stage.plan(l1_from=self.schedule.l1_from, l1_until=self.schedule.l1_until)
        total = self.budget.total(self.step, self.elapsed)
        if total is not None:
            self._fix_total(total, self.step)
            self.stage.plan(steps=total, planned_at=self.step)
            progress.note(self.budget.extension(total, self.config.batch_size, "--min-samples"))
        guess = total or self.budget.guess(self.step, self.elapsed)
        progress.total = guess * self.config.batch_size

    def _fix_l1(self, start: int, until: int) -> None:
        self.schedule = replace(self.schedule, l1_from=start, l1_until=until)

    def _fix_total(self, total: int, planned_at: int) -> None:
        self.schedule = replace(self.schedule, total=total, planned_at=planned_at)

    def _log(self) -> dict[str, str]:
        """One metrics line per dictionary over the rows since the last; returns what to show."""
        # Deviations of the batches are those of the dataset in expectation, and cost nothing.
        per_row = self.dataset.statistics["variance"] * self.sweep.activation_dim / self.normalization.scale**2
        found = metrics.summaries(self.sweep, self.interval, per_row * self.interval.rows)
        lr_scale, l1_factor = self.schedule.factors(self.step - 1)
        for name, values in found.items():
            samples = self.step * self.config.batch_size
            self.run.log(KEY, self.step, dictionary=name, samples=samples, lr_scale=lr_scale, l1_factor=l1_factor,
                         **values)  # fmt: skip
        self.interval = StepStats.zeros(len(self.sweep), self.engine.device)
        self.sweep.fired.zero_()
        return {"FVU": _range(found, "fvu", ".3f"), "L0": _range(found, "l0", ".1f")}

    def finish(self) -> dict[str, Any]:
        """Measures on the held-out rows, writes the dictionaries and closes the stage.

        Raises:
            TrainingDiverged: no dictionary is left.
        """
        found, fired = evaluate(self.engine, self.sweep, self.dataset, self.train_rows, self.normalization)
        names, diverged = self.sweep.names, self.sweep.diverged()
        if len(diverged) == len(names):
            raise TrainingDiverged(
                f"{self.run.path}: all {len(names)} dictionaries ran into NaN; use a lower --lr, with --force"
            )
        hook = str(self.dataset.provenance.get("hook_point", ""))
        kept = [k for k in range(len(names)) if k not in diverged]
        for k in kept:
            moved = self.sweep.initial_cosine(k)
            start = self.start.record(self.sweep.sizes[k], self.sweep.activation_dim, tied=self.sweep.loss.tied)
            found[names[k]] |= metrics.motion(moved, fired[k])
            dictionary = self.sweep.dictionary(
                k,
                mean=self.normalization.mean,
                scale=self.normalization.scale,
                meta={
                    "hook_point": hook,
                    "dataset_fingerprint": self.dataset.fingerprint,
                    "samples_seen": self.position,
                    "metrics": found[names[k]],
                    "initial_cosine": {"mean": float(moved.mean()), "above_0.9": float((moved > 0.9).float().mean())},
                    "training": {"engine": self.engine.name, "steps": self.step, "batch_size": self.config.batch_size,
                                 "lr": self.sweep.lr[k], "warmup_steps": self.schedule.warmup,
                                 "decay_steps": self.schedule.decay_steps, "l1_steps": self.schedule.l1_steps,
                                 "start": start},
                },
            )  # fmt: skip
            dictionary.features = {"density": metrics.density(fired[k], self.eval_rows), "initial_cosine": moved}
            dictionary.save(self.run.dictionaries_path / names[k])
        result = {
            "dictionaries": [names[k] for k in kept],
            "fingerprint": _fingerprint([self.run.dictionaries_path / names[k] for k in kept]),
            "diverged": [names[k] for k in sorted(diverged)],
            "hook_point": hook,
            "dataset_fingerprint": self.dataset.fingerprint,
            "activation_dim": self.sweep.activation_dim,
            "samples": self.position,
            "steps": self.step,
            "engine": self.engine.name,
            "eval_rows": self.eval_rows,
            "metrics": {names[k]: found[names[k]] for k in kept},
        }
        self.stage.finish(result)
        self.state_path.unlink(missing_ok=True)
        return result


def stream_threads(engine: Engine, threads: int | None) -> int | None:
    """Threads that fetch batches; None leaves it to the stream.

    Beside an engine that keeps every core busy one is enough: it gathers a batch in a quarter of a millisecond, a step
    takes 15, and more of them would take turns with the engine's own threads.
    """
    return max(1, (threads or cores()) // 8) if isinstance(engine, CpuEngine) else threads


def evaluate(
    engine: Engine, sweep: Sweep, dataset: store.Dataset, start: int, normalization: plan.Normalization
) -> tuple[dict[str, dict[str, Any]], list[torch.Tensor]]:
    """Metrics by name over rows `start` to the end, and per dictionary the rows on which each feature fired [F].

    FVU is relative to the mean of these very rows.
    """
    sweep.fired.zero_()
    sums = StepStats.zeros(len(sweep), engine.device)
    spread: metrics.Deviations | None = None
    for first in range(start, dataset.rows, _EVAL_BATCH):
        x = dataset.read(first, min(first + _EVAL_BATCH, dataset.rows))
        x = (x if normalization.mean is None else x - normalization.mean) / normalization.scale
        own = metrics.Deviations.of(x)
        spread = own if spread is None else spread + own
        sums += engine.evaluate(sweep, x.to(engine.device))
    total = spread.total if spread is not None else 0.0
    return metrics.summaries(sweep, sums, total), sweep.per_dictionary(sweep.fired.cpu())


def _range(found: dict[str, dict[str, Any]], name: str, form: str) -> str:
    values = [row[name] for row in found.values() if row[name] is not None]
    if not values:
        return "NaN"
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}-{high}"
