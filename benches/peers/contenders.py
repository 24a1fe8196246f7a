"""A sweep in other libraries: each contender takes over a sweep's weights and trains them on by its own code.

All of them minimise the same loss: dictionary_learning and SAELens sum the squared error over dimensions, so their
L1 coefficient is sparsecode's times D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sparsecode.sweep import Sweep
from sparsecode.sweep.engines import choose_engine

Step = Callable[[Tensor], None]
TOTAL = 1_000_000  # steps announced to schedules, far more than are taken: rates stay where they are
LR = 1e-4


def copy_of(sweep: Sweep) -> Sweep:
    """A sweep of the same settings with the same state."""
    twin = Sweep(sweep.activation_dim, sweep.sizes, sweep.kinds, sweep.seeds, sweep.lr, sweep.loss)
    twin.state.annealing = sweep.state.annealing
    twin.load_state_dict({name: value.clone() for name, value in sweep.state_dict().items()})
    return twin


def sparsecode(sweep: Sweep, engine: str) -> Step:
    own, chosen = copy_of(sweep), choose_engine(engine, "cpu")
    own.lr = [LR] * len(own)

    def step(x: Tensor) -> None:
        chosen.step(own, x, 1.0)

    return step


def torch_autograd(sweep: Sweep) -> Step:
    """Plain torch: autograd, fused Adam, atoms renormalised."""
    parts = []
    for k in range(len(sweep)):
        rows = sweep.rows(k)
        weights = [torch.nn.Parameter(values[rows].clone()) for values in (sweep.W_enc, sweep.b_enc, sweep.W_dec)]
        parts.append((weights, torch.optim.Adam(weights, lr=LR, fused=True), sweep.penalty(k)))

    def step(x: Tensor) -> None:
        for (W_enc, b_enc, W_dec), optimiser, penalty in parts:
            optimiser.zero_grad(set_to_none=True)
            z = torch.relu(torch.addmm(b_enc, x, W_enc.T))
            loss = (z @ W_dec - x).square().mean() + penalty * z.sum(1).mean()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                W_dec /= W_dec.norm(dim=1, keepdim=True)

    return step


def sparsecode_from_start(own: Sweep, warmup: int) -> Step:
    """The sweep itself, trained with a linear warm-up."""
    engine = choose_engine("cpu", "cpu")

    def step(x: Tensor) -> None:
        engine.step(own, x, min(1.0, (own.step + 1) / warmup))

    return step


class DictionaryLearning:
    """A StandardTrainer per dictionary, beginning with a sweep's weights; its pre-bias begins at zero."""

    def __init__(self, sweep: Sweep, lr: float, warmup: int) -> None:
        from dictionary_learning.trainers.standard import StandardTrainer

        # Their squared error is summed over dimensions.
        factor = sweep.activation_dim if sweep.loss.mse == "mean" else 1
        self.done = 0
        self.trainers = []
        for k, size in enumerate(sweep.sizes):
            trainer = StandardTrainer(
                steps=TOTAL, activation_dim=sweep.activation_dim, dict_size=size, layer=0, lm_name="", lr=lr,
                l1_penalty=sweep.penalty(k) * factor, warmup_steps=warmup, sparsity_warmup_steps=None, device="cpu",
            )  # fmt: skip
            rows = sweep.rows(k)
            with torch.no_grad():
                trainer.ae.encoder.weight.copy_(sweep.W_enc[rows])
                trainer.ae.encoder.bias.copy_(sweep.b_enc[rows])
                trainer.ae.decoder.weight.copy_(sweep.W_dec[rows].T)
                trainer.ae.bias.zero_()
            self.trainers.append(trainer)

    def step(self, x: Tensor) -> None:
        self.done += 1
        for trainer in self.trainers:
            trainer.update(self.done, x)

    def into(self, sweep: Sweep) -> Sweep:
        """`sweep`, which has a pre-bias, with the weights as they are now."""
        assert sweep.b_dec is not None
        with torch.no_grad():
            for k, trainer in enumerate(self.trainers):
                rows = sweep.rows(k)
                sweep.W_enc[rows] = trainer.ae.encoder.weight
                sweep.b_enc[rows] = trainer.ae.encoder.bias
                sweep.W_dec[rows] = trainer.ae.decoder.weight.T
                sweep.b_dec[k] = trainer.ae.bias
        return sweep


def dictionary_learning(sweep: Sweep) -> Step:
    return DictionaryLearning(sweep, LR, 0).step


def saelens(sweep: Sweep) -> Step:
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    D = sweep.activation_dim
    saes = {}
    for k, size in enumerate(sweep.sizes):
        config = StandardTrainingSAEConfig(
            d_in=D, d_sae=size, l1_coefficient=sweep.penalty(k) * D, apply_b_dec_to_input=False, device="cpu"
        )
        sae = StandardTrainingSAE(config)
        rows = sweep.rows(k)
        with torch.no_grad():
            sae.W_enc.copy_(sweep.W_enc[rows].T)
            sae.b_enc.copy_(sweep.b_enc[rows])
            sae.W_dec.copy_(sweep.W_dec[rows])
            sae.b_dec.zero_()
        saes[f"{k}"] = sae
    batch = 4096
    trainer = MultiSAETrainer(
        SAETrainerConfig(total_training_samples=TOTAL * batch, train_batch_size_samples=batch, lr=LR, lr_end=LR),
        saes, hook_names=dict.fromkeys(saes, "hook"), data_provider=iter(()),
    )  # fmt: skip

    def step(x: Tensor) -> None:
        for one in trainer.trainers.values():
            one.step(x)
            one.n_training_steps += 1

    return step


class OwnRecipe(Protocol):
    """A library's own trainer with the start, rate and schedule that it comes with, a dictionary per size.

    Attributes:
        name: of the trainer.
        mean_square: of the norm of the rows that it is to see.
    """

    name: str
    mean_square: float

    def step(self, x: Tensor) -> None: ...

    def into(self, sweep: Sweep) -> Sweep:
        """`sweep`, which has a pre-bias, with the weights as they are now and atoms of norm 1."""
        ...


class DictionaryLearningRecipe:
    """dictionary_learning as its constructors' defaults and `normalize_activations` of its `trainSAE` have it: Adam at
    1e-3, warmed up over 1,000 steps, L1 over 2,000, rows of mean squared norm 1."""

    mean_square = 1.0

    def __init__(self, trainer: str, dim: int, sizes: list[int], l1: float) -> None:
        from dictionary_learning.trainers import standard

        self.name, self.done = f"dictionary_learning {trainer}", 0
        self.trainers = [
            getattr(standard, trainer)(
                steps=TOTAL, activation_dim=dim, dict_size=size, layer=0, lm_name="", l1_penalty=l1, seed=0,
                device="cpu",
            )
            for size in sizes
        ]  # fmt: skip

    def step(self, x: Tensor) -> None:
        for trainer in self.trainers:
            trainer.update(self.done, x)
        self.done += 1

    def into(self, sweep: Sweep) -> Sweep:
        for k, trainer in enumerate(self.trainers):
            own = trainer.ae
            _put(sweep, k, own.encoder.weight, own.encoder.bias, own.decoder.weight.T, own.bias)
        return sweep


class SaelensRecipe:
    """SAELens as its defaults (Adam at 3e-4, atoms of norm 0.1, encoder their copy) and its tutorial (L1 warmed up over
    the first 5 % of the steps, the rate decaying over the last 20 %, rows of mean norm sqrt(D)) have it."""

    name = "SAELens StandardTrainingSAE"

    def __init__(self, dim: int, sizes: list[int], l1: float, steps: int, batch: int) -> None:
        from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.multi_sae_trainer import MultiSAETrainer

        torch.manual_seed(0)
        self.mean_square = float(dim)
        saes = {
            str(size): StandardTrainingSAE(
                StandardTrainingSAEConfig(
                    d_in=dim, d_sae=size, l1_coefficient=l1, l1_warm_up_steps=steps // 20, device="cpu"
                )
            )
            for size in sizes
        }
        self.saes = list(saes.values())
        config = SAETrainerConfig(steps * batch, batch, lr_end=3e-5, lr_decay_steps=steps // 5)
        self.trainers = MultiSAETrainer(config, saes, dict.fromkeys(saes, "hook"), iter(())).trainers

    def step(self, x: Tensor) -> None:
        for trainer in self.trainers.values():
            trainer.step(x)
            trainer.n_training_steps += 1

    def into(self, sweep: Sweep) -> Sweep:
        for k, own in enumerate(self.saes):
            _put(sweep, k, own.W_enc.T, own.b_enc, own.W_dec, own.b_dec)
        return sweep


@torch.no_grad()
def _put(sweep: Sweep, k: int, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> None:
    """Weights of another library as dictionary `k`: atoms of norm 1, and codes as many times larger."""
    assert sweep.b_dec is not None
    own, norms = sweep.rows(k), W_dec.norm(dim=1)
    sweep.W_enc[own] = W_enc * norms[:, None]
    sweep.b_enc[own] = b_enc * norms
    sweep.W_dec[own] = W_dec / norms[:, None]
    sweep.b_dec[k] = b_dec
