"""Trains the encoder of a consensus anew, with its atoms frozen.

Averaged encoders were tuned among the other features of their dictionaries; in a consensus they overshoot. Several L1
coefficients are tried side by side, and the one is kept whose L0 is nearest the median member's: FVU means something
at equal L0 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from torch import Tensor

from sparsecode.consensus.records import ConsensusSettings, Refit
from sparsecode.consensus.voters import Voter
from sparsecode.dictionary import BatchTopK, Dictionary, TopK
from sparsecode.errors import InvalidSetting, TrainingDiverged
from sparsecode.sweep.batches import Batches
from sparsecode.sweep.engines import Engine
from sparsecode.sweep.kinds import KindSpec, as_kind
from sparsecode.sweep.reconstruction import Reconstruction, evaluate
from sparsecode.sweep.schedule import Schedule
from sparsecode.sweep.settings import LossSettings, rates
from sparsecode.sweep.start import Start
from sparsecode.sweep.sweep import Sweep
from sparsecode.sweep.trainer import Trainer
from sparsecode.watch import Watch

STEPS = (0.5, 0.7, 1.0, 1.4, 2.0)  # times the members' L1: a consensus with fewer features needs another one
_SLOWER = 3  # than the members' learning rate: it starts near to its end
_LR = 8e-3  # that of 1,024 features, of members that do not say theirs
_WARMUP, _DECAY = 100, 0.3


def loss_of(voters: Sequence[Voter]) -> LossSettings:
    """The members' convention of the loss, that of the first where they differ, with frozen atoms."""
    told = voters[0].dictionary.meta.get("loss") or {}
    known = {name: told[name] for name in ("mse", "l1_scale", "pre_bias") if name in told}
    return LossSettings(**known, frozen=True)


def kinds_of(voters: Sequence[Voter], settings: ConsensusSettings, features: int) -> list[KindSpec]:
    """What is tried: as many codes as the members, or L1 coefficients around theirs.

    Raises:
        InvalidSetting: they say neither.
    """
    activations = [voter.dictionary.activation for voter in voters]
    if settings.l1 is None and all(isinstance(one, TopK | BatchTopK) for one in activations):
        counts = [one.k for one in activations if isinstance(one, TopK | BatchTopK) and one.k is not None]
        if counts:
            name = "topk" if isinstance(activations[0], TopK) else "batchtopk"
            return [KindSpec(name, k=min(float(features), median(counts)))]
    l1 = [voter.dictionary.meta.get("l1") for voter in voters]
    known = [float(value) for value in l1 if isinstance(value, float | int)]
    if settings.l1 is None and not known:
        raise InvalidSetting(
            "the members do not say which L1 coefficient they were trained with", remedy="consensus_l1"
        )
    middle = settings.l1 if settings.l1 is not None else median(known)
    if loss_of(voters).l1_scale == "per-size":  # which divides by a size that is another one here
        middle *= features / median(voter.dictionary.dict_size for voter in voters)
    return [as_kind(float(f"{middle * step:.6g}")) for step in STEPS]


def refit(
    dictionary: Dictionary,
    voters: Sequence[Voter],
    settings: ConsensusSettings,
    batches: Batches,
    engine: Engine,
    rows: Tensor,
    target_l0: float,
    watch: Watch,
    threads: int | None = None,
) -> tuple[Dictionary, Refit]:
    """The dictionary with the same atoms and a trained encoder, and what was tried.

    Args:
        dictionary: the averages; `batches` have its normalisation.
        voters: the members.
        settings: how long, and which L1.
        batches: rows to train on.
        engine: what trains.
        rows: [R, d] raw, to measure L0 on.
        target_l0: that of the median member there.
        watch: what it is watched with.
        threads: see `Trainer`.

    Raises:
        InvalidSetting: the members' kind cannot be trained.
        TrainingDiverged: it ran into NaN.
    """
    n, kinds = dictionary.dict_size, kinds_of(voters, settings, dictionary.dict_size)
    loss = loss_of(voters)
    loss = replace(loss, pre_bias=loss.pre_bias or dictionary.b_dec is not None)
    peaks = [_rate(voter) for voter in voters]
    lr = rates(median(peaks), [n])[0] / _SLOWER
    sweep = Sweep(dictionary.activation_dim, [n] * len(kinds), kinds, [0] * len(kinds), lr, loss, device=engine.device)
    for k in range(len(kinds)):
        part = sweep.rows(k)
        sweep.W_dec[part], sweep.W_enc[part], sweep.b_enc[part] = dictionary.W_dec, dictionary.W_enc, dictionary.b_enc
        if sweep.b_dec is not None and dictionary.b_dec is not None:
            sweep.b_dec[k] = dictionary.b_dec
    steps = max(1, settings.samples // batches.size)
    schedule = Schedule(min(_WARMUP, steps // 2), _DECAY, 0.0, steps)
    trainer = Trainer(sweep, batches, schedule, engine, watch, start=Start("atoms"), label="refit", threads=threads)
    trainer.train()
    lost = sweep.diverged()
    if len(lost) == len(kinds):
        raise TrainingDiverged("every refit of the consensus ran into NaN")
    found: dict[int, tuple[Dictionary, Reconstruction]] = {}
    for k in sorted(set(range(len(kinds))) - lost):
        made = sweep.dictionary(k, mean=dictionary.mean, scale=dictionary.scale)
        made.features = dict(dictionary.features)
        found[k] = made, evaluate(made, rows)
    best = min(found, key=lambda k: abs(found[k][1].l0 - target_l0))
    made, own = found[best]
    told: dict[str, Any] = {key: value for key, value in made.meta.items() if key in ("kind", "loss", "l1")}
    made.meta = told | dictionary.meta
    made.features["density"] = own.density
    tried = [
        {"l1": kinds[k].l1, "l0": None if k in lost else found[k][1].l0, "fvu": None if k in lost else found[k][1].fvu}
        for k in range(len(kinds))
    ]
    return made, Refit(trainer.samples, engine.name, lr, kinds[best].l1, target_l0, tried)


def _rate(voter: Voter) -> float:
    """The member's learning rate, as that of 1,024 features."""
    told = (voter.dictionary.meta.get("training") or {}).get("lr")
    return float(told) * (voter.dictionary.dict_size / 1024) ** 0.5 if isinstance(told, float | int) else _LR
