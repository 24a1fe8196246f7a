"""One training step of a GPT, and the state between two steps as a file."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sparsecode.checkpoint import load_tensors, save_tensors
from sparsecode.errors import CheckpointCorrupt, TrainingDiverged
from sparsecode.gpt.batches import Ids, contexts, training_starts
from sparsecode.gpt.model import GPT

_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a GPT is trained: batches, and AdamW with its schedule.

    Attributes:
        batch_size: contexts in a batch.
        lr: peak learning rate.
        warmup_steps: steps of linear warm-up.
        final_lr_fraction: the rate at the end of the cosine, as a share of the peak.
        weight_decay: on matrices.
        beta1, beta2: decay of the mean gradient, and of the mean squared gradient.
        grad_clip: largest norm of the gradient.
        seed: of the order of contexts.
    """

    batch_size: int
    lr: float
    warmup_steps: int
    final_lr_fraction: float
    weight_decay: float
    beta1: float
    beta2: float
    grad_clip: float
    seed: int


def learning_rate(step: int, steps: int, config: TrainSettings) -> float:
    """Rate of step 0 .. steps - 1: linear warm-up to the peak, then half a cosine down to a share of it.

    A run that is too short for the warm-up warms up over its first fifth.
    """
    warmup = min(config.warmup_steps, steps // 5)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - 1 - warmup)
    low = config.lr * config.final_lr_fraction
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """A model with its optimiser. The state after n steps is a function of (config, tokens, n) alone."""

    def __init__(self, model: GPT, config: TrainSettings) -> None:
        self.model = model
        self.config = config
        self.step = 0
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]  # LayerNorm's scales: nothing to shrink towards 0
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    def train_step(self, tokens: Ids, steps: int) -> Tensor:
        """Does step number `self.step` of `steps` and returns its loss (a scalar tensor, on the model's device)."""
        config, model = self.config, self.model
        device = model.wte.weight.device
        starts = training_starts(len(tokens), model.config.context, config.batch_size, config.seed, self.step)
        idx, targets = contexts(tokens, starts, model.config.context)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, steps, config)
        loss: Tensor = model(idx.to(device), targets.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def throwaway(self) -> Self:
        """A copy for measuring how long a step takes; its steps leave no trace."""
        twin = type(self)(copy.deepcopy(self.model), self.config)
        twin.step = self.step
        return twin

    def seconds_per_step(self, tokens: Ids, seconds: float) -> float:
        """Measures for about `seconds` on a copy; the first step, which allocates memory, is left out."""
        twin = self.throwaway()
        twin.train_step(tokens, 10**6).item()
        count, start = 0, time.perf_counter()
        while count < 3 or time.perf_counter() - start < seconds:
            twin.train_step(tokens, 10**6).item()  # .item() waits for an accelerator to finish
            count += 1
        return (time.perf_counter() - start) / count

    def save(self, path: Path, metadata: dict[str, Any]) -> None:
        """Writes parameters, moments and step; there is no random state, since batches are functions of seed and step.

        Raises:
            TrainingDiverged: a parameter is not finite; the state saved before stays.
        """
        tensors: dict[str, Tensor] = {}
        for name, p in self.model.named_parameters():
            if not torch.isfinite(p).all():
                raise diverged(path, self.step)
            tensors[f"parameter/{name}"] = p
            for short, long in _MOMENTS.items():
                tensors[f"{short}/{name}"] = self.optimizer.state[p][long]
        save_tensors(path, tensors, metadata | {"step": self.step})

    def load(self, path: Path) -> dict[str, Any]:
        """Continues from what `save` wrote; returns the metadata.

        Raises:
            CheckpointCorrupt: the file cannot be read or is of another model.
        """
        tensors, metadata = load_tensors(path)
        try:
            step = int(metadata["step"])
            for name, p in self.model.named_parameters():
                p.data.copy_(tensors[f"parameter/{name}"])
                state = {long: tensors[f"{short}/{name}"].to(p.device) for short, long in _MOMENTS.items()}
                if any(moment.shape != p.shape for moment in state.values()):
                    raise ValueError(f"moments of {name} have another shape")
                self.optimizer.state[p] = state | {"step": torch.tensor(float(step), device=p.device)}
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointCorrupt(f"{path}: not the state of this training ({error})") from error
        self.step = step
        return metadata


def diverged(where: Path, step: int) -> TrainingDiverged:
    """The named error for a loss or parameter that is not finite."""
    return TrainingDiverged(f"{where}: training diverged before step {step}")
