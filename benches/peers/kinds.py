"""Other libraries' trainers of every kind: each takes over a dictionary of a sweep and trains it on by its own code.

By default what these trainers do beside the loss is switched off, so that they do what `Engine.step` says:

- dictionary_learning and SAELens clip the norm of each dictionary's gradient to 1;
- dictionary_learning moves BatchTopK's threshold by a thousandth, from step 1,000 on, here as ours by a hundredth;
- its gated trainer has Adam without momentum, and its p-annealing (sum z^p)^(1/p) for a penalty, no sum over codes;
- SAELens leaves the norms of atoms free; here they are kept at 1.

What is wrong with a loss cannot be switched off: `counting_codes` makes the same mistake here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from contenders import TOTAL
from torch import Tensor

from sparsecode.dictionary import Dictionary
from sparsecode.interop import load_dictionary
from sparsecode.sweep import Sweep
from sparsecode.sweep.kinds import JumpRelu, Weights
from sparsecode.sweep.sweep import BETA1, BETA2


class Peer(Protocol):
    """One dictionary in another library.

    Attributes:
        name: of the library and its trainer.
    """

    name: str

    def step(self, x: Tensor, lr: float) -> None:
        """One step of its own trainer, with that rate."""
        ...

    def dictionary(self) -> Dictionary:
        """What it has come to, written by the library and read from its files."""
        ...


@contextmanager
def unclipped() -> Iterator[None]:
    """Within, torch clips no gradients."""
    clip = torch.nn.utils.clip_grad_norm_
    torch.nn.utils.clip_grad_norm_ = lambda *_args, **_options: torch.zeros(())  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.utils.clip_grad_norm_ = clip


@contextmanager
def counting_codes() -> Iterator[None]:
    """Within, the L0 of JumpReLU counts codes above the threshold here, as in dictionary_learning (its issue 55).

    What is below has the code 0: half of the window is lost, and where a threshold is less than half of the window,
    whatever does not fire counts as near to it.
    """
    right = JumpRelu.backward

    def backward(
        self: JumpRelu, y: Tensor, z: Tensor, q: Tensor, weights: Weights, second: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        theta = weights.own("theta")
        dy, own = right(self, y, z, q, weights, second)
        slope = self._by_l0(y, theta) / self.window
        near, near_code = ((value - theta).abs() < self.window / 2 for value in (y, z))
        return dy, own | {"theta": own["theta"] + (slope * near).sum(0) - (slope * near_code).sum(0)}

    JumpRelu.backward = backward  # type: ignore[method-assign]
    try:
        yield
    finally:
        JumpRelu.backward = right  # type: ignore[method-assign]


class Learning:
    """A trainer of dictionary_learning. Its JumpReLU has no pre-bias, and here no bias of its output either.

    Args:
        sweep: made with the squared error summed over dimensions and, but for JumpReLU, a pre-bias.
        k: which of its dictionaries to take over.
        steps: of the training.
        as_it_is: leaves the trainer's own momentum, threshold and penalty, and clips gradients.
    """

    def __init__(self, sweep: Sweep, k: int, steps: int = TOTAL, *, as_it_is: bool = False) -> None:
        from dictionary_learning import trainers
        from dictionary_learning.trainers.jumprelu import JumpReluTrainer
        from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

        kind, size = sweep.kinds[k], sweep.sizes[k]
        common: dict[str, Any] = {
            "steps": steps + 2, "activation_dim": sweep.activation_dim, "dict_size": size, "layer": 0, "lm_name": "",
            "lr": 1.0, "warmup_steps": 0, "device": "cpu",
        }  # fmt: skip
        self.first = 0
        if kind.k is not None:
            makers = {"topk": trainers.TopKTrainer, "batchtopk": trainers.BatchTopKTrainer,
                      "matryoshka": MatryoshkaBatchTopKTrainer}  # fmt: skip
            common |= {"k": int(kind.k), "auxk_alpha": kind.aux}
            common |= {} if as_it_is else {"threshold_beta": 0.99, "threshold_start_step": 0}
            common |= {"group_fractions": [float(share) for share in kind.groups]} if kind.groups else {}
            self.first = 1  # on the 0th it sets b_dec
        elif kind.name == "gated":
            makers = {"gated": trainers.GatedSAETrainer}
            common |= {"l1_penalty": kind.l1, "sparsity_warmup_steps": None}
        elif kind.name == "jumprelu":
            makers = {"jumprelu": JumpReluTrainer}
            common |= {"sparsity_penalty": kind.strength, "sparsity_warmup_steps": None, "target_l0": kind.l0,
                       "bandwidth": kind.window}  # fmt: skip
        else:
            makers = {"panneal": trainers.PAnnealTrainer}
            plan = kind.annealing(steps)
            assert plan is not None
            common |= {
                "initial_sparsity_penalty": kind.l1, "sparsity_warmup_steps": None, "p_end": plan.p_end,
                "anneal_start": plan.start, "anneal_end": plan.end, "n_sparsity_updates": plan.changes + 1,
                "sparsity_function": "Lp" if as_it_is else "Lp^p",
            }  # fmt: skip
        self.trainer: Any = makers[kind.name](**common)
        self.name = f"dictionary_learning {type(self.trainer).__name__}"
        self.clip, self.done = as_it_is, 0
        if kind.aux:
            self.trainer.dead_feature_threshold = kind.dead_after
        if not as_it_is:
            self.trainer.optimizer.param_groups[0]["betas"] = (BETA1, BETA2)
        if kind.anneals:
            self.trainer.p, self.trainer.sparsity_coeff = (
                sweep.state.exponent(k, sweep.step),
                sweep.state.strength(k).strength,
            )
        _take_over(self.trainer.ae, sweep, k)

    def step(self, x: Tensor, lr: float) -> None:
        self.trainer.optimizer.param_groups[0]["lr"] = lr
        _clipped(self.clip, lambda: self.trainer.update(self.done + self.first, x))
        self.done += 1
        if hasattr(self.trainer.ae, "b_enc") and isinstance(self.trainer.ae.threshold, torch.nn.Parameter):
            self.trainer.ae.threshold.data.clamp_(min=0.0)

    def dictionary(self) -> Dictionary:
        with tempfile.TemporaryDirectory() as folder:
            torch.save(self.trainer.ae.state_dict(), Path(folder) / "ae.pt")
            (Path(folder) / "config.json").write_text(json.dumps({"trainer": self.trainer.config}))
            return load_dictionary(folder)


class LensJumpRelu:
    """SAELens's JumpReLU; the arguments are those of `Learning`."""

    name = "SAELens JumpReLUTrainingSAE"

    def __init__(self, sweep: Sweep, k: int, steps: int = TOTAL, *, as_it_is: bool = False) -> None:
        from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        kind = sweep.kinds[k]
        config = JumpReLUTrainingSAEConfig(
            d_in=sweep.activation_dim, d_sae=sweep.sizes[k], device="cpu", jumprelu_bandwidth=kind.window,
            jumprelu_sparsity_loss_mode=kind.penalty, l0_coefficient=kind.strength, target_l0=kind.l0,
        )  # fmt: skip
        self.sae = JumpReLUTrainingSAE(config)
        self.trainer: Any = SAETrainer(SAETrainerConfig(steps * 4096, 4096, lr=1.0, lr_end=1.0), self.sae, iter(()))
        self.as_it_is = as_it_is
        weights = sweep.weights(k)
        with torch.no_grad():
            self.sae.threshold.copy_(weights.own("theta"))
            for name, value in {"W_enc": weights.W_enc.T, "b_enc": weights.b_enc, "W_dec": weights.W_dec,
                                "b_dec": weights.own("b_dec")}.items():  # fmt: skip
                getattr(self.sae, name).copy_(value)
        if not as_it_is:
            self.sae.W_dec.register_hook(lambda g: g - (g * self.sae.W_dec).sum(1, keepdim=True) * self.sae.W_dec)

    def step(self, x: Tensor, lr: float) -> None:
        self.trainer.optimizer.param_groups[0]["lr"] = lr
        _clipped(self.as_it_is, lambda: self.trainer.step(x))
        self.trainer.n_training_steps += 1
        # What every other trainer does after each step, and SAELens before each.
        self.sae.threshold.data.clamp_(min=0.0)
        if not self.as_it_is:
            self.sae.W_dec.data /= self.sae.W_dec.data.norm(dim=1, keepdim=True)

    def dictionary(self) -> Dictionary:
        with tempfile.TemporaryDirectory() as folder:
            self.sae.save_inference_model(folder)
            return load_dictionary(folder)


def peer_of(sweep: Sweep, k: int, steps: int = TOTAL, *, as_it_is: bool = False) -> Peer:
    """The peer of dictionary k."""
    kind = sweep.kinds[k]
    made = LensJumpRelu if kind.name == "jumprelu" and kind.penalty != "target" else Learning
    return made(sweep, k, steps, as_it_is=as_it_is)


def _clipped(clip: bool, step: Callable[[], Any]) -> None:
    if clip:
        step()
    else:
        with unclipped():
            step()


@torch.no_grad()
def _take_over(autoencoder: Any, sweep: Sweep, k: int) -> None:
    """Gives an autoencoder of dictionary_learning the parameters of dictionary k."""
    weights, held = sweep.weights(k), dict(autoencoder.named_parameters())
    linear = "encoder.weight" in held
    values = {
        "encoder.weight" if linear else "W_enc": weights.W_enc if linear else weights.W_enc.T,
        "decoder.weight" if linear else "W_dec": weights.W_dec.T if linear else weights.W_dec,
        next(name for name in ("bias", "decoder_bias", "b_dec") if name in held): weights.b_dec,
        next(name for name in ("gate_bias", "encoder.bias", "b_enc") if name in held): weights.b_enc,
    }
    if weights.rho is not None:
        values |= {"r_mag": weights.rho, "mag_bias": weights.own("b_mag")}
    if weights.theta is not None:
        values |= {"threshold": weights.theta}
    assert values.keys() == held.keys(), held.keys() ^ values.keys()
    for name, value in values.items():
        if value is not None:
            held[name].copy_(value)
        else:
            held[name].zero_().requires_grad_(False)
