"""Trains a sweep on toy data that are made while it trains, resumable at every step.

Shape letters: B rows of a batch, D dimensions, N features of all dictionaries, K dictionaries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from sparsecode.config import ToyConfig
from sparsecode.progress import Progress
from sparsecode.run import Run, Stage
from sparsecode.science import toy_plan
from sparsecode.science.toy import ToyData
from sparsecode.sweep import Engine, StepStats, begin, choose_engine, metrics
from sparsecode.sweep.engines import on_device
from sparsecode.sweep.interrupt import Interruptible
from sparsecode.sweep.schedule import Budget, Schedule
from sparsecode.sweep.start import SAMPLE_ROWS
from sparsecode.sweep.state import load_state, save_state

KEY = "toy"
_FRESH = 1 << 40  # number of the first batch of the evaluation: training never comes there


class ToyTraining:
    """The sweep between its start, or its saved state, and its last step.

    Attributes:
        data: the generator.
        sweep: trained in place.
        engine: what trains it.
        eval_x: [rows, D] rows that training never sees.
        eval_codes: [rows, G] their true codes.
    """

    def __init__(self, run: Run, stage: Stage, config: ToyConfig) -> None:
        self.run, self.stage, self.config = run, stage, config
        # A stage that resumes keeps the engine it began with: another would round differently.
        name = stage.planned.get("engine", config.engine)
        self.engine: Engine = choose_engine(name, config.device, threads=config.threads)
        self.sweep = toy_plan.build_sweep(config, self.engine.device)
        self.data = ToyData(toy_plan.data_settings(config))
        draws = range(_FRESH, _FRESH - (-config.eval_rows // config.draw_rows))
        self.eval_codes = torch.cat([self.data.codes(draw) for draw in draws])[: config.eval_rows]
        self.eval_x = torch.cat([self.data.batch(draw) for draw in draws])[: config.eval_rows]
        self.spread = metrics.Deviations.of(self.eval_x).total
        known = config.steps if config.minutes is None else None
        warmup = config.warmup_steps if known is None else min(config.warmup_steps, known // 2)
        self.schedule = Schedule(warmup, config.decay_fraction, config.l1_warmup, known)
        self.budget = None if config.minutes is None else Budget(config.minutes * 60, config.steps, config.min_steps)
        if "l1_until" in stage.planned:
            self._fix_l1(stage.planned["l1_from"], stage.planned["l1_until"])
        if "steps" in stage.planned:
            self._fix_total(stage.planned["steps"], stage.planned["planned_at"])
        self.interval = StepStats.zeros(len(self.sweep), self.engine.device)
        self.elapsed = 0.0
        self.state_path = run.path / KEY / "state.safetensors"

    def restore(self) -> None:
        """Takes up the saved state, or begins where there is none; metrics lines after it are dropped."""
        if self.stage.resuming and self.state_path.exists():
            self.interval, self.elapsed = load_state(self.state_path, self.sweep, self.interval)
        else:
            start = toy_plan.start(self.config)
            begin(self.sweep, start, self._start_rows() if start.needs_rows else None, self.config.threads)
        if self.stage.resuming:
            self.run.rewind_metrics(KEY, self.sweep.step)

    def save(self) -> None:
        """Writes everything that the steps to come depend on, atomically."""
        save_state(self.state_path, self.sweep, self.interval, self.elapsed)

    def train(self, *, quiet: bool) -> None:
        """Steps until the end of the schedule. Ctrl-C saves the state first."""
        if not self.stage.planned:
            self.stage.plan(engine=self.engine.name)
        B, began = self.config.batch_size, time.monotonic() - self.elapsed
        total = None if self.schedule.total is None else self.schedule.total * B
        progress = Progress(KEY, total, "rows", done=self.sweep.step * B, quiet=quiet)
        with Interruptible() as interrupt, progress:
            batches = on_device(self.engine, self._batches())
            while not self._at_end:
                self.interval += self.engine.step(self.sweep, next(batches), *self.schedule.factors(self.sweep.step))
                self.elapsed = time.monotonic() - began
                self._plan(progress)
                step = self.sweep.step
                shown = self._log() if step % self.config.log_every == 0 or self._at_end else {}
                if step % self.config.save_every == 0 and not self._at_end:
                    self.save()
                if interrupt.requested:
                    self.save()
                    raise KeyboardInterrupt
                progress.advance(B, **shown)

    def _start_rows(self) -> Tensor:
        """The rows [R, D] that a start looks at: the first ones that training sees."""
        draws = range(-(-SAMPLE_ROWS // self.config.draw_rows))
        return torch.cat([self.data.batch(draw) for draw in draws])[:SAMPLE_ROWS]

    def evaluate(self) -> tuple[StepStats, list[Tensor]]:
        """Sums over the fresh rows, and per dictionary the rows on which each feature fired."""
        self.sweep.fired.zero_()
        sums = StepStats.zeros(len(self.sweep), self.engine.device)
        for x in torch.split(self.eval_x, self.config.batch_size):
            sums += self.engine.evaluate(self.sweep, x.contiguous().to(self.engine.device))
        return sums, self.sweep.per_dictionary(self.sweep.fired.cpu())

    @property
    def _at_end(self) -> bool:
        return self.schedule.total is not None and self.sweep.step >= self.schedule.total

    def _batches(self) -> Iterator[Tensor]:
        """Batches [B, D] from where training stands, the next one made while the engine works on this."""
        draws = self.config.batch_size // self.config.draw_rows

        def make(step: int) -> Tensor:
            return torch.cat([self.data.batch(step * draws + i) for i in range(draws)])

        with ThreadPoolExecutor(max_workers=1) as pool:
            step = self.sweep.step
            ahead = pool.submit(make, step)
            while True:
                step += 1
                ready, ahead = ahead, pool.submit(make, step)
                yield ready.result()

    def _plan(self, progress: Progress) -> None:
        """With --minutes: fixes the number of steps once the rate is known; until then progress shows a guess."""
        if self.budget is None or self.schedule.total is not None:
            return
        step = self.sweep.step
        if self.schedule.l1_warmup and self.schedule.l1_until is None:
            guessed = self.budget.early(step, self.elapsed)
            if guessed is not None:
                self._fix_l1(step, max(step, round(self.schedule.l1_warmup * guessed)))
                self.stage.plan(l1_from=self.schedule.l1_from, l1_until=self.schedule.l1_until)
        total = self.budget.total(step, self.elapsed)
        if total is not None:
            self._fix_total(total, step)
            self.stage.plan(steps=total, planned_at=step)
            progress.note(self.budget.extension(total, self.config.batch_size, "--min-steps"))
        guess = total or self.budget.guess(step, self.elapsed)
        progress.total = guess * self.config.batch_size

    def _fix_l1(self, start: int, until: int) -> None:
        self.schedule = replace(self.schedule, l1_from=start, l1_until=until)

    def _fix_total(self, total: int, planned_at: int) -> None:
        self.schedule = replace(self.schedule, total=total, planned_at=planned_at)

    def _log(self) -> dict[str, str]:
        """One metrics line per dictionary over the rows since the last; returns what to show."""
        deviations = self.spread * self.interval.rows / len(self.eval_x)  # those of fresh rows, in expectation
        found = metrics.summaries(self.sweep, self.interval, deviations)
        step = self.sweep.step
        for name, values in found.items():
            self.run.log(KEY, step, dictionary=name, samples=step * self.config.batch_size,
                         lr_scale=self.schedule.lr_scale(step - 1), l1_factor=self.schedule.l1_factor(step - 1),
                         **values)  # fmt: skip
        self.interval = StepStats.zeros(len(self.sweep), self.engine.device)
        self.sweep.fired.zero_()
        best = min((row["fvu"] for row in found.values() if row["fvu"] is not None), default=float("nan"))
        return {"lowest FVU": f"{best:.3f}"}
