"""The train-gpt stage: text in, a small transformer out."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from sparsecode import corpus
from sparsecode.corpus.text import TextSettings
from sparsecode.errors import CheckpointCorrupt, CorpusEmpty, InvalidSetting, SettingsDiffer, TrainingDiverged
from sparsecode.gpt.evaluate import bits_per_byte, sample, unigram_loss, validation_loss, validation_tokens
from sparsecode.gpt.files import gpt_fingerprint, save_gpt
from sparsecode.gpt.model import GPT, GPTConfig
from sparsecode.gpt.trainer import Trainer, TrainSettings, diverged
from sparsecode.machine import keep_freed_memory, torch_device
from sparsecode.pipeline.advice import advice, advised
from sparsecode.pipeline.config import TrainGptConfig
from sparsecode.pipeline.naming import as_recorded
from sparsecode.pipeline.progress import watching
from sparsecode.pipeline.run import DEFAULT_RUN, Run, Stage
from sparsecode.pipeline.stage import called, run_stage
from sparsecode.watch import Watch, clock

_STAGE = "train-gpt"
_MEASURE_SHARE, _MEASURE_MOST = 0.02, 4.0  # of the budget, and seconds: three minutes are fitted to some 30 steps
_SAMPLE_TOKENS = 64
_SEEDS = 1 << 64  # that torch's generators take


@advised
def train_gpt(
    run: str | Path | Run = DEFAULT_RUN,
    config: TrainGptConfig | None = None,
    *,
    force: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Builds the tokens and trains the transformer: writes `RUN/tokenizer.json`, `RUN/tokens/` and `RUN/gpt/`.

    Killed anywhere and called again with the same settings, it gives the same parameters, byte for byte (on the same
    CPU with the same number of threads: torch rounds otherwise elsewhere).

    Args:
        run: the run folder.
        config: settings; without it those of the run (`pipeline.recall`). `settings` change single ones
            (`minutes=3, text=("notes/",)`).
        force: do it again where it was done with other settings.
        quiet: no progress.

    Returns:
        {"fingerprint", "tokens_fingerprint", "val_loss", "unigram_loss" (on the same tokens, of the training tokens'
        frequencies: a model above it has learned no context), "bits_per_byte", "train_loss", "steps", "tokens_seen",
        "parameters", "val_tokens" (read for val_loss), "sample"}; losses are in nats per token, `train_loss` is the
        mean over the last two logged intervals.

    Raises:
        InvalidSetting, SettingsDiffer, RunLocked, CorpusEmpty, TrainingDiverged: see `sparsecode.errors`.
    """
    home, chosen = called(run, TrainGptConfig, config, settings)
    _check(chosen)
    needs = [home.gpt_path / name for name in ("model.safetensors", "config.json")]
    needs += [home.tokenizer_path, home.tokens_path / "tokens.json"]
    state = home.gpt_path / "state.safetensors"

    def do(stage: Stage) -> dict[str, Any]:
        watch = watching(quiet)
        tokens = corpus.prepare_tokens(home, chosen.part(TextSettings), watch=watch)
        with (
            advice("try a smaller --lr, with --force", TrainingDiverged),
            advice("start anew with --force", CheckpointCorrupt),
        ):
            return _Pretraining(home, chosen, stage, tokens, state, watch).run_all()

    named = as_recorded(home, _STAGE, chosen)
    return run_stage(
        home, _STAGE, named, do, outputs=[home.gpt_path], needs=needs, state=state, force=force, quiet=quiet
    )


def _check(config: TrainGptConfig) -> None:
    """Refuses sizes that cannot be trained, before any text is read. Raises InvalidSetting."""
    positive = ("steps", "batch_size", "lr", "grad_clip", "val_tokens", "log_every", "save_every", "val_every")
    wrong = [name for name in positive if not getattr(config, name) > 0]
    if config.minutes is not None and not config.minutes > 0:
        wrong.append("minutes")
    if wrong:
        raise InvalidSetting(
            f"train-gpt: --{wrong[0].replace('_', '-')} must be above 0, not {getattr(config, wrong[0])}"
        )
    for name in ("beta1", "beta2"):
        if not getattr(config, name) < 1:
            raise InvalidSetting(f"train-gpt: --{name} must be below 1, not {getattr(config, name)}")
    if config.seed >= _SEEDS:
        raise InvalidSetting(f"train-gpt: --seed must be below 2^64, not {config.seed}")
    _sizes(config, config.vocab_size)


def _sizes(config: TrainGptConfig, vocab_size: int) -> GPTConfig:
    hidden = 4 * config.d_model if config.d_mlp is None else config.d_mlp
    return config.changed(vocab_size=vocab_size, d_mlp=hidden).part(GPTConfig)


def fitted_steps(seconds: float, per_step: float, most: int, least: int = 0) -> int:
    """How many steps of `per_step` seconds to do: as many as fit, at least `least` however long that takes, at most
    `most` whatever fits, and one in any case.
    """
    return max(1, min(most, max(least, int(seconds / per_step))))


class _Pretraining:
    """One call of the stage, from the last saved state to the finished model."""

    def __init__(
        self, run: Run, config: TrainGptConfig, stage: Stage, tokens: corpus.Tokens, state: Path, watch: Watch
    ) -> None:
        if len(tokens.train) <= config.context + 1 or len(tokens.val) < 2:
            raise CorpusEmpty(
                f"{run.tokens_path}: {len(tokens.train)} training and {len(tokens.val)} validation tokens are too few "
                f"for a context of {config.context}; give more text with --text"
            )
        self.run, self.config, self.stage, self.tokens, self.watch = run, config, stage, tokens, watch
        keep_freed_memory()
        model = GPT(_sizes(config, tokens.vocab_size), seed=config.seed).to(torch_device(config.device))
        self.trainer = Trainer(model, config.part(TrainSettings))
        self.state_path = state
        self.loss_sum, self.loss_count = 0.0, 0  # since the last metrics line

    def run_all(self) -> dict[str, Any]:
        """Resumes or starts, trains to the end, saves and records the model."""
        if self.state_path.exists():
            self._resume()
        steps = self._steps()
        self.run.rewind_metrics(_STAGE, self.trainer.step)
        self._train(steps)
        model = self.trainer.model.eval()
        save_gpt(model, self.run.gpt_path)
        return self._result(steps)

    def _resume(self) -> None:
        metadata = self.trainer.load(self.state_path)
        if metadata["tokens_fingerprint"] != self.tokens.fingerprint:
            raise SettingsDiffer(
                f"{self.run.path}: the text has changed since this training began; add --force to begin anew, "
                "or choose another run with --run"
            )
        self.loss_sum, self.loss_count = metadata["loss_sum"], metadata["loss_count"]
        self.watch.note(f"train-gpt: resuming after step {self.trainer.step}")

    def _steps(self) -> int:
        """The number of steps: as set, or what fits into --minutes at the rate measured when the training began."""
        if "steps" not in self.stage.planned:
            steps = self.config.steps if self.config.minutes is None else self._fit(60 * self.config.minutes)
            self.stage.plan(steps=steps)
        return int(self.stage.planned["steps"])

    def _fit(self, budget: float) -> int:
        start = time.perf_counter()
        per_step = self.trainer.seconds_per_step(self.tokens.train, min(_MEASURE_SHARE * budget, _MEASURE_MOST))
        evaluating = time.perf_counter()
        self._evaluate()
        evaluation = time.perf_counter() - evaluating
        left = budget - (time.perf_counter() - start)
        per_step += evaluation / self.config.val_every
        least = -(-self.config.min_tokens // self._tokens_per_step)
        fits = fitted_steps(left - evaluation, per_step, self.config.steps)
        steps = fitted_steps(left - evaluation, per_step, self.config.steps, least)
        whole = clock(steps * per_step)
        why = f" (--min-tokens; --minutes {self.config.minutes:.3g} would end after {fits})" if steps > fits else ""
        self.watch.note(f"train-gpt: {1000 * per_step:.0f} ms a step here; planned {steps} steps, about {whole}{why}")
        return steps

    def _train(self, steps: int) -> None:
        config, trainer = self.config, self.trainer
        per_step = self._tokens_per_step
        done = trainer.step * per_step
        with self.watch.task(_STAGE, steps * per_step, "tokens", done=done) as progress:
            while trainer.step < steps:
                self.loss_sum += trainer.train_step(self.tokens.train, steps).item()
                self.loss_count += 1
                last = trainer.step == steps
                logged = last or trainer.step % config.log_every == 0
                if logged:
                    self._log_training(steps)
                if last or trainer.step % config.val_every == 0:
                    self._log_validation()
                if last or trainer.step % config.save_every == 0:
                    self._save()
                progress.advance(per_step, **({"loss": f"{self.train_loss:.3f}"} if logged else {}))

    def _log_training(self, steps: int) -> None:
        self.train_loss = self.loss_sum / self.loss_count
        if not math.isfinite(self.train_loss):
            raise diverged(self.run.path, self.trainer.step)
        seen = self.trainer.step * self._tokens_per_step
        self.run.log(_STAGE, self.trainer.step, steps=steps, loss=self.train_loss, of=self.loss_count, tokens_seen=seen)
        self.loss_sum, self.loss_count = 0.0, 0

    def _log_validation(self) -> None:
        loss, bits = self._evaluate()
        ids = sample(self.trainer.model, self.tokens.eot, _SAMPLE_TOKENS, seed=self.config.seed)
        text = self.tokens.decode(ids)
        self.run.log(_STAGE, self.trainer.step, val_loss=loss, bits_per_byte=bits, sample=text)

    def _evaluate(self) -> tuple[float, float]:
        tokens, config = self.tokens, self.config
        loss = validation_loss(self.trainer.model, tokens.val, config.val_tokens, config.batch_size)
        return loss, bits_per_byte(loss, len(tokens.val), tokens.val_bytes)

    def _save(self) -> None:
        sums = {"loss_sum": self.loss_sum, "loss_count": self.loss_count}
        self.trainer.save(self.state_path, {"tokens_fingerprint": self.tokens.fingerprint} | sums)

    @property
    def _tokens_per_step(self) -> int:
        return self.config.batch_size * self.config.context

    def _result(self, steps: int) -> dict[str, Any]:
        lines, tokens, config = self.run.metrics(_STAGE), self.tokens, self.config
        final = next(line for line in reversed(lines) if "val_loss" in line)
        recent = [line for line in lines if "loss" in line][-2:]  # two: the last one may be of a few steps only
        return {
            "fingerprint": gpt_fingerprint(self.trainer.model),
            "tokens_fingerprint": tokens.fingerprint,
            "val_loss": final["val_loss"],
            "unigram_loss": unigram_loss(
                tokens.train, tokens.val, tokens.vocab_size, config.context, config.val_tokens
            ),
            "bits_per_byte": final["bits_per_byte"],
            "train_loss": sum(line["loss"] * line["of"] for line in recent) / sum(line["of"] for line in recent),
            "steps": steps,
            "tokens_seen": steps * self._tokens_per_step,
            "parameters": sum(p.numel() for p in self.trainer.model.parameters()),
            "val_tokens": validation_tokens(len(tokens.val), config.context, config.val_tokens),
            "sample": final["sample"],
        }
