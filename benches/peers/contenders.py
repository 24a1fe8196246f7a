"""A sweep in other libraries: each contender takes over a sweep's weights and trains them on by its own code.

All of them minimise the same loss: dictionary_learning and SAELens sum the squared error over dimensions, so their
L1 coefficient is sparsecode's times D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsecode.sweep import Sweep
from sparsecode.sweep.engines import choose_engine

Step = Callable[[Tensor], None]
TOTAL = 1_000_000  # steps announced to schedules, far more than are taken: rates stay where they are
LR = 1e-4


def copy_of(sweep: Sweep) -> Sweep:
    """A sweep of the same settings with the same state."""
    twin = Sweep(sweep.activation_dim, sweep.sizes, sweep.l1, sweep.seeds, sweep.lr, sweep.loss)
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
