"""Training: resumable byte for byte, planned from minutes, validated over all held-out documents."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_gpt
from sparsecode import corpus
from sparsecode.errors import CheckpointCorrupt, CorpusEmpty, InvalidSetting, SettingsDiffer, TrainingDiverged
from sparsecode.gpt import GPT, GPTConfig, gpt_fingerprint, load_gpt
from sparsecode.gpt.batches import contexts, training_starts, validation_starts
from sparsecode.gpt.evaluate import bits_per_byte, sample, validation_loss
from sparsecode.gpt.trainer import Trainer, TrainSettings, learning_rate
from sparsecode.pipeline import train_gpt as stage
from sparsecode.pipeline.config import TrainGptConfig
from sparsecode.pipeline.run import Run
from sparsecode.pipeline.train_gpt import train_gpt
from tiny_gpt import TINY, VOCAB, StubTokens, walk


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> StubTokens:
    stub = StubTokens()
    monkeypatch.setattr(corpus, "prepare_tokens", lambda home, settings, *, watch: stub, raising=False)
    return stub


def parameters(run: Path) -> bytes:
    return (run / "gpt" / "model.safetensors").read_bytes()


def test_training_learns_and_records_what_it_did(tmp_path: Path, tokens: StubTokens) -> None:
    result = train_gpt(tmp_path, quiet=True, lr=1e-2, **TINY | {"steps": 200})
    assert result["val_loss"] < math.log(VOCAB) - 1  # log 3 is the best that can be done
    assert result["bits_per_byte"] == pytest.approx(result["val_loss"] / math.log(2) * 700 / 2100)
    assert result["steps"] == 200
    assert result["tokens_seen"] == 200 * 4 * 16
    assert result["val_tokens"] == 320
    assert result["tokens_fingerprint"] == "stub"
    model = load_gpt(tmp_path / "gpt")
    assert gpt_fingerprint(model) == result["fingerprint"]
    assert validation_loss(model, tokens.val, 320, 4) == result["val_loss"]
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    assert not (tmp_path / "gpt" / "state.safetensors").exists()
    lines = Run(tmp_path).metrics("train-gpt")
    assert [line["step"] for line in lines if "loss" in line] == [*range(7, 200, 7), 200]
    assert [line["step"] for line in lines if "val_loss" in line] == [*range(15, 200, 15), 200]
    assert len(lines[-1]["sample"].split()) == 64
    assert train_gpt(tmp_path, quiet=True, lr=1e-2, **TINY | {"steps": 200}) == result


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 10, 11, 29, 40])
def test_a_training_that_was_stopped_gives_the_same_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    train_gpt(tmp_path / "whole", quiet=True, **TINY)
    step = Trainer.train_step

    def dies(self: Trainer, *args: Any) -> torch.Tensor:
        loss = step(self, *args)
        if self.step == at:
            raise KilledError
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", dies)
        with pytest.raises(KilledError):
            train_gpt(tmp_path / "broken", quiet=True, **TINY)
    result = train_gpt(tmp_path / "broken", quiet=True, **TINY)
    assert parameters(tmp_path / "broken") == parameters(tmp_path / "whole")
    whole = Run(tmp_path / "whole")
    assert result == whole.finished("train-gpt", "")
    assert Run(tmp_path / "broken").metrics() == whole.metrics()


def test_a_stop_between_the_last_step_and_the_end_resumes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_gpt", dies)
        with pytest.raises(KilledError):
            train_gpt(tmp_path / "broken", quiet=True, **TINY)
    train_gpt(tmp_path / "broken", quiet=True, **TINY)
    train_gpt(tmp_path / "whole", quiet=True, **TINY)
    assert parameters(tmp_path / "broken") == parameters(tmp_path / "whole")
    assert Run(tmp_path / "broken").metrics() == Run(tmp_path / "whole").metrics()


def test_a_killed_process_resumes(tmp_path: Path) -> None:
    settings = TINY | {"steps": 400}
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sparsecode import corpus\nfrom sparsecode.pipeline.train_gpt import train_gpt\nimport tiny_gpt\n"
        "corpus.prepare_tokens = lambda home, settings, *, watch: tiny_gpt.StubTokens()\n"
        "train_gpt(sys.argv[2], quiet=True, **tiny_gpt.TINY | {'steps': 400})\n"
    )
    support = str(Path(tiny_gpt.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", program, support, str(tmp_path / "killed")], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    state = tmp_path / "killed" / "gpt" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    assert Run(tmp_path / "killed").config()["stages"]["train-gpt"]["status"] == "running"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_gpt(tmp_path / "killed", quiet=True, **settings)
        train_gpt(tmp_path / "whole", quiet=True, **settings)
    finally:
        torch.set_num_threads(threads)
    assert parameters(tmp_path / "killed") == parameters(tmp_path / "whole")


def test_minutes_plan_the_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self, tokens, seconds: 0.5)
    settings = TINY | {"minutes": 0.1, "steps": 10**6}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            train_gpt(tmp_path, quiet=True, **settings)
    planned = Run(tmp_path).config()["stages"]["train-gpt"]["plan"]["steps"]
    assert 1 <= planned <= 12  # 6 s at 0.5 s a step, less what validation takes: on a busy machine nearly all of it
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda self, tokens, seconds: 1e-9)  # would plan more now
    assert train_gpt(tmp_path, quiet=True, **settings)["steps"] == planned
    train_gpt(tmp_path / "same", quiet=True, **TINY | {"steps": planned})
    assert parameters(tmp_path) == parameters(tmp_path / "same")


def test_steps_bound_what_minutes_allow(tmp_path: Path) -> None:
    assert train_gpt(tmp_path, quiet=True, **TINY | {"minutes": 5.0, "steps": 3})["steps"] == 3


def test_measuring_the_rate_changes_nothing(tokens: StubTokens) -> None:
    trainer = Trainer(
        GPT(GPTConfig(vocab_size=VOCAB, n_layer=1, context=16)), TrainGptConfig(batch_size=2).part(TrainSettings)
    )
    before = gpt_fingerprint(trainer.model)
    assert trainer.seconds_per_step(tokens.train, 0.01) > 0
    assert gpt_fingerprint(trainer.model) == before
    assert trainer.step == 0
    assert not trainer.optimizer.state


def test_other_settings_or_another_text_do_not_resume(
    tmp_path: Path, tokens: StubTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_gpt", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            train_gpt(tmp_path, quiet=True, **TINY)
    with pytest.raises(SettingsDiffer, match=r"lr 0.006, not 0.1"):
        train_gpt(tmp_path, quiet=True, **TINY | {"lr": 0.1})
    tokens.fingerprint = "another"
    with pytest.raises(SettingsDiffer, match="the text has changed"):
        train_gpt(tmp_path, quiet=True, **TINY)
    assert train_gpt(tmp_path, quiet=True, force=True, **TINY)["tokens_fingerprint"] == "another"


def test_a_broken_state_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_gpt", lambda *_: (_ for _ in ()).throw(KilledError()))
        with pytest.raises(KilledError):
            train_gpt(tmp_path, quiet=True, **TINY)
    state = tmp_path / "gpt" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(CheckpointCorrupt, match=r"state\.safetensors"):
        train_gpt(tmp_path, quiet=True, **TINY)


def test_divergence_is_named_and_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.train_step

    def explodes(self: Trainer, *args: Any) -> torch.Tensor:
        loss = step(self, *args)
        if self.step == 12:
            self.model.wte.weight.data[0, 0] = math.nan
        return loss

    monkeypatch.setattr(Trainer, "train_step", explodes)
    with pytest.raises(TrainingDiverged, match="before step 14"):
        train_gpt(tmp_path, quiet=True, **TINY)
    monkeypatch.setattr(Trainer, "train_step", step)
    train_gpt(tmp_path, quiet=True, **TINY)


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"lr": -1.0}, {"minutes": 0.0}, {"n_head": 3}, {"val_every": 0}, {"beta1": 1.0}, {"beta2": 2.0},
     {"seed": 1 << 64}],
)  # fmt: skip
def test_impossible_settings_are_refused_before_any_work(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        train_gpt(tmp_path, quiet=True, **TINY | change)
    assert not (tmp_path / "config.json").exists()


def test_too_little_text_is_named(tmp_path: Path, tokens: StubTokens) -> None:
    tokens.train = tokens.train[:10]
    with pytest.raises(CorpusEmpty, match="10 training and 700 validation tokens"):
        train_gpt(tmp_path, quiet=True, **TINY)


def test_batches_are_functions_of_seed_and_step() -> None:
    starts = training_starts(1000, 16, 4, seed=1, step=2)
    assert starts.tolist() == [636, 886, 812, 840]  # pinned: a change would make resumed trainings differ
    assert starts.tolist() == training_starts(1000, 16, 4, seed=1, step=2).tolist()
    assert starts.tolist() != training_starts(1000, 16, 4, seed=1, step=3).tolist()
    assert starts.tolist() != training_starts(1000, 16, 4, seed=2, step=2).tolist()
    many = training_starts(18, 16, 500, seed=0, step=0)
    assert set(many.tolist()) == {0, 1}  # the last target of start 1 is the last token


def test_targets_are_the_inputs_one_place_later() -> None:
    idx, targets = contexts(np.arange(100, dtype=np.uint16), np.array([0, 90]), 9)
    assert idx.tolist() == [list(range(9)), list(range(90, 99))]
    assert targets.tolist() == [list(range(1, 10)), list(range(91, 100))]


@pytest.mark.parametrize("n_tokens, wanted", [(100_000, 20_000), (1000, 10**9), (17, 16), (40, 32), (100_000, 1)])
def test_validation_is_spread_over_all_held_out_text(n_tokens: int, wanted: int) -> None:
    starts = validation_starts(n_tokens, 16, wanted)
    assert len(starts) == max(1, min(wanted // 16, (n_tokens - 1) // 16))
    assert (starts[0], starts[-1]) == (0, n_tokens - 17 if len(starts) > 1 else 0)
    assert (np.diff(starts) >= 16).all()
    assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else True


def test_validation_sees_a_change_at_the_end_of_the_text() -> None:
    model = GPT(GPTConfig(vocab_size=VOCAB, n_layer=1, d_model=8, n_head=2, context=16))
    val = walk(20_000, 2)
    changed = val.copy()
    changed[-1000:] = 0
    assert validation_loss(model, val, 4000, 4) != validation_loss(model, changed, 4000, 4)


def test_validation_does_not_depend_on_the_batch() -> None:
    model = GPT(GPTConfig(vocab_size=VOCAB, n_layer=1, d_model=8, n_head=2, context=16))
    losses = [validation_loss(model, walk(700, 2), 400, batch) for batch in (1, 7, 100)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_bits_per_byte() -> None:
    # 3 tokens of ln 4 nats each are 6 bits, for 2 bytes.
    assert bits_per_byte(math.log(4), 3, 2) == pytest.approx(3.0)


def test_samples_are_seeded_and_longer_than_a_context() -> None:
    model = GPT(GPTConfig(vocab_size=VOCAB, n_layer=1, d_model=8, n_head=2, context=16))
    first = sample(model, 0, 30, seed=1)
    assert len(first) == 30
    assert first == sample(model, 0, 30, seed=1) != sample(model, 0, 30, seed=2)


def test_the_learning_rate_warms_up_and_falls_to_its_share() -> None:
    config = TrainGptConfig(lr=1.0, warmup_steps=10, final_lr_fraction=0.1).part(TrainSettings)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert [learning_rate(step, 5, config) for step in range(2)] == pytest.approx([0.5, 1.0])


def test_decay_is_on_matrices_only() -> None:
    trainer = Trainer(GPT(GPTConfig(vocab_size=VOCAB)), TrainGptConfig(weight_decay=0.3).part(TrainSettings))
    decay = {p.dim(): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert decay == {2: 0.3, 1: 0.0}
