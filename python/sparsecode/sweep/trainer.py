"""The one training loop: a sweep, batches, a schedule and an engine; resumable at every step.

Shape letters: B rows of a batch, D activation dimension, F features of one dictionary, K dictionaries.
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.errors import DatasetUnfit
from sparsecode.sweep import metrics
from sparsecode.sweep.batches import Batches
from sparsecode.sweep.engines import Engine, StepStats
from sparsecode.sweep.interrupt import Interruptible
from sparsecode.sweep.normalization import Normalization
from sparsecode.sweep.schedule import Budget, Schedule
from sparsecode.sweep.start import SAMPLE_ROWS, Start, begin
from sparsecode.sweep.state import load_state, save_state
from sparsecode.sweep.sweep import Sweep
from sparsecode.watch import UNWATCHED, Task, Watch
from sparsecode.world import ALONE, World

EVAL_BATCH = 4096  # rows per forward pass of the final metrics
PATIENCE = 0.25  # seconds that an engine trains on before progress is shown and Ctrl-C is answered
PULSE = 2.0  # ... where several processes must come together for that


class Trainer:
    """A training between its start, or its saved state, and its last step.

    Args:
        sweep: trained in place.
        batches: what it is trained on.
        schedule: of the learning rate and of L1; its `total` is None where `budget` decides.
        engine: what trains it.
        watch: is told of progress, of decisions that a resumed training must keep, and of measurements.
        start: how the dictionaries begin.
        budget: fits the number of steps to a time.
        deviations: squared deviations from their mean of so many rows, in expectation; None: nothing is measured
            between the start and the end.
        state: the file that a killed training goes on from; None: there is none.
        label: the work's name, for progress.
        log_every, save_every: steps between measurements, and between saved states.
        threads: of everything beside the engine; None: as fits.
        world: the processes that train a sweep together, each the dictionaries of its own `sweep` on the same batches;
            rank 0 alone tells `watch` of what was measured.
        names: of the dictionaries of all of them, in the order in which these are told; None: those of `sweep`.

    Attributes:
        interval: sums over the rows since the last measurement.
        elapsed: seconds of training so far, those before an interruption included.
    """

    def __init__(
        self,
        sweep: Sweep,
        batches: Batches,
        schedule: Schedule,
        engine: Engine,
        watch: Watch = UNWATCHED,
        *,
        start: Start,
        budget: Budget | None = None,
        deviations: Callable[[int], float] | None = None,
        state: Path | None = None,
        label: str = "train",
        log_every: int = 100,
        save_every: int = 1000,
        threads: int | None = None,
        world: World = ALONE,
        names: Sequence[str] | None = None,
    ) -> None:
        self.world, self.names = world, list(names or sweep.names)
        self.sweep, self.batches, self.schedule, self.engine, self.watch = sweep, batches, schedule, engine, watch
        self.start, self.budget, self.deviations, self.state, self.label = start, budget, deviations, state, label
        self.log_every, self.save_every, self.threads = log_every, save_every, threads
        self.interval = StepStats.zeros(len(sweep), engine.device)
        self.elapsed = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return self.sweep.step

    @property
    def samples(self) -> int:
        """Rows trained on: every step reads one batch."""
        return self.step * self.batches.size

    @property
    def at_end(self) -> bool:
        """Whether the last step was done."""
        return self.schedule.total is not None and self.step >= self.schedule.total

    def begin(self) -> None:
        """Sets encoders and biases of dictionaries that were not trained yet."""
        rows = self.batches.sample(SAMPLE_ROWS) if self.start.needs_rows(self.sweep) else None
        begin(self.sweep, self.start, rows, self.threads)

    def restore(self) -> bool:
        """Takes up the saved state; False where there is none.

        Raises:
            CheckpointCorrupt: the file is not that of this training.
        """
        if self.state is None or not self.state.exists():
            return False
        self.interval, self.elapsed = load_state(self.state, self.sweep, self.interval)
        return True

    def save(self) -> None:
        """Writes everything that the steps to come depend on, atomically."""
        if self.state is not None:
            save_state(self.state, self.sweep, self.interval, self.elapsed, self.world, position=self.samples)

    def train(self) -> None:
        """Steps until the end of the schedule. Ctrl-C or SIGTERM, of any process, saves the state first.

        Raises:
            DatasetUnfit: the batches ended before.
            RankLost: another process ended.
        """
        B, began = self.batches.size, time.monotonic() - self.elapsed
        if self.schedule.total is not None:
            self.sweep.state.plan(self.schedule.total, self.schedule.planned_at)
        total = None if self.schedule.total is None else self.schedule.total * B
        threads = self.engine.reading_threads(self.threads)
        with (
            Interruptible() as interrupt,
            self.batches.begin(self.step, threads) as rows,
            self.watch.task(self.label, total, "rows", done=self.samples) as progress,
        ):
            batches = self.engine.feed(rows)
            while not self.at_end:
                before = self.step
                self._advance(batches)
                # All processes take the same steps: what they depend on beside the settings is one clock.
                self.elapsed, stop = self.world.agree((time.monotonic() - began, interrupt.requested), _latest)
                self._plan(progress)
                shown = self._measure() if self.step % self.log_every == 0 or self.at_end else {}
                if self.step % self.save_every == 0 and not self.at_end:
                    self.save()
                if stop:
                    self.save()
                    raise interrupt.error(stop)
                progress.advance((self.step - before) * B, **shown)

    def _advance(self, batches: Iterator[Tensor]) -> None:
        """Takes the steps that fit between two looks at everything else; their number never changes the result."""
        rate = self.step / max(self.elapsed, 1e-9)
        patience = PATIENCE if self.world.size == 1 else PULSE
        if self.budget is not None:
            patience = min(patience, self.budget.seconds / 200)
        last = self.step + max(1, int(patience * rate))
        for every in (self.log_every, self.save_every):
            last = min(last, (self.step // every + 1) * every)
        if self.schedule.total is not None:
            last = min(last, self.schedule.total)
        factors = [self.schedule.factors(step) for step in range(self.step, last)]
        try:
            self.interval = self.engine.train(self.sweep, batches, factors, self.interval)
        except StopIteration:
            raise DatasetUnfit(f"the batches ended after {self.samples} rows, before the training did") from None

    def _plan(self, progress: Task) -> None:
        """Within a budget: fixes the number of steps once the rate is known; until then progress shows a guess."""
        if self.budget is None or self.schedule.total is not None:
            return
        if self.schedule.l1_warmup and self.schedule.l1_until is None:
            guessed = self.budget.early(self.step, self.elapsed)
            if guessed is not None:
                until = max(self.step, round(self.schedule.l1_warmup * guessed))
                self.schedule = replace(self.schedule, l1_from=self.step, l1_until=until)
                self.watch.planned(l1_from=self.step, l1_until=until)
        total = self.budget.total(self.step, self.elapsed)
        if total is not None:
            self.schedule = replace(self.schedule, total=total, planned_at=self.step)
            self.watch.planned(steps=total, planned_at=self.step)
            self.sweep.state.plan(total, self.step)
            if (extended := self.budget.extension(total, self.batches.size)) is not None:
                progress.note(extended)
        progress.total = (total or self.budget.guess(self.step, self.elapsed)) * self.batches.size

    def _measure(self) -> dict[str, str]:
        """Tells of every dictionary over the rows since the last time; returns what to show."""
        if self.deviations is None:
            return {}
        found = metrics.summaries(self.sweep, self.interval, self.deviations(self.interval.rows))
        found = self.gathered(found)
        lr_scale, l1_factor = self.schedule.factors(self.step - 1)
        for name, values in found.items() if self.world.rank == 0 else ():
            self.watch.measured(
                self.step, dictionary=name, samples=self.samples, lr_scale=lr_scale, l1_factor=l1_factor, **values
            )
        self.interval = StepStats.zeros(len(self.sweep), self.engine.device)
        self.sweep.fired.zero_()
        return {"FVU": _range(found, "fvu", ".3f"), "L0": _range(found, "l0", ".1f")}

    def gathered(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What all processes found by the names of dictionaries, in the order of these; JSON values."""

        def joined(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            every = ChainMap(*map(dict, said))
            return {name: every[name] for name in self.names if name in every}

        return dict(self.world.agree(dict(found), joined))

    def finished(
        self,
        found: Mapping[str, dict[str, Any]],
        fired: list[Tensor],
        rows: int,
        normalization: Normalization,
        about: Mapping[str, Any],
    ) -> Iterator[tuple[str, Dictionary]]:
        """The trained dictionaries by name, those that ran into NaN left out.

        Args:
            found, fired: what `evaluate` says of them; how far they moved is added to `found`.
            rows: over how many rows.
            normalization: of the data.
            about: what their files say first.
        """
        sweep, diverged = self.sweep, self.sweep.diverged()
        for k, name in enumerate(sweep.names):
            if k in diverged:
                continue
            moved = sweep.initial_cosine(k)
            found[name].update(metrics.motion(moved, fired[k]))
            training = {
                "engine": self.engine.name, "steps": self.step, "batch_size": self.batches.size, "lr": sweep.lr[k],
                "warmup_steps": self.schedule.warmup, "decay_steps": self.schedule.decay_steps,
                "l1_steps": self.schedule.l1_steps,
                "start": self.start.record(sweep, k),
            }  # fmt: skip
            meta = dict(about) | {
                "samples_seen": self.samples,
                "metrics": found[name],
                "initial_cosine": {"mean": float(moved.mean()), "above_0.9": float((moved > 0.9).float().mean())},
                "training": training,
            }
            dictionary = sweep.dictionary(k, mean=normalization.mean, scale=normalization.scale, meta=meta)
            dictionary.features = {"density": metrics.density(fired[k], rows), "initial_cosine": moved}
            yield name, dictionary


def evaluate(
    engine: Engine, sweep: Sweep, chunks: Iterable[Tensor], deviations: float | None = None
) -> tuple[dict[str, dict[str, Any]], list[Tensor]]:
    """Metrics by name over rows in chunks [B, D], and per dictionary the rows on which each feature fired [F].

    FVU is relative to the mean of these very rows; `deviations` are their squared deviations from it, where known.
    """
    sweep.fired.zero_()
    sums = StepStats.zeros(len(sweep), engine.device)
    spread: metrics.Deviations | None = None
    for x in chunks:
        if deviations is None:
            own = metrics.Deviations.of(x)
            spread = own if spread is None else spread + own
        sums += engine.evaluate(sweep, x.to(engine.device))
    total = deviations if deviations is not None else spread.total if spread is not None else 0.0
    return metrics.summaries(sweep, sums, total), [sweep.whole(own) for own in sweep.per_dictionary(sweep.fired.cpu())]


def _latest(said: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """The last of clocks, and the largest of signals."""
    clocks, signals = zip(*said, strict=True)
    return max(clocks), max(signals)


def _range(found: Mapping[str, dict[str, Any]], name: str, form: str) -> str:
    values = [row[name] for row in found.values() if row[name] is not None]
    if not values:
        return "NaN"
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}-{high}"
